"""One part under ros2_control: its trajectory controller, its forwarding controller, its gripper.

All of them listen, under the same controller name, and the one that was spoken to last moves the
joints; whoever takes over starts at the present set-point, as after a controller switch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from faster_core.sim.controllers import (
    ForwardCommandController,
    GripperActionController,
    JointTrajectoryController,
    Point,
)
from faster_vla_ros.conversions import seconds_from_stamp


class JointPort:
    """The controllers of one part; calls must be made one at a time (the node's lock)."""

    def __init__(
        self,
        joints: Sequence[str],
        flavour: str,
        position: np.ndarray,
        make_trajectory: Callable[[Sequence[str], np.ndarray], JointTrajectoryController],
        gripper: str = '',
    ) -> None:
        """Activate.

        Args:
            joints: names.
            flavour: of ros2_controllers.
            position: [J] measured.
            make_trajectory: builds the trajectory controller for joints at a position.
            gripper: kind of gripper action controller; '' for none.
        """
        self.joints = tuple(joints)
        self._flavour, self._make, self._gripper_kind = flavour, make_trajectory, gripper
        self.num_accepted = self.num_rejected = 0
        self.last_reason = ''
        self.reset(position)

    def reset(self, position: np.ndarray) -> None:
        """Activate all controllers anew at a position [J]."""
        self._trajectory = self._make(self.joints, position)
        self._forward = ForwardCommandController(self.joints, self._flavour)
        self.gripper = (
            GripperActionController(self._gripper_kind, float(position[0]))
            if self._gripper_kind
            else None
        )
        self._command = np.array(position, dtype=float)
        self._measured = self._command
        self._speaker = 'trajectory'

    def take_trajectory(self, msg: JointTrajectory, now: float) -> str:
        """Take a trajectory; returns '' or the reason why it is rejected."""
        if self._speaker != 'trajectory':
            candidate = self._make(self.joints, self._command)
        else:
            candidate = self._trajectory
        points = [
            Point(
                positions=p.positions,
                velocities=p.velocities if len(p.velocities) else None,
                accelerations=p.accelerations if len(p.accelerations) else None,
                time_from_start=seconds_from_stamp(p.time_from_start),
                effort=p.effort if len(p.effort) else None,
            )
            for p in msg.points
        ]
        stamp = seconds_from_stamp(msg.header.stamp)
        reason = candidate.accept(list(msg.joint_names), points, stamp, now)
        if not reason:
            self._trajectory = candidate
            self._listen_to('trajectory')
        return self._noted(reason)

    def take_array(self, msg: Float64MultiArray) -> str:
        """Take set-points; returns '' or the reason why they are dropped."""
        reason = self._forward.accept(msg.data)
        if not reason:
            self._listen_to('forward')
        return self._noted(reason)

    def take_gripper_goal(self, positions: Sequence[float], now: float) -> str:
        """Take the goal of the gripper action; returns '' or the reason why it is rejected."""
        reason = self.gripper.accept(positions, now)
        if not reason:
            self._listen_to('gripper')
        return self._noted(reason)

    def update(self, now: float, measured: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Run one cycle; returns the set-point [J]."""
        self._measured = measured[0]
        if self._speaker == 'trajectory':
            self._command, _ = self._trajectory.update(now, measured)
        elif self._speaker == 'forward':
            self._command = self._forward.update()
        else:
            position, velocity = measured[0][0], measured[1][0]
            self._command = np.array([self.gripper.update(now, position, velocity)])
        return self._command

    def cancel_gripper_goal(self) -> None:
        """Hold the gripper where it is."""
        self.gripper.cancel(float(self._measured[0]))

    def _listen_to(self, speaker: str) -> None:
        if self._speaker == 'gripper' and speaker != 'gripper':
            self.cancel_gripper_goal()
        self._speaker = speaker

    def _noted(self, reason: str) -> str:
        if reason:
            self.num_rejected += 1
            self.last_reason = reason
        else:
            self.num_accepted += 1
        return reason
