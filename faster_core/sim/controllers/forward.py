"""A model of forward_command_controller (forward_position_controller and its like)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ForwardCommandController:
    """Hands the last array of set-points to the joints in every cycle; it never times out."""

    def __init__(self, joints: Sequence[str], flavour: str) -> None:
        """Command nothing yet, for these joints in this order."""
        self.joints = tuple(joints)
        self._refuses_non_finite = flavour != 'humble'
        self._command: np.ndarray | None = None

    def accept(self, values: Sequence[float]) -> str:
        """Take `std_msgs/Float64MultiArray.data`; returns '' or the reason why it is dropped.

        Humble lets values through that are not finite. A wrong size stops the controller's
        cycle upstream (`return_type::ERROR`); here the message is dropped and said to be wrong.
        """
        values = np.array(values, dtype=float)
        if len(values) != len(self.joints):
            return f'data: expected {len(self.joints)} values, found {len(values)}'
        if self._refuses_non_finite and not np.isfinite(values).all():
            return f'data: expected finite values, found {values.tolist()}'
        self._command = values
        return ''

    def update(self) -> np.ndarray | None:
        """Return the set-point [J], or None before the first message."""
        return None if self._command is None else self._command.copy()
