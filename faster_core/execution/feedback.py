"""The newest measured values of the action components, and whether they are fresh enough."""

from __future__ import annotations

import numpy as np

from faster_core.embodiment import Embodiment


class Feedback:
    """Measured positions with their times; velocities are kept as a sign of life only."""

    def __init__(self, embodiment: Embodiment, timeout: float) -> None:
        """Take the layout and the age (seconds) beyond which a position is stale."""
        self._embodiment, self.timeout = embodiment, timeout
        self._newest: dict[str, tuple[float, np.ndarray]] = {}

    def take(self, component: str, measured: np.ndarray, at: float) -> bool:
        """Keep a value; False (and nothing kept) if its size is wrong or it is not finite.

        Args:
            component: name of an action component.
            measured: its positions or velocities [d].
            at: when they came; not before those that are kept.
        """
        size = self._embodiment.action_component(component).size
        values = np.array(measured, dtype=float)
        if values.shape != (size,) or not np.isfinite(values).all():
            return False
        self._newest[component] = (max(at, self._newest.get(component, (at,))[0]), values)
        return True

    def stale(self, now: float) -> tuple[str, ...]:
        """Return the position components never measured or measured too long ago."""
        return tuple(
            c.name
            for c in self._embodiment.action
            if c.kind.is_position and not self._age(c.name, now) <= self.timeout
        )

    def lost(self, now: float) -> tuple[str, ...]:
        """Return those that were measured once, but too long ago: the robot may have restarted."""
        return tuple(n for n in self.stale(now) if n in self._newest)

    def positions(self) -> dict[str, np.ndarray]:
        """Return the newest positions, component -> [d]."""
        return {
            c.name: self._newest[c.name][1]
            for c in self._embodiment.action
            if c.kind.is_position and c.name in self._newest
        }

    def _age(self, component: str, now: float) -> float:
        return now - self._newest[component][0] if component in self._newest else np.inf

    def clear(self) -> None:
        """Forget everything (the clock was set back)."""
        self._newest.clear()
