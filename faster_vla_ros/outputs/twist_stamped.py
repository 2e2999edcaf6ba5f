"""`geometry_msgs/TwistStamped` every tick: base controllers since ROS 2 Jazzy."""

from __future__ import annotations

from typing import ClassVar

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
import numpy as np

from faster_core.embodiment import Component
from faster_vla_ros.outputs.protocol import OutputConfig, SET_POINT
from faster_vla_ros.outputs.twist import TwistOutput


class TwistStampedOutput:
    """A twist with the time of the tick and the frame it is meant in."""

    KEYS: ClassVar = TwistOutput.KEYS
    TAKES: ClassVar = SET_POINT
    message_type: ClassVar = TwistStamped

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take axes and frame (ConfigError as `TwistOutput`)."""
        self._frame_id, self._twist = config.frame_id, TwistOutput(component, config)

    def message(self, values: np.ndarray, stamp: Time) -> TwistStamped:
        """Return the message for values [d]."""
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = stamp, self._frame_id
        self._twist.fill(message.twist, values)
        return message
