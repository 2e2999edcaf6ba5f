"""Proprioception: one source per state component, the message nearest to the image is taken."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState

from faster_core.embodiment import Component
from faster_core.errors import ConfigError, ObservationError

HISTORY = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """How a component is read from a `JointState`.

    Attributes:
        topic: of the messages.
        field: 'position', 'velocity' or 'effort'.
        mapping: 'by_name' (joints may come in any order) or 'by_index'.
        joints: names, by_name only.
        size: accepted lengths, by_index only; the first values are taken.
        scale, offset: value = raw * scale + offset, SI units.
        timeout: seconds after which the source is stale.
    """

    topic: str
    field: str = 'position'
    mapping: str = 'by_name'
    joints: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    timeout: float = 0.1


class StateSource:
    """Recent values of one component."""

    def __init__(self, component: Component, config: SourceConfig) -> None:
        """Check that the configuration can fill the component (ConfigError)."""
        self.component, self.config = component, config
        # Why the newest message cannot be used; empty if it can, or if there was none.
        self.problem = ''
        if config.mapping == 'by_name' and len(config.joints) != component.size:
            raise ConfigError(
                f'{component.name}.joints: expected {component.size} names, found '
                f'{list(config.joints)}'
            )
        if twice := sorted({j for j in config.joints if config.joints.count(j) > 1}):
            raise ConfigError(f'{component.name}.joints: named twice: {", ".join(twice)}')
        if config.mapping == 'by_index' and (not config.size or min(config.size) < component.size):
            raise ConfigError(
                f'{component.name}.size: expected lengths of at least {component.size}, found '
                f'{list(config.size)}'
            )
        self._values: collections.deque[tuple[float, np.ndarray]] = collections.deque(
            maxlen=HISTORY
        )

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.problem = ''

    def add(self, message: JointState, stamp: float) -> bool:
        """Take a message; False (and `problem`) if it cannot be used."""
        try:
            values = self.parse(message)
        except ObservationError as e:
            self.problem = str(e)
            return False
        if self._values and stamp < self._values[-1][0]:
            self._values.clear()  # the clock went back
        self._values.append((stamp, values))
        self.problem = ''
        return True

    def parse(self, message: JointState) -> np.ndarray:
        """Return the component's values [d] in SI units.

        Raises:
            ObservationError: missing joints, another length, values that are not finite.
        """
        config, name = self.config, self.component.name
        raw: Any = getattr(message, config.field)
        if config.mapping == 'by_index':
            if len(raw) not in config.size:
                raise ObservationError(
                    f'{name}: {len(raw)} values of {config.field}, expected '
                    f'{" or ".join(map(str, config.size))}'
                )
            chosen = raw[: self.component.size]
        else:
            index = {joint: i for i, joint in enumerate(message.name)}
            missing = [j for j in config.joints if j not in index or index[j] >= len(raw)]
            if missing:
                raise ObservationError(f'{name}: no {config.field} of {", ".join(missing)}')
            chosen = [raw[index[j]] for j in config.joints]
        values = np.asarray(chosen, dtype=np.float64) * config.scale + config.offset
        if not np.isfinite(values).all():
            bad = [
                n for n, v in zip(self.component.names, values, strict=True) if not np.isfinite(v)
            ]
            raise ObservationError(f'{name}: {config.field} of {", ".join(bad)} is not finite')
        return values

    def nearest(self, stamp: float, slop: float) -> np.ndarray:
        """Return the values [d] nearest to a stamp.

        Raises:
            ObservationError: there is nothing within `slop` seconds; the message says what is.
        """
        if self.problem:
            raise ObservationError(self.problem)
        if not self._values:
            raise ObservationError(f'{self.component.name}: no message yet')
        when, values = min(self._values, key=lambda item: abs(item[0] - stamp))
        if abs(when - stamp) > slop:
            raise ObservationError(
                f'{self.component.name}: nearest feedback is {abs(when - stamp):.3f} s from the '
                f'image, at most {slop} s are allowed'
            )
        return values
