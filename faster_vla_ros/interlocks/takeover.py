"""Teleoperation wins: another source of commands silences the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import math
import time
from typing import Any

from rclpy.node import Node

from faster_vla_ros.interlocks.any_topic import AnyTopic
from faster_vla_ros.interlocks.other_goals import OtherGoals
from faster_vla_ros.outputs import Ways

# Publishes zeros on the same topics when we are gone; never a rival.
GUARD = 'guard'
# An endpoint may be discovered before its node: it may still turn out to be ours. Names come on a
# topic of their own; that of a guard was seen a second late by a process that had just started.
UNKNOWN = '_NODE_NAME_UNKNOWN_'
# Seconds after which somebody without a name is a rival all the same.
PATIENCE = 3.0


class Takeover:
    """Declared topics on which somebody speaks; others who publish on ours, or have goals.

    `look` asks the graph and belongs into a slow timer; `reason` is cheap.
    """

    def __init__(
        self,
        node: Node,
        *,
        topics: Sequence[str],
        ways: Mapping[str, Ways],
        is_own_goal: Callable[[bytes], bool] = lambda _: False,
        timeout: float,
    ) -> None:
        """Subscribe to the declared topics, whatever their type.

        Args:
            node: the dispatcher.
            topics: on which any message is a take-over.
            ways: component -> topics on which nobody else may publish, and actions where nobody
                else may have a goal.
            is_own_goal: whether a goal's id is one of ours.
            timeout: seconds after the last message until motion may be enabled again.
        """
        self._node, self._timeout = node, timeout
        self._ways = ways
        self._own = list(dict.fromkeys(t for w in ways.values() for t in w.topics))
        actions = dict.fromkeys(a for w in ways.values() for a in w.actions)
        self._goals = {a: OtherGoals(node, a, is_own_goal) for a in actions}
        self._heard: dict[str, float] = {}
        # When this tick and the one before began; never, as long as there was none.
        self._tick = self._tick_before = math.inf
        self._topics = [AnyTopic(node, t, functools.partial(self._take, t)) for t in topics]
        self._rivals: list[tuple[str, str]] = []  # (node, topic of ours on which it publishes)
        self._nameless: float | None = None  # since when nobody but nameless ones publish on ours

    def _take(self, topic: str, message: Any) -> None:
        del message
        self._heard[topic] = time.perf_counter()

    def next_tick(self) -> None:
        """Say that a tick begins."""
        self._tick_before, self._tick = self._tick, time.perf_counter()

    def look(self) -> None:
        """Look for publishers: of the declared topics to subscribe to, and of ours."""
        for each in (*self._topics, *self._goals.values()):
            each.look()
        rivals = [(name, t) for t in self._own for name in self._others_on(t)]
        named = [(name, t) for name, t in rivals if name != UNKNOWN]
        now = time.perf_counter()
        if named or not rivals:
            self._nameless = None
        elif self._nameless is None:
            self._nameless = now
        patient = self._nameless is None or now - self._nameless < PATIENCE
        self._rivals = named if patient else rivals

    def _others_on(self, topic: str) -> list[str]:
        own = (self._node.get_namespace(), self._node.get_name())
        guard = (self._node.get_namespace(), GUARD)
        return [
            info.node_name
            for info in self._node.get_publishers_info_by_topic(topic)
            if (info.node_namespace, info.node_name) not in (own, guard)
        ]

    @property
    def taken(self) -> frozenset[str]:
        """Components that somebody else commands by the same topic or controller."""
        topics = {topic for _, topic in self._rivals}
        actions = {action for action, goals in self._goals.items() if goals.active}
        return frozenset(
            name
            for name, ways in self._ways.items()
            if not topics.isdisjoint(ways.topics) or not actions.isdisjoint(ways.actions)
        )

    @property
    def reason(self) -> str:
        """Who has taken over, or why that cannot be known; empty if nobody has."""
        return next((t.problem for t in self._topics if t.problem), '') or self.commands

    @property
    def commands(self) -> str:
        """Who commands; empty if nobody is known to."""
        now = time.perf_counter()
        for topic, heard in self._heard.items():
            # What came after the last tick counts in this one, however late that is.
            if heard >= self._tick_before or now - heard <= self._timeout:
                return f'{topic}, on which somebody commands'
        for action, goals in self._goals.items():
            if goals.active:
                return f'a goal of somebody else at {action}'
        for name, topic in self._rivals:
            return f'{name}, which publishes on {topic}'
        return ''
