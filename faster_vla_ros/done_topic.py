"""A supervisor ends a goal: a flag on a topic that becomes true while the goal runs."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import Bool

from faster_vla_ros import qos


class DoneTopic:
    """Calls back on every rising edge of a `std_msgs/Bool`.

    Only false followed by true is an edge. A flag that is true when it is heard first, or that has
    stayed true since the goal before, says nothing about this goal.
    """

    def __init__(self, node: Node, topic: str, on_done: Callable[[str], None]) -> None:
        """Subscribe.

        Args:
            node: that subscribes.
            topic: of the flag.
            on_done: called with a sentence at every edge.
        """
        self._node, self._on_done = node, on_done
        self._last: bool | None = None
        self._subscription = qos.subscription(node, Bool, topic, self._on_flag, qos.REPORT)

    def destroy(self) -> None:
        """Free the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _on_flag(self, message: Bool) -> None:
        rising = message.data and self._last is False
        self._last = message.data
        if rising:
            self._on_done(f'{self._subscription.topic_name} became true')
