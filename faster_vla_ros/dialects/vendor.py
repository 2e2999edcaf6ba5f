"""The R1 Lite as its vendor's software speaks: HDAS feedback and motion_target commands.

Topics, units and sizes (docs/ros.md, "mujoco_robot"): joints by index with placeholder names,
grippers in 0..100, JPEG cameras, a torso commanded by speed and a chassis that keeps its last
target.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from geometry_msgs.msg import TwistStamped
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool

from faster_vla_ros.dialects.dialect import Dialect, SENSOR_QOS

CAMERA_TOPICS = {
    'head': '/hdas/camera_head/left_raw/image_raw_color/compressed',
    'wrist_left': '/hdas/camera_wrist_left/color/image_raw/compressed',
    'wrist_right': '/hdas/camera_wrist_right/color/image_raw/compressed',
}
FEEDBACK_TOPICS = {
    'left_arm': '/hdas/feedback_arm_left',
    'left_gripper': '/hdas/feedback_gripper_left',
    'right_arm': '/hdas/feedback_arm_right',
    'right_gripper': '/hdas/feedback_gripper_right',
    'torso': '/hdas/feedback_torso',
    'base': '/hdas/feedback_chassis',
}
JOINT_COMMAND_TOPICS = {
    'left_arm': '/motion_target/target_joint_state_arm_left',
    'left_gripper': '/motion_target/target_position_gripper_left',
    'right_arm': '/motion_target/target_joint_state_arm_right',
    'right_gripper': '/motion_target/target_position_gripper_right',
}
SPEED_COMMAND_TOPICS = {
    'torso': '/motion_target/target_speed_torso',
    'base': '/motion_target/target_speed_chassis',
}
BRAKE_TOPIC = '/motion_target/brake_mode'
# Axes of a twist the vendor reads, in the embodiment's order.
SPEED_AXES = {
    'torso': (('linear', 'x'), ('linear', 'z'), ('angular', 'y'), ('angular', 'z')),
    'base': (('linear', 'x'), ('linear', 'y'), ('angular', 'z')),
}
# Vendor unit of gripper topics: 0..100, documented as millimetres of stroke.
GRIPPER_PER_METRE = 1000.0
# The chassis reports six velocities of which three are valid.
CHASSIS_VALUES = 6

COMMAND_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class VendorDialect(Dialect):
    """The vendor's topics; commands take effect as they arrive."""

    jpeg = True

    def __init__(self, *args: Any) -> None:
        """Create the endpoints (arguments: `Dialect`)."""
        super().__init__(*args)
        create, subscribe = self._node.create_publisher, self._node.create_subscription
        self._images = {
            c: create(CompressedImage, t, SENSOR_QOS) for c, t in CAMERA_TOPICS.items()
        }
        self._feedback = {c: create(JointState, t, SENSOR_QOS) for c, t in FEEDBACK_TOPICS.items()}
        self._names = {
            c.name: [f'joint{i}' for i in range(1, c.size + 1)]
            for c in self._robot.sim.embodiment.state
        } | {'base': [f'joint{i}' for i in range(1, CHASSIS_VALUES + 1)]}
        for component, topic in JOINT_COMMAND_TOPICS.items():
            callback = functools.partial(self._on_joints, component)
            subscribe(JointState, topic, callback, COMMAND_QOS)
        for component, topic in SPEED_COMMAND_TOPICS.items():
            callback = functools.partial(self._on_speed, component)
            subscribe(TwistStamped, topic, callback, COMMAND_QOS)
        subscribe(Bool, BRAKE_TOPIC, self._on_brake, COMMAND_QOS)

    def _on_joints(self, component: str, msg: JointState) -> None:
        values = np.asarray(msg.position, dtype=float)
        if component.endswith('_gripper'):
            values = values / GRIPPER_PER_METRE
        self._command(component, values)

    def _on_speed(self, component: str, msg: TwistStamped) -> None:
        axes = SPEED_AXES[component]
        values = [getattr(getattr(msg.twist, part), axis) for part, axis in axes]
        self._command(component, np.array(values))

    def _command(self, component: str, values: np.ndarray) -> None:
        try:
            with self._lock:
                self._robot.command(component, values, time.monotonic())
        except ValueError as e:
            kind = (component, values.size, bool(np.isfinite(values).all()))
            self._warn_once(kind, f'command ignored: {e}')

    def _on_brake(self, msg: Bool) -> None:
        with self._lock:
            self._robot.brake(msg.data)

    def publish_feedback(self, stamp: Any) -> None:
        """Publish every component, as the vendor does, on a topic of its own."""
        for component in self._feedback:
            self._publish_component(component, stamp)

    def _publish_component(self, component: str, stamp: Any) -> None:
        position, velocity = self._robot.sim.feedback(component)
        if component.endswith('_gripper'):
            position, velocity = position * GRIPPER_PER_METRE, velocity * GRIPPER_PER_METRE
        msg = JointState(name=self._names[component])
        msg.header.stamp = stamp
        if component == 'base':
            # Odometry is not part of the vendor's feedback: velocities only.
            velocity = np.concatenate([velocity, np.zeros(CHASSIS_VALUES - len(velocity))])
        else:
            msg.position = position.tolist()
        msg.velocity = velocity.tolist()
        self._feedback[component].publish(msg)

    def publish_image(self, camera: str, stamp: Any, picture: bytes) -> None:
        """Publish a JPEG."""
        msg = CompressedImage(format='rgb8; jpeg compressed bgr8')
        msg.header.stamp, msg.header.frame_id = stamp, f'{camera}_optical_frame'
        msg.data.frombytes(picture)
        self._images[camera].publish(msg)
