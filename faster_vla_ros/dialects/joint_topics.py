"""What ros2_control and Isaac Sim have in common: one `joint_states` and raw images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState

from faster_core.errors import ConfigError
from faster_core.sim.robot import PartKind
from faster_vla_ros.dialects.dialect import Dialect, SENSOR_QOS
from faster_vla_ros.parameters import Spec

# rclcpp::SystemDefaultsQoS over Fast DDS, and the bridge's default: reliable.
SYSTEM_QOS = QoSProfile(depth=10)


class JointTopics(Dialect):
    """Base of both; subclasses take the commands."""

    slice = 0.005

    @staticmethod
    def parameters(robot: Any, names: Mapping[str, str]) -> dict[str, Spec]:
        """Names of joints and image topics."""
        found = {}
        for part in robot.parts:
            if part.kind is not PartKind.BASE:
                found[f'{part.name}.joints'] = Spec(
                    type=tuple, item=str, default=part.joints, help=f'joint names of {part.name}'
                )
        for camera in robot.cameras:
            found[f'{camera}.topic'] = Spec(
                type=str, default=f'{camera}/image_raw', help=f'raw images of {camera}'
            )
        return found

    def __init__(self, *args: Any) -> None:
        """Create the publishers (arguments: `Dialect`); ConfigError for wrong joint names."""
        super().__init__(*args)
        sim = self._robot.sim
        self._parts = [p for p in sim.parts if p.kind is not PartKind.BASE]
        self._has_base = any(p.kind is PartKind.BASE for p in sim.parts)
        self.joints = {p.name: tuple(self._values[f'{p.name}.joints']) for p in self._parts}
        for part in self._parts:
            if len(self.joints[part.name]) != len(part.joints):
                raise ConfigError(
                    f'{part.name}.joints: expected {len(part.joints)} names, found '
                    f'{len(self.joints[part.name])}'
                )
        self._names = [j for joints in self.joints.values() for j in joints]
        if len(set(self._names)) != len(self._names):
            raise ConfigError(f'joints: expected different names, found {self._names}')
        create = self._node.create_publisher
        self._states = create(JointState, 'joint_states', SYSTEM_QOS)
        self._images = {
            c: create(Image, self._values[f'{c}.topic'], SENSOR_QOS) for c in sim.cameras
        }

    def publish_feedback(self, stamp: Any) -> None:
        """Publish positions and velocities of all joints."""
        measured = [self._robot.sim.joint_feedback(p.name) for p in self._parts]
        msg = JointState(name=self._names)
        msg.header.stamp = stamp
        msg.position = np.concatenate([m[0] for m in measured]).tolist()
        msg.velocity = np.concatenate([m[1] for m in measured]).tolist()
        self._states.publish(msg)

    def publish_image(self, camera: str, stamp: Any, picture: np.ndarray) -> None:
        """Publish an rgb8 image."""
        height, width, _ = picture.shape
        msg = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        msg.header.stamp, msg.header.frame_id = stamp, f'{camera}_optical_frame'
        msg.data.frombytes(np.ascontiguousarray(picture))
        self._images[camera].publish(msg)

    def _set_positions(self, part: str, positions: np.ndarray) -> None:
        try:
            self._robot.sim.set_positions(part, positions)
        except ValueError as e:
            self._warn_once((part, len(positions)), f'set-point not carried out: {e}')

    def _set_base_speed(self, speed: np.ndarray) -> None:
        try:
            self._robot.sim.set_base_speed(speed)
        except ValueError as e:
            self._warn_once(('base', 3), f'speed not carried out: {e}')
