"""`trajectory_msgs/JointTrajectory` once per plan: joint_trajectory_controller's topic."""

from __future__ import annotations

from typing import ClassVar

from builtin_interfaces.msg import Time
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from faster_core.embodiment import Component, Kind
from faster_core.execution.spline import Trajectory
from faster_vla_ros.conversions import duration_from_seconds
from faster_vla_ros.outputs.protocol import (
    joint_names,
    on_wire,
    OutputConfig,
    refuse_kind,
    TRAJECTORY,
)


class JointTrajectoryOutput:
    """Points with positions and velocities, all joints, the stamp zero: it begins on arrival."""

    KEYS: ClassVar = ('joints', 'scale', 'offset')
    TAKES: ClassVar = TRAJECTORY
    message_type: ClassVar = JointTrajectory

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Take names and scale; ConfigError for what is no position."""
        allowed = (Kind.JOINT_POSITION, Kind.GRIPPER_POSITION)
        refuse_kind(component, 'joint_trajectory', allowed)
        self._config, self._names = config, joint_names(component, config)
        # A speed has no zero point.
        self._speed = OutputConfig(scale=config.scale)

    def message(self, value: Trajectory, stamp: Time) -> JointTrajectory:
        """Return the message of a trajectory; a time of its own would be that of our clock."""
        del stamp
        return JointTrajectory(
            joint_names=self._names,
            points=[
                JointTrajectoryPoint(
                    positions=on_wire(position, self._config),
                    velocities=on_wire(velocity, self._speed),
                    time_from_start=duration_from_seconds(float(time)),
                )
                for time, position, velocity in zip(
                    value.times, value.positions, value.velocities, strict=True
                )
            ],
        )

    def leave(self, message: JointTrajectory, value: Trajectory, seconds: float) -> None:
        """Have the message of a trajectory say what is left of it so many seconds later."""
        times = value.after(seconds).times.tolist()
        points = message.points[-len(times) :]
        for point, time in zip(points, times, strict=True):
            point.time_from_start = duration_from_seconds(time)
        message.points = points
