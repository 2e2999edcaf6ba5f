"""`control_msgs/ParallelGripperCommand` when the goal differs: parallel_gripper_controller.

Not run against the real interface: control_msgs is not on PyPI (docs/execution.md, "Outputs").
"""

from __future__ import annotations

from typing import Any, ClassVar

from builtin_interfaces.msg import Time
import numpy as np
from sensor_msgs.msg import JointState

from faster_core.embodiment import Component, Kind
from faster_vla_ros.outputs.protocol import (
    control_action,
    GOAL,
    joint_names,
    on_wire,
    OutputConfig,
    refuse_kind,
)


class ParallelGripperCommandOutput:
    """Positions by name. A goal that ends early, on what is grasped, is no reason to stop."""

    KEYS: ClassVar = ('joints', 'scale', 'offset', 'deadband', 'max_effort')
    TAKES: ClassVar = GOAL
    ONE_AT_A_TIME: ClassVar = True
    FAILURE_STOPS: ClassVar = False

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take names and effort; ConfigError for what is no gripper."""
        refuse_kind(component, 'parallel_gripper_command', (Kind.GRIPPER_POSITION,))
        self._config, self._names = config, joint_names(component, config)
        self.action_type = control_action('ParallelGripperCommand')

    def message(self, value: np.ndarray, stamp: Time) -> Any:
        """Return the goal for positions [d]."""
        del stamp
        effort = [self._config.max_effort] * len(self._names) if self._config.max_effort else []
        return self.action_type.Goal(
            command=JointState(
                name=self._names, position=on_wire(value, self._config), effort=effort
            )
        )
