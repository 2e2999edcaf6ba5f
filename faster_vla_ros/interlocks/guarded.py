"""Nothing moves that the guard would not stop: it must say that it hears our velocity commands.

Two processes that were just started may need seconds until the one hears the other. A dispatcher
that is killed in that time would be followed by nobody's zeros, or by zeros that do not reach whom
its commands had reached.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
import math
import time

from rclpy.node import Node

from faster_vla_msgs.msg import GuardState
from faster_vla_ros import qos
from faster_vla_ros.endpoint_ids import endpoint_id
from faster_vla_ros.interlocks.takeover import GUARD

# How what it says begins, while the two may still have to find each other.
UNMET = 'the guard'


class Guarded:
    """Listens to the guard's state and compares whom it hears with what we publish."""

    def __init__(
        self,
        node: Node,
        *,
        topic: str,
        driving: Collection[str],
        commands: Mapping[str, frozenset[str]],
        timeout: float,
    ) -> None:
        """Subscribe to the guard's state.

        Args:
            node: the dispatcher.
            topic: of the guard's state.
            driving: our topics of velocities, which it must watch (full names).
            commands: all our topics -> ids of our publishers there; those it watches it must hear.
            timeout: seconds without a good word of it after which motion ends.
        """
        self._node, self._timeout = node, timeout
        self._driving, self._commands = frozenset(driving), commands
        self._topic = node.resolve_topic_name(topic)
        self._state: GuardState | None = None
        self._heard = self._good = -math.inf
        self._looked_at: GuardState | None = None
        self._deaf = f'{UNMET} does not hear us yet'
        self._mute = ''
        # One: after a stall, those of before would pass for new ones.
        qos.subscription(node, GuardState, topic, self._take, qos.CHUNK)

    def _take(self, message: GuardState) -> None:
        self._state, self._heard = message, time.perf_counter()

    def look(self) -> None:
        """Ask the graph whether our commands reach the guard, if there is something new."""
        state = self._state
        if state is not None and (self._deaf or state is not self._looked_at):
            self._looked_at = state
            self._deaf = self._missing(state)
            self._mute = '' if self._deaf else self._unreached(state)
            if not self._deaf:
                self._good = self._heard

    def _missing(self, state: GuardState) -> str:
        """Return what the guard would not hear; empty if it hears all."""
        watched = set(state.topics)
        for topic in sorted(self._driving | (self._commands.keys() & watched)):
            if topic not in watched:
                return f'{UNMET} does not watch {topic}'
            own = self._commands[topic]
            if not own or not own <= set(state.publishers):
                return f'{UNMET} does not hear us on {topic} yet'
            found = self._node.get_subscriptions_info_by_topic(topic)
            if {endpoint_id(i) for i in found}.isdisjoint(state.subscriptions):
                return f'{UNMET} is not reached on {topic} yet'
        return ''

    def _unreached(self, state: GuardState) -> str:
        """Return where somebody hears us and not the guard; empty if it would stop all we move."""
        # By name: that of a guard that was killed is discovered for a while, and moves nothing.
        guard = (self._node.get_namespace(), GUARD)
        for topic in sorted(self._commands.keys() & set(state.topics)):
            found = self._node.get_subscriptions_info_by_topic(topic)
            others = {endpoint_id(i) for i in found if (i.node_namespace, i.node_name) != guard}
            if not others:
                return f'{UNMET} reaches nobody on {topic} yet, nor do we'
            if not others <= set(state.listeners):
                return f'{UNMET} does not reach all who hear us on {topic} yet'
        return ''

    @property
    def problem(self) -> str:
        """Why motion may not begin now; empty if it may."""
        if self._state is None:
            return f'{UNMET} says nothing on {self._topic} (guard.topic)'
        if time.perf_counter() - self._heard > self._timeout:
            return f'{UNMET} was not heard for {self._timeout:g} s on {self._topic}'
        return self._deaf or self._mute

    @property
    def reason(self) -> str:
        """Why motion has to end: the guard is gone or deaf since the time-out; else empty.

        A listener that it does not know is no reason: it may have come later, only to look on.
        """
        return self.problem if time.perf_counter() - self._good > self._timeout else ''
