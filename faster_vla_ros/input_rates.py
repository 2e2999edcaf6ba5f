"""How often every topic of a sensor speaks, by the node's clock."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from faster_vla_ros import qos


@dataclasses.dataclass
class _Count:
    number: int = 0
    newest: float = 0.0


class MeasuredNode:
    """A node as its sensors see it: subscriptions are counted, reported and may be overridden.

    Everything else is the node's own.
    """

    def __init__(self, node: Node) -> None:
        """Measure nothing yet."""
        self._node = node
        self._counts: dict[str, _Count] = {}
        self._looked: dict[str, tuple[int, float]] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what the node has under this name."""
        return getattr(self._node, name)

    def create_subscription(
        self, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile
    ) -> Subscription:
        """Subscribe, counting what comes."""
        count = self._counts.setdefault(topic, _Count())

        def counted(message: Any) -> None:
            count.number += 1
            count.newest = time.monotonic()
            callback(message)

        return qos.subscription(self._node, kind, topic, counted, profile)

    def age(self, topic: str) -> float | None:
        """Return the seconds since the newest message; None before the first."""
        count = self._counts[topic]
        return time.monotonic() - count.newest if count.number else None

    def rate(self, name: str, topic: str) -> float | None:
        """Return messages per second since the call before for this name; None at the first.

        By the node's clock, so that a simulation slower than real time keeps its rates.
        """
        now = self._node.get_clock().now().nanoseconds / 1e9
        number = self._counts[topic].number
        before, then = self._looked.get(name, (0, now))
        self._looked[name] = number, now
        return (number - before) / (now - then) if now > then else None
