"""What a robot is told whenever motion is enabled: brake off, how hard it may accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Bool

from faster_vla_ros import qos

_AXES = (('linear', 'x'), ('linear', 'y'), ('angular', 'z'))


class EnableMessages:
    """Messages that everyone who listens gets once per enable, late listeners too."""

    def __init__(self, node: Node, values: Mapping[str, Any]) -> None:
        """Create the publishers that the parameters ask for."""
        self._node = node
        self._told: dict[Any, int] = {}
        self._messages: list[tuple[Any, Any]] = []
        if topic := values['brake.topic']:
            publisher = qos.publisher(node, Bool, topic, qos.COMMAND)
            self._messages.append((publisher, Bool(data=False)))
        if topic := values['acceleration_limit.topic']:
            publisher = qos.publisher(node, TwistStamped, topic, qos.COMMAND)
            message = TwistStamped()
            message.header.frame_id = 'base_link'
            for (part, axis), value in zip(
                _AXES, values['acceleration_limit.values'], strict=True
            ):
                setattr(getattr(message.twist, part), axis, value)
            self._messages.append((publisher, message))

    def update(self, enabled: bool) -> None:
        """Send what is new to somebody; called every tick."""
        for publisher, message in self._messages:
            listeners = publisher.get_subscription_count() if enabled else 0
            if listeners > self._told.get(publisher, 0):
                if hasattr(message, 'header'):
                    message.header.stamp = self._node.get_clock().now().to_msg()
                publisher.publish(message)
            self._told[publisher] = listeners
