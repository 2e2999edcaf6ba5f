"""The way of the base that the plan means, for RViz and Foxglove."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
import numpy as np
from rclpy.node import Node

from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.execution.plan import Plan
from faster_vla_ros import qos
from faster_vla_ros.conversions import seconds_from_stamp, stamp_from_seconds

# Seconds between two poses.
STEP = 0.1
_PLANAR = {'vx', 'vy', 'wz'}


class PlannedPath:
    """Publishes `~/planned_path` (`nav_msgs/Path`) for the embodiment's mobile base, if any.

    Seen from where the base is at the stamp: commanded speeds integrated, no odometry.
    """

    def __init__(self, node: Node, embodiment: Embodiment, frame_id: str) -> None:
        """Create the publisher if there is a base and `nav_msgs` is installed."""
        self._embodiment, self._frame_id = embodiment, frame_id
        self._base = _base(embodiment)
        self._publisher = None
        if self._base is None:
            return
        try:
            from nav_msgs.msg import Path
        except ImportError:
            node.get_logger().info('no ~/planned_path: nav_msgs is not installed')
            return
        self._message = Path
        self._publisher = qos.publisher(node, Path, '~/planned_path', qos.COMMAND)

    def show(self, plan: Plan | None, stamp: Time) -> None:
        """Publish the rest of a plan, if somebody listens."""
        if self._publisher is None or plan is None:
            return
        if not self._publisher.get_subscription_count():
            return
        now = seconds_from_stamp(stamp)
        message = self._message()
        message.header.stamp, message.header.frame_id = stamp, self._frame_id
        for t, (x, y, yaw) in self.poses(plan, now):
            pose = PoseStamped()
            pose.header.stamp = stamp_from_seconds(t)
            pose.header.frame_id = self._frame_id
            pose.pose.position.x, pose.pose.position.y = x, y
            pose.pose.orientation.z = math.sin(yaw / 2.0)
            pose.pose.orientation.w = math.cos(yaw / 2.0)
            message.poses.append(pose)
        self._publisher.publish(message)

    def poses(self, plan: Plan, now: float) -> list[tuple[float, tuple[float, float, float]]]:
        """Return (time, (x, y, yaw)) from `now` to the end of a plan, m and rad."""
        x = y = yaw = 0.0
        found = [(now, (x, y, yaw))]
        for t in np.arange(now, plan.end, STEP):
            dt = min(STEP, plan.end - t)
            row = plan.sample(t + dt / 2.0)[self._embodiment.action_slices[self._base.name]]
            speed = dict(zip(self._base.names, row.tolist(), strict=True))
            vx, vy, wz = (speed.get(axis, 0.0) for axis in ('vx', 'vy', 'wz'))
            heading = yaw + wz * dt / 2.0
            x += (vx * math.cos(heading) - vy * math.sin(heading)) * dt
            y += (vx * math.sin(heading) + vy * math.cos(heading)) * dt
            yaw += wz * dt
            found.append((float(t + dt), (x, y, yaw)))
        return found


def _base(embodiment: Embodiment) -> Component | None:
    """Return the component that moves in the plane; a torso's twist has other axes."""
    for c in embodiment.action:
        if c.kind is Kind.TWIST and 'vx' in c.names and set(c.names) <= _PLANAR:
            return c
    return None
