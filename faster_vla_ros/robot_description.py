"""What a simulated robot tells of itself: its URDF, latched, and the joints the URDF names.

For robot_state_publisher, RViz, Foxglove and the doctor; policy and dispatcher read none of it.
The joints are those of the whole robot by name, the base's place in the world too, in every
dialect: a vendor's feedback may have neither names nor one topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from faster_core.sim.robot import SimulatedRobot
from faster_core.sim.urdf import urdf
from faster_vla_ros import qos

if TYPE_CHECKING:
    from rclpy.node import Node


class RobotDescription:
    """The topics `robot_description` and `~/joint_states` of a simulated robot."""

    def __init__(
        self, node: Node, sim: SimulatedRobot, name: str, joints: Mapping[str, Sequence[str]]
    ) -> None:
        """Latch the URDF.

        Args:
            node: that publishes.
            sim: the robot.
            name: of the robot in the URDF.
            joints: part -> names of its joints, where they are not those of `sim.parts`.
        """
        self._sim = sim
        self._names = [j for p in sim.parts for j in joints.get(p.name, p.joints)]
        self._latched = node.create_publisher(String, 'robot_description', qos.LATCHED)
        self._latched.publish(String(data=urdf(sim, name, joints)))
        self._states = node.create_publisher(JointState, '~/joint_states', 1)

    def publish(self, stamp: Any) -> None:
        """Publish positions of all joints, rad and m, if somebody listens."""
        if not self._states.get_subscription_count():
            return
        msg = JointState(name=self._names)
        msg.header.stamp = stamp
        positions = [self._sim.joint_feedback(p.name)[0] for p in self._sim.parts]
        msg.position = np.concatenate(positions).tolist()
        self._states.publish(msg)
