"""`control_msgs/FollowJointTrajectory` once per plan: joint_trajectory_controller's action.

Not run against the real interface: control_msgs is not on PyPI (docs/execution.md, "Outputs").
"""

from __future__ import annotations

from typing import Any, ClassVar

from builtin_interfaces.msg import Time

from faster_core.embodiment import Component
from faster_core.execution.spline import Trajectory
from faster_vla_ros.outputs.joint_trajectory import JointTrajectoryOutput
from faster_vla_ros.outputs.protocol import control_action, OutputConfig, TRAJECTORY


class FollowJointTrajectoryOutput:
    """A goal replaces the one before, as the controller does; one that fails stops the robot."""

    KEYS: ClassVar = JointTrajectoryOutput.KEYS
    TAKES: ClassVar = TRAJECTORY
    ONE_AT_A_TIME: ClassVar = False
    FAILURE_STOPS: ClassVar = True

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take names and scale (ConfigError as `JointTrajectoryOutput`, or no control_msgs)."""
        self._trajectory = JointTrajectoryOutput(component, config)
        self.action_type = control_action('FollowJointTrajectory')

    def message(self, value: Trajectory, stamp: Time) -> Any:
        """Return the goal of a trajectory; tolerances are the controller's own."""
        return self.action_type.Goal(trajectory=self._trajectory.message(value, stamp))

    def leave(self, message: Any, value: Trajectory, seconds: float) -> None:
        """Have a goal say what is left of its trajectory so many seconds later."""
        self._trajectory.leave(message.trajectory, value, seconds)
