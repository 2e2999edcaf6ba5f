"""One component out of a `sensor_msgs/JointState`, by name or by index."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import JointState

from faster_core.embodiment import Component
from faster_core.errors import ConfigError, ObservationError

if TYPE_CHECKING:
    from faster_vla_ros.sensors.state import SourceConfig


class OtherJointsError(ObservationError):
    """A message names none of the joints: it is of another publisher on the same topic."""


class JointReader:
    """Reads messages; where the names stay the same, their places are looked up once."""

    message_type = JointState

    def __init__(self, component: Component, config: SourceConfig) -> None:
        """Check that the configuration can fill the component (ConfigError)."""
        self._component, self._config = component, config
        # Of the last message, with what followed from them: places, or an error to be raised (a
        # new one each time, as an exception that is raised again grows its traceback).
        self._names: list[str] | None = None
        self._places = np.zeros(0, np.intp)
        self._wrong: tuple[type[ObservationError], str] | None = None
        name, size = component.name, component.size
        if config.axes:
            raise ConfigError(
                f'{name}.axes: expected none with type joint_state, found {list(config.axes)}'
            )
        if config.mapping == 'by_name' and len(config.joints) != size:
            raise ConfigError(f'{name}.joints: expected {size} names, found {list(config.joints)}')
        if twice := sorted({j for j in config.joints if config.joints.count(j) > 1}):
            raise ConfigError(f'{name}.joints: named twice: {", ".join(twice)}')
        if config.mapping == 'by_index' and (not config.size or min(config.size) < size):
            raise ConfigError(
                f'{name}.size: expected lengths of at least {size}, found {list(config.size)}'
            )

    @property
    def what(self) -> str:
        """Return what is read, for a sentence."""
        return self._config.field

    def read(self, message: JointState) -> np.ndarray:
        """Return the values [d] as they are in the message.

        Raises:
            ObservationError: another length, a joint that is missing or named twice.
        """
        raw: Any = getattr(message, self._config.field)
        if self._config.mapping == 'by_index':
            return self._first(raw)
        if message.name != self._names:
            self._look_up(list(message.name))
        if self._wrong is not None:
            error, why = self._wrong
            raise error(why)
        if len(raw) != len(message.name):
            raise self._wrong_length(len(raw))
        return np.frombuffer(raw)[self._places]

    def _first(self, raw: Any) -> np.ndarray:
        if len(raw) not in self._config.size:
            raise ObservationError(
                f'{self._component.name}: {len(raw)} values of {self.what}, expected '
                f'{" or ".join(map(str, self._config.size))}'
            )
        return np.frombuffer(raw)[: self._component.size].copy()

    def _look_up(self, names: list[str]) -> None:
        """Find the place of every joint, or what is wrong with the names."""
        name, joints = self._component.name, self._config.joints
        index = {joint: i for i, joint in enumerate(names)}
        missing = [j for j in joints if j not in index]
        self._names, self._wrong = names, None
        if len(index) != len(names):
            twice = sorted({j for j in names if names.count(j) > 1})
            self._wrong = ObservationError, f'{name}: the message names {", ".join(twice)} twice'
        elif missing:
            error = OtherJointsError if len(missing) == len(joints) else ObservationError
            self._wrong = error, f'{name}: no {self.what} of {", ".join(missing)}'
        else:
            self._places = np.array([index[j] for j in joints], np.intp)

    def _wrong_length(self, length: int) -> ObservationError:
        """Return the error of an array that does not match the names one to one."""
        name = self._component.name
        places = zip(self._config.joints, self._places, strict=True)
        if missing := [joint for joint, place in places if place >= length]:
            return ObservationError(f'{name}: no {self.what} of {", ".join(missing)}')
        return ObservationError(
            f'{name}: {length} values of {self.what} for {len(self._names or ())} names'
        )
