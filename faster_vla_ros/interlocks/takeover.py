"""Teleoperation wins: another source of commands silences the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import time
from typing import Any

from rclpy.node import Node

from faster_vla_ros.interlocks.any_topic import AnyTopic

# Publishes zeros on the same topics when we are gone; never a rival.
GUARD = 'guard'


class Takeover:
    """Declared topics on which somebody speaks, and others who publish on ours.

    `look` asks the graph and belongs into a slow timer; `reason` is cheap.
    """

    def __init__(
        self,
        node: Node,
        *,
        topics: Sequence[str],
        own_topics: Sequence[str],
        timeout: float,
    ) -> None:
        """Subscribe to the declared topics, whatever their type.

        Args:
            node: the dispatcher.
            topics: on which any message is a take-over.
            own_topics: on which nobody else may publish.
            timeout: seconds after the last message until motion may be enabled again.
        """
        self._node, self._timeout = node, timeout
        self._own = [node.resolve_topic_name(t) for t in own_topics]
        self._heard: dict[str, float] = {}
        self._topics = [AnyTopic(node, t, functools.partial(self._take, t)) for t in topics]
        self._rival = ''

    def _take(self, topic: str, message: Any) -> None:
        del message
        self._heard[topic] = time.perf_counter()

    def look(self) -> None:
        """Look for publishers: of the declared topics to subscribe to, and of ours."""
        for topic in self._topics:
            topic.look()
        self._rival = next((r for t in self._own if (r := self._rival_on(t))), '')

    def _rival_on(self, topic: str) -> str:
        own = (self._node.get_namespace(), self._node.get_name())
        guard = (self._node.get_namespace(), GUARD)
        for info in self._node.get_publishers_info_by_topic(topic):
            if (info.node_namespace, info.node_name) not in (own, guard):
                return f'{info.node_name}, which publishes on {topic}'
        return ''

    @property
    def reason(self) -> str:
        """Who has taken over; empty if nobody has."""
        now = time.perf_counter()
        for topic, heard in self._heard.items():
            if now - heard <= self._timeout:
                return f'{topic}, on which somebody commands'
        return self._rival
