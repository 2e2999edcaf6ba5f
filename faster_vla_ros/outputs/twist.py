"""`geometry_msgs/Twist` every tick: base controllers of before ROS 2 Jazzy, and many vendors."""

from __future__ import annotations

from typing import ClassVar

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist
import numpy as np

from faster_core.embodiment import Component, Kind, TWIST_NAMES
from faster_core.errors import ConfigError
from faster_vla_ros.outputs.protocol import on_wire, OutputConfig, refuse_kind, SET_POINT

_PART = {'v': 'linear', 'w': 'angular'}


class TwistOutput:
    """Axes the component does not have stay zero."""

    KEYS: ClassVar = ('axes', 'frame_id', 'scale')
    TAKES: ClassVar = SET_POINT
    message_type: ClassVar = Twist

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take the axes; ConfigError if they do not fit the component."""
        refuse_kind(component, 'twist', (Kind.TWIST, Kind.JOINT_VELOCITY))
        self._config = config
        self._axes = _axes(component, config)

    def message(self, values: np.ndarray, stamp: Time) -> Twist:
        """Return the message for values [d]; a plain twist carries no time."""
        del stamp
        return self.fill(Twist(), values)

    def fill(self, twist: Twist, values: np.ndarray) -> Twist:
        """Write values [d] into the axes of a twist."""
        for axis, value in zip(self._axes, on_wire(values, self._config), strict=True):
            setattr(getattr(twist, _PART[axis[0]]), axis[1], value)
        return twist


def _axes(component: Component, config: OutputConfig) -> tuple[str, ...]:
    """Return one axis per dimension; a twist's own names may not be mixed up by a list."""
    axes, name = config.axes or component.names, f'{component.name}.axes'
    if len(axes) != component.size or len(set(axes)) != len(axes):
        raise ConfigError(f'{name}: expected {component.size} different axes, found {list(axes)}')
    if unknown := [a for a in axes if a not in TWIST_NAMES]:
        raise ConfigError(f'{name}: expected some of {", ".join(TWIST_NAMES)}, found {unknown[0]}')
    if component.kind is Kind.TWIST and tuple(axes) != component.names:
        raise ConfigError(
            f'{name}: found {list(axes)}, the embodiment has {list(component.names)}'
        )
    return tuple(axes)
