"""A dispatcher that was started twice: both would command, and each would pass for the other.

By name the two cannot be told apart, nor the other one from a predecessor that was killed, which
DDS counts for another 20 s. A twin that lives says its state every second.
"""

from __future__ import annotations

import collections
import time

from rclpy.node import Node

from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros import qos

# Seconds after its last state until a twin counts as gone: it says it every second.
PATIENCE = 2.5
# States of our own that may still be on their way back to us.
NUM_OWN = 50


class Twin:
    """Listens to `~/state` for what we did not say ourselves."""

    def __init__(self, node: Node) -> None:
        """Subscribe; states that were latched before we were there do not count as a sign."""
        self._topic = node.resolve_topic_name('~/state')
        self._said: collections.deque[tuple[int, int]] = collections.deque(maxlen=NUM_OWN)
        self._heard: float | None = None
        qos.subscription(node, DispatcherState, '~/state', self._take, qos.STATE)

    def said(self, message: DispatcherState) -> None:
        """Take a state that we are about to publish."""
        self._said.append(_key(message))

    def _take(self, message: DispatcherState) -> None:
        if _key(message) not in self._said:
            self._heard = time.perf_counter()

    @property
    def reason(self) -> str:
        """Why the robot is not ours alone; empty if it is."""
        if self._heard is None or time.perf_counter() - self._heard > PATIENCE:
            return ''
        return f'a second dispatcher, which publishes on {self._topic}'


def _key(message: DispatcherState) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec
