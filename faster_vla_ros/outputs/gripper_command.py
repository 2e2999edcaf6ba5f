"""`control_msgs/GripperCommand` when the goal differs: the classic gripper_action_controller.

Not run against the real interface: control_msgs is not on PyPI (docs/execution.md, "Outputs").
"""

from __future__ import annotations

from typing import Any, ClassVar

from builtin_interfaces.msg import Time
import numpy as np

from faster_core.embodiment import Component, Kind
from faster_core.errors import ConfigError
from faster_vla_ros.outputs.protocol import (
    control_action,
    GOAL,
    on_wire,
    OutputConfig,
    refuse_kind,
)


class GripperCommandOutput:
    """One position; no stop if a gripper aborts because of what it grasps."""

    KEYS: ClassVar = ('scale', 'offset', 'deadband', 'max_effort')
    TAKES: ClassVar = GOAL
    ONE_AT_A_TIME: ClassVar = True
    FAILURE_STOPS: ClassVar = False

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take scale and effort; ConfigError for what is no gripper of one finger joint."""
        refuse_kind(component, 'gripper_command', (Kind.GRIPPER_POSITION,))
        if component.size != 1:
            raise ConfigError(
                f'{component.name}.output: gripper_command takes one position, the component has '
                f'{component.size}'
            )
        self._config = config
        self.action_type = control_action('GripperCommand')

    def message(self, value: np.ndarray, stamp: Time) -> Any:
        """Return the goal for a position [1]."""
        del stamp
        goal = self.action_type.Goal()
        goal.command.position = on_wire(value, self._config)[0]
        goal.command.max_effort = self._config.max_effort
        return goal
