"""Proprioception: one source per state component, read at the time of the image."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from faster_core.embodiment import Component, Kind
from faster_core.errors import ConfigError, ObservationError
from faster_vla_ros.sensors.joint_states import JointReader, OtherJointsError
from faster_vla_ros.sensors.ring import StampedRing
from faster_vla_ros.sensors.twists import TwistReader

# Two seconds at 500 Hz: an image may come that late and still find the state of its time.
HISTORY = 1024
# A stamp that goes back by more seconds is another clock (a simulation that was reset), not a
# late message.
CLOCK_JUMP = 1.0
READERS = {'joint_state': JointReader, 'odometry': TwistReader, 'twist': TwistReader}
# A finger that switches has no place between two; half of two quaternions is no rotation.
_NOT_INTERPOLATED = (Kind.GRIPPER_POSITION, Kind.EE_POSE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """How a component is read from messages.

    Attributes:
        topic: of the messages.
        type: 'joint_state' (`JointState`), 'odometry' (`Odometry`, its twist) or 'twist'
            (`TwistStamped`).
        field: 'position', 'velocity' or 'effort' of a `JointState`.
        mapping: 'by_name' (joints may come in any order) or 'by_index', of a `JointState`.
        joints: names, by_name only.
        size: accepted lengths, by_index only; the first values are taken.
        axes: of odometry and twist, some of vx, vy, vz, wx, wy, wz; empty: the component's names.
        scale, offset: value = raw * scale + offset, SI units.
        interpolate: between the two neighbours of the image, where both are near enough.
        timeout: seconds after which the source is stale.
    """

    topic: str
    type: str = 'joint_state'
    field: str = 'position'
    mapping: str = 'by_name'
    joints: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    interpolate: bool = False
    timeout: float = 0.1


class StateSource:
    """Recent values of one component.

    Attributes:
        problem: why the newest message cannot be used, which makes older ones suspect; empty if
            it can, or if there was none.
        refusal: why the newest message was refused, be it only late; empty if it was not.
        num_refused: messages refused since the node was configured.
    """

    def __init__(self, component: Component, config: SourceConfig) -> None:
        """Check that the configuration can fill the component (ConfigError)."""
        self.component, self.config = component, config
        self.problem = self.refusal = ''
        self.num_refused = 0
        if config.type not in READERS:
            raise ConfigError(
                f'{component.name}.type: expected one of {", ".join(READERS)}, found '
                f'{config.type!r}'
            )
        if config.interpolate and component.kind in _NOT_INTERPOLATED:
            raise ConfigError(
                f'{component.name}.interpolate: expected false for a component of kind '
                f'{component.kind.name.lower()}, found true'
            )
        self._reader = READERS[config.type](component, config)
        self._plain = config.scale == 1.0 and config.offset == 0.0
        self._values = StampedRing(HISTORY, component.size)

    @property
    def message_type(self) -> type:
        """Type of the messages to subscribe to."""
        return self._reader.message_type

    def clear(self) -> None:
        """Forget everything but the count of refusals."""
        self._values.clear()
        self.problem = self.refusal = ''

    def add(self, message: Any, stamp: float) -> bool:
        """Take a message of a time (s); False, and `refusal` says why, if it cannot be used.

        A message about other joints alone is passed over in silence once there were values: a
        second publisher shares the topic.
        """
        try:
            values = self.parse(message)
        except OtherJointsError as e:
            if not self._values:
                self._refuse(str(e), suspect=True)
            return False
        except ObservationError as e:
            self._refuse(str(e), suspect=True)
            return False
        if stamp <= self._values.newest:
            back = self._values.newest - stamp
            if back <= CLOCK_JUMP:
                how = f'runs back by {back:.3f} s' if back else 'repeats'
                self._refuse(f'{self.component.name}: the stamp {how}', suspect=False)
                return False
            self._values.clear()
        self._values.append(stamp, values)
        self.problem = self.refusal = ''
        return True

    def _refuse(self, why: str, *, suspect: bool) -> None:
        self.num_refused += 1
        self.refusal = why
        if suspect:
            self.problem = why

    def parse(self, message: Any) -> np.ndarray:
        """Return the component's values [d] in SI units.

        Raises:
            ObservationError: missing joints, another length, values that are not finite.
        """
        values = self._reader.read(message)
        if not self._plain:
            values = values * self.config.scale + self.config.offset
        if not np.isfinite(values).all():
            names = zip(self.component.names, values, strict=True)
            bad = [n for n, v in names if not np.isfinite(v)]
            raise ObservationError(
                f'{self.component.name}: {self._reader.what} of {", ".join(bad)} is not finite'
            )
        return values

    def nearest(self, stamp: float, slop: float) -> np.ndarray:
        """Return the values [d] nearest to a stamp (s).

        Raises:
            ObservationError: there is nothing within `slop` seconds; the message says what is.
        """
        before, after = self._neighbours(stamp)
        when, values = min(before, after, key=lambda item: abs(item[0] - stamp))
        if abs(when - stamp) > slop:
            raise ObservationError(
                f'{self.component.name}: nearest feedback is {abs(when - stamp):.3f} s from the '
                f'image, at most {slop} s are allowed'
            )
        return values

    def at(self, stamp: float, slop: float) -> np.ndarray:
        """Return the values [d] at a stamp (s): interpolated if so configured, else the nearest.

        Nothing is extrapolated: with a neighbour on one side only, or one beyond `slop` seconds,
        the nearest is taken.

        Raises:
            ObservationError: there is nothing within `slop` seconds; the message says what is.
        """
        if self.config.interpolate:
            (t0, v0), (t1, v1) = self._neighbours(stamp)
            if t0 < stamp < t1 and stamp - t0 <= slop and t1 - stamp <= slop:
                return v0 + (v1 - v0) * ((stamp - t0) / (t1 - t0))
        return self.nearest(stamp, slop)

    def _neighbours(self, stamp: float) -> tuple[tuple[float, np.ndarray], ...]:
        if self.problem:
            raise ObservationError(self.problem)
        if not self._values:
            raise ObservationError(f'{self.component.name}: no message yet')
        return tuple(self._values[i] for i in self._values.around(stamp))
