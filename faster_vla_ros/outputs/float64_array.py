"""`std_msgs/Float64MultiArray` every tick: the forward_command_controller family."""

from __future__ import annotations

from typing import ClassVar

from builtin_interfaces.msg import Time
import numpy as np
from std_msgs.msg import Float64MultiArray

from faster_core.embodiment import Component
from faster_vla_ros.outputs.protocol import on_wire, OutputConfig, SET_POINT


class Float64Array:
    """Values in the order of the embodiment; the controller lists its joints in the same order."""

    KEYS: ClassVar = ('scale', 'offset')
    TAKES: ClassVar = SET_POINT
    message_type: ClassVar = Float64MultiArray

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take the scale; every kind of component fits."""
        del component
        self._config = config

    def message(self, values: np.ndarray, stamp: Time) -> Float64MultiArray:
        """Return the message for values [d]; it carries no time."""
        del stamp
        return Float64MultiArray(data=on_wire(values, self._config))
