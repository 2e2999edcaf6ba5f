"""The topics of Isaac Sim's ROS 2 bridge, as its joint control tutorial sets them up.

`joint_states` out, `joint_command` (both sensor_msgs/JointState) in: the articulation controller
moves the joints that are named, at once and without limits or time-outs; without names all joints
in order. `cmd_vel` is a Twist and the last one counts for ever: the differential and holonomic
controllers of the bridge have no time-out. Efforts and velocity targets are refused here.
"""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Twist
import numpy as np
from sensor_msgs.msg import JointState

from faster_vla_ros.dialects.joint_topics import JointTopics, SYSTEM_QOS


class IsaacDialect(JointTopics):
    """Joint commands by name; nothing stops by itself."""

    def __init__(self, *args: Any) -> None:
        """Create the endpoints (arguments: `Dialect`)."""
        super().__init__(*args)
        self._where = {
            joint: (part, i)
            for part, joints in self.joints.items()
            for i, joint in enumerate(joints)
        }
        self.reset()
        subscribe = self._node.create_subscription
        subscribe(JointState, 'joint_command', self._on_command, SYSTEM_QOS)
        if self._has_base:
            subscribe(Twist, 'cmd_vel', self._on_twist, SYSTEM_QOS)

    def reset(self) -> None:
        """Take the measured positions as set-points."""
        sim = self._robot.sim
        self._targets = {p.name: sim.joint_feedback(p.name)[0] for p in self._parts}

    def _on_command(self, msg: JointState) -> None:
        names = list(msg.name) or self._names
        unknown = [n for n in names if n not in self._where]
        if unknown or len(msg.position) != len(names):
            self._warn_once(
                (len(msg.position), tuple(unknown)),
                f'joint_command ignored: {len(names)} joints and {len(msg.position)} positions, '
                f'unknown joints: {", ".join(unknown) or "none"}',
            )
            return
        with self._lock:
            targets: dict[str, np.ndarray] = {}
            for name, value in zip(names, msg.position, strict=True):
                part, i = self._where[name]
                targets.setdefault(part, self._targets[part].copy())[i] = value
            if all(np.isfinite(t).all() for t in targets.values()):
                self._targets |= targets
                for part, target in targets.items():
                    self._set_positions(part, target)
                return
        self._warn_once((), 'joint_command ignored: expected finite positions')

    def _on_twist(self, msg: Twist) -> None:
        with self._lock:
            self._set_base_speed(np.array([msg.linear.x, msg.linear.y, msg.angular.z]))
