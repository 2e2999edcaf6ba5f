"""What carries an output: a publisher, or an action client with one goal at a time."""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses
import time
from typing import Any
import uuid

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from unique_identifier_msgs.msg import UUID

from faster_vla_ros import qos
from faster_vla_ros.endpoint_ids import endpoint_id, identified

# Seconds after which a gripper's goal that was rejected is tried again.
RETRY = 0.5
# Looks, five a second, that a server gets to accept or reject a goal, and to tell the result of
# one that has ended: it may hang, or its answer be lost for ever (`faster_vla_ros.services`). Not
# seconds: it may be we who stall.
NUM_LOOKS = 6
# Looks after a new server was found at which goals are asked for again: it may be found by its
# status before it hears our requests.
NUM_ASKS = 15
# Goals of ours whose numbers are kept; all but the newest few have ended long ago.
NUM_OWN = 50


_ENDED = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED)


class TopicChannel:
    """Publishes.

    Attributes:
        topic: full name.
        ids: of the publisher.
    """

    def __init__(self, node: Node, message_type: type, topic: str) -> None:
        """Create the publisher."""
        self.topic = node.resolve_topic_name(topic)
        self._publisher, self.ids = identified(
            node,
            node.get_publishers_info_by_topic,
            self.topic,
            lambda: qos.publisher(node, message_type, topic, qos.COMMAND),
        )

    def send(self, message: Any) -> None:
        """Publish a message."""
        self._publisher.publish(message)


def servers_of(node: Node, action: str) -> frozenset[str]:
    """Return the ids of those who tell of goals at an action: of its servers."""
    topic = f'{node.resolve_topic_name(action)}/_action/status'
    return frozenset(endpoint_id(info) for info in node.get_publishers_info_by_topic(topic))


@dataclasses.dataclass
class _Goal:
    """A goal on its way.

    Attributes:
        looks: that are left to its answer, or, once it has ended, to its result.
        handle: once it is accepted.
    """

    looks: int = NUM_LOOKS
    handle: Any = None


class ActionChannel:
    """Sends goals; if only one may be on its way, the newest of the others waits.

    Nothing here waits: answers come through the executor.

    Attributes:
        taken: the newest goal was cancelled, and not by us: somebody else has the controller.
    """

    def __init__(
        self,
        client: ActionClient,
        *,
        one_at_a_time: bool,
        on_failure: Callable[[str], None],
        servers: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """Take the client.

        Args:
            client: of the action.
            one_at_a_time: the next goal waits for the result of the one before, and for the
                server; one that was rejected, not answered or lost with its server is sent again.
                Else it replaces the one before, and fails without a server: it would come too
                late.
            on_failure: called with a sentence when a goal was rejected, lost, not answered in time
                or did not succeed.
            servers: returns the ids of the action's servers. A killed one counts as ready for up
                to 20 s, so that only the id of its successor tells of it.
        """
        self._client, self._on_failure, self._servers = client, on_failure, servers
        self._one_at_a_time = one_at_a_time
        self._waiting: Any = None
        self._not_before = 0.0
        self._sent: Any = None  # newest goal
        self._newest = 0  # its number
        self._on_their_way: dict[int, _Goal] = {}
        self._answered_up_to = 0  # newest number that was accepted or rejected
        self._forgotten = 0  # goals up to this number are not sent again
        self._cancelled = 0  # goals up to this number are not wished for any more
        self._told_no_server = False
        self._seen: frozenset[str] = frozenset()  # servers at the last look
        self._asks = 0  # looks at which goals are still asked for
        self._own: collections.deque[bytes] = collections.deque(maxlen=NUM_OWN)
        self.taken = False

    def is_own(self, goal_id: bytes) -> bool:
        """Whether a goal is one of ours."""
        return goal_id in self._own

    @property
    def has_server(self) -> bool:
        """Whether the action's server is there."""
        return self._client.server_is_ready()

    def send(self, goal: Any) -> None:
        """Send a goal as soon as it may be; it takes the place of one that waits."""
        self._waiting, self._not_before = goal, 0.0
        self.poll()

    def poll(self) -> None:
        """Send what waits if the server is there and the goal before has ended."""
        if not self._client.server_is_ready():
            self._without_server()
            return
        self._told_no_server = False
        if self._waiting is None or (self._one_at_a_time and self._on_their_way):
            return
        if time.perf_counter() < self._not_before:
            return
        self._sent, self._waiting, self.taken = self._waiting, None, False
        self._newest += 1
        number = self._newest
        self._on_their_way[number] = _Goal()
        # Ours before the server tells of it.
        goal_id = uuid.uuid4().bytes
        self._own.append(goal_id)
        future = self._client.send_goal_async(self._sent, goal_uuid=UUID(uuid=list(goal_id)))
        future.add_done_callback(lambda f: self._answered(number, f))

    def look(self) -> None:
        """Wait no longer for answers that had all their looks, nor for a killed server."""
        self._ask_new_servers()
        for goal in self._on_their_way.values():
            if goal.handle is None or goal.handle.status in _ENDED:
                goal.looks -= 1
        late = {n: goal for n, goal in self._on_their_way.items() if goal.looks <= 0}
        for number in late:
            del self._on_their_way[number]
        for number, goal in late.items():
            if goal.handle is not None:
                self._judge(number, goal.handle.status)
        unanswered = max((n for n, goal in late.items() if goal.handle is None), default=0)
        # A server that answered a newer goal is there, and follows that one.
        if unanswered > max(self._cancelled, self._answered_up_to):
            self._send_again(unanswered)
            self._fail('the controller does not answer')

    def _ask_new_servers(self) -> None:
        """Ask for the results of all goals when there is a new server, which may not know them."""
        servers = self._servers()
        if servers - self._seen:
            self._asks = NUM_ASKS
        self._seen = servers
        if self._asks:
            self._asks -= 1
            for number, goal in list(self._on_their_way.items()):
                if goal.handle is not None:
                    self._ask_for_result(number, goal.handle)

    def _ask_for_result(self, number: int, handle: Any) -> None:
        handle.get_result_async().add_done_callback(lambda f: self._finished(number, f))

    def forget(self) -> None:
        """Drop a goal that waits, and send none of those on their way again."""
        self._waiting, self._forgotten = None, self._newest

    def cancel(self) -> None:
        """Drop what waits and cancel what is on its way."""
        self.forget()
        self._cancelled = self._newest
        for goal in self._on_their_way.values():
            if goal.handle is not None:
                goal.handle.cancel_goal_async()

    def _fail(self, why: str) -> None:
        """Tell of a failure. Nobody may follow the goal before one that failed any longer."""
        if not self._one_at_a_time:
            self.cancel()
        self._on_failure(why)

    def _without_server(self) -> None:
        lost = bool(self._on_their_way)
        self._on_their_way.clear()  # their answers will not come
        if self._one_at_a_time:
            if lost:
                self._send_again(self._newest)
            failed = self._waiting is not None and not self._told_no_server
            self._told_no_server |= failed
        else:
            failed = lost or self._waiting is not None
            self._waiting = None
        if failed:
            self._fail('there is no server')

    def _send_again(self, number: int) -> None:
        """Let the newest goal wait once more, unless another one does or it was forgotten."""
        if self._one_at_a_time and self._waiting is None and number > self._forgotten:
            self._waiting = self._sent

    def _answered(self, number: int, future: Any) -> None:
        handle = future.result()
        self._answered_up_to = max(self._answered_up_to, number)
        if number not in self._on_their_way:  # too late, or of a server that was gone meanwhile
            if handle.accepted and (self._one_at_a_time or number <= self._cancelled):
                handle.cancel_goal_async()  # nothing else could end it
            return
        if not handle.accepted:
            if self._waiting is None:
                self._not_before = time.perf_counter() + RETRY
            self._send_again(number)
            self._ended(number)
            self._fail('the goal was rejected')
            return
        self._on_their_way[number] = _Goal(handle=handle)
        if number <= self._cancelled:
            handle.cancel_goal_async()
        self._ask_for_result(number, handle)

    def _finished(self, number: int, future: Any) -> None:
        if number not in self._on_their_way:
            return
        answer = future.result()
        if answer.status == GoalStatus.STATUS_UNKNOWN and self._cancelled < number == self._newest:
            self._send_again(number)
            self._fail('the controller does not know the goal: it was started anew')
        self._ended(number)
        self._judge(number, answer.status, getattr(answer.result, 'error_string', ''))

    def _judge(self, number: int, status: int, text: str = '') -> None:
        """Tell of a goal that ended without success."""
        # A goal that a newer one replaced ends as aborted or cancelled, which is what was wanted.
        others = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_UNKNOWN)
        if status in others or number != self._newest:
            return
        if status == GoalStatus.STATUS_CANCELED:
            if number <= self._cancelled:
                return
            self.taken = True
            text = f'cancelled by somebody else{f" ({text})" if text else ""}'
        self._fail(f'the goal did not succeed: {text or f"status {status}"}')

    def _ended(self, number: int) -> None:
        self._on_their_way.pop(number, None)
        self.poll()
