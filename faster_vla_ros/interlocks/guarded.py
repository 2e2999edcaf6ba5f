"""Nothing moves that the guard would not stop: it must say that it hears our velocity commands.

Two processes that were just started may need seconds until the one hears the other. A dispatcher
that is killed in that time would be followed by nobody's zeros.
"""

from __future__ import annotations

from collections.abc import Collection
import time

from rclpy.node import Node

from faster_vla_msgs.msg import GuardState
from faster_vla_ros import qos
from faster_vla_ros.endpoint_ids import publisher_ids, subscription_ids


class Guarded:
    """Listens to the guard's state and compares whom it hears with what we publish."""

    def __init__(
        self,
        node: Node,
        *,
        topic: str,
        driving: Collection[str],
        commands: Collection[str],
        timeout: float,
    ) -> None:
        """Subscribe to the guard's state.

        Args:
            node: the dispatcher.
            topic: of the guard's state.
            driving: full names of our topics of velocities, which it must watch.
            commands: full names of all our topics; those it watches it must hear.
            timeout: seconds after its last state until the guard counts as gone.
        """
        self._node, self._timeout = node, timeout
        self._driving, self._commands = frozenset(driving), frozenset(commands)
        self._topic = node.resolve_topic_name(topic)
        self._state: GuardState | None = None
        self._heard = 0.0
        self._deaf = ''
        qos.subscription(node, GuardState, topic, self._take, qos.STATE)

    def _take(self, message: GuardState) -> None:
        self._state, self._heard = message, time.perf_counter()
        self.look()

    def look(self) -> None:
        """Ask the graph whether our commands reach the guard."""
        if self._state is not None:
            self._deaf = self._missing(self._state)

    def _missing(self, state: GuardState) -> str:
        """Return what the guard would not hear; empty if it hears all."""
        watched = set(state.topics)
        for topic in sorted(self._driving | (self._commands & watched)):
            if topic not in watched:
                return f'the guard does not watch {topic}'
            if not publisher_ids(self._node, topic).own <= set(state.publishers):
                return f'the guard does not hear us on {topic} yet'
            if subscription_ids(self._node, topic).others.isdisjoint(state.subscriptions):
                return f'{topic} does not reach the guard yet'
        return ''

    @property
    def reason(self) -> str:
        """Why nobody would stop what we move; empty if the guard would."""
        if self._state is None:
            return f'no guard was heard on {self._topic} (guard.topic)'
        if (age := time.perf_counter() - self._heard) > self._timeout:
            return f'the guard was not heard for {age:.1f} s on {self._topic}'
        return self._deaf
