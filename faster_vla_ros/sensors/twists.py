"""One component out of the velocities of a base: `nav_msgs/Odometry` or `TwistStamped`.

The pose of an odometry is never used: it drifts without bound (REP-105). Its twist is given in
the frame of the base (`child_frame_id`), as the policy saw it.
"""

from __future__ import annotations

import operator
from typing import Any, TYPE_CHECKING

from geometry_msgs.msg import TwistStamped
import numpy as np

from faster_core.embodiment import Component, Kind, TWIST_NAMES
from faster_core.errors import ConfigError

if TYPE_CHECKING:
    from faster_vla_ros.sensors.state import SourceConfig

_PART = {'v': 'linear', 'w': 'angular'}


def odometry_type() -> type:
    """Return the message type; ConfigError where nav_msgs is missing."""
    try:
        from nav_msgs.msg import Odometry
    except ImportError as e:
        raise ConfigError(
            'type: odometry needs nav_msgs: install ros-nav-msgs (pip) or nav_msgs of your '
            'ROS distribution'
        ) from e
    return Odometry


class TwistReader:
    """Reads the wanted axes of a twist."""

    def __init__(self, component: Component, config: SourceConfig) -> None:
        """Check that the configuration can fill the component (ConfigError)."""
        odometry = config.type == 'odometry'
        self.message_type: type = odometry_type() if odometry else TwistStamped
        self.what = 'twist'
        name, kind = component.name, component.kind
        if kind not in (Kind.TWIST, Kind.JOINT_VELOCITY):
            raise ConfigError(
                f'{name}.type: expected joint_state for a component of kind '
                f'{kind.name.lower()}, found {config.type}: only velocities are read from it'
            )
        for key in ('joints', 'size'):
            if found := getattr(config, key):
                raise ConfigError(
                    f'{name}.{key}: expected none with type {config.type}, found {list(found)}'
                )
        if config.topic == 'joint_states':
            raise ConfigError(
                f'{name}.topic: expected that of {self.message_type.__name__} messages, found '
                f'{config.topic}'
            )
        axes = config.axes or component.names
        if unknown := [a for a in axes if a not in TWIST_NAMES]:
            raise ConfigError(
                f'{name}.axes: expected some of {", ".join(TWIST_NAMES)}, found {unknown[0]}'
            )
        if len(axes) != component.size or len(set(axes)) != len(axes):
            raise ConfigError(
                f'{name}.axes: expected {component.size} different axes, found {list(axes)}'
            )
        if kind is Kind.TWIST and tuple(axes) != component.names:
            raise ConfigError(
                f'{name}.axes: found {list(axes)}, the embodiment has {list(component.names)}'
            )
        where = 'twist.twist' if odometry else 'twist'
        self._values = [operator.attrgetter(f'{where}.{_PART[a[0]]}.{a[1]}') for a in axes]

    def read(self, message: Any) -> np.ndarray:
        """Return the values [d] as they are in the message (m/s, rad/s)."""
        return np.array([value(message) for value in self._values])
