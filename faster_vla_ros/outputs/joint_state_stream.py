"""`sensor_msgs/JointState` every tick: what vendors' drivers take who interpolate nothing."""

from __future__ import annotations

from typing import ClassVar

from builtin_interfaces.msg import Time
import numpy as np
from sensor_msgs.msg import JointState

from faster_core.embodiment import Component, Kind
from faster_vla_ros.outputs.protocol import (
    joint_names,
    on_wire,
    OutputConfig,
    refuse_kind,
    SET_POINT,
)


class JointStateStream:
    """Positions go into `position`, joint speeds into `velocity`; the other fields stay empty."""

    KEYS: ClassVar = ('joints', 'scale', 'offset')
    TAKES: ClassVar = SET_POINT
    message_type: ClassVar = JointState

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take names and scale; ConfigError for Cartesian components."""
        allowed = (Kind.JOINT_POSITION, Kind.GRIPPER_POSITION, Kind.JOINT_VELOCITY)
        refuse_kind(component, 'joint_state_stream', allowed)
        self._config, self._names = config, joint_names(component, config)
        self._field = 'position' if component.kind.is_position else 'velocity'

    def message(self, values: np.ndarray, stamp: Time) -> JointState:
        """Return the message for values [d]."""
        message = JointState(name=self._names, **{self._field: on_wire(values, self._config)})
        message.header.stamp = stamp
        return message
