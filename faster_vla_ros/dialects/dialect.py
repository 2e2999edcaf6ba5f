"""What a dialect is to the robot node: it maps topics to the parts of a simulated robot.

Subscriptions are served by the executor's thread; `before_slice`, `publish_feedback` and `reset`
are called by the physics thread with the node's lock held, `publish_image` by the camera thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import threading
from typing import Any, TYPE_CHECKING

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy

from faster_core.sim.realtime import RealTimeRobot
from faster_vla_ros.parameters import Spec

if TYPE_CHECKING:
    from rclpy.node import Node

SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Dialect:
    """Base of all dialects.

    Attributes:
        slice: simulated seconds between two calls of `before_slice`; a controller's period.
        jpeg: whether pictures are wanted as JPEG; else as RGB arrays.
        joints: part -> names of its joints, as parameters may change them; empty: the robot's own.
    """

    slice = 0.01
    jpeg = False
    joints: Mapping[str, tuple[str, ...]] = {}

    @staticmethod
    def parameters(robot: Any, names: Mapping[str, str]) -> dict[str, Spec]:
        """Return the parameters this dialect adds.

        Args:
            robot: the `SimulatedRobot`.
            names: `robot` and `arm_model` as they were chosen.
        """
        return {}

    def __init__(
        self,
        node: Node,
        robot: RealTimeRobot,
        lock: threading.Lock,
        clock: Callable[[], float],
        values: Mapping[str, Any],
    ) -> None:
        """Create the endpoints.

        Args:
            node: that owns them.
            robot: the robot on its clock.
            lock: guards the robot.
            clock: the time of stamps and controllers, seconds.
            values: the node's parameters.
        """
        self._node, self._robot, self._lock = node, robot, lock
        self._clock, self._values = clock, values
        self._warned: set[tuple] = set()

    def reset(self) -> None:
        """Forget what was commanded: an episode begins."""

    def before_slice(self, now: float) -> None:
        """Command what is due at `now` (seconds of the clock)."""

    def publish_feedback(self, stamp: Any) -> None:
        """Publish what the robot measures."""
        raise NotImplementedError

    def publish_image(self, camera: str, stamp: Any, picture: bytes | np.ndarray) -> None:
        """Publish a picture: JPEG or RGB uint8 [height, width, 3], as `jpeg` says."""
        raise NotImplementedError

    def _warn_once(self, kind: tuple, text: str) -> None:
        """Say something once per kind of mistake: it comes again with every command."""
        if kind not in self._warned and len(self._warned) < 100:
            self._warned.add(kind)
            self._node.get_logger().warning(text)
