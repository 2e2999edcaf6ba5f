"""What carries an output: a publisher, or an action client with one goal at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node

from faster_vla_ros import qos

_DONE_WELL = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED)


class TopicChannel:
    """Publishes."""

    def __init__(self, node: Node, message_type: type, topic: str) -> None:
        """Create the publisher."""
        self._publisher = qos.publisher(node, message_type, topic, qos.COMMAND)

    def send(self, message: Any) -> None:
        """Publish a message."""
        self._publisher.publish(message)


class ActionChannel:
    """Sends goals; the newest one waits while one is on its way, if only one may be.

    Nothing here waits: answers come through the executor.
    """

    def __init__(
        self,
        client: ActionClient,
        *,
        one_at_a_time: bool,
        on_failure: Callable[[str], None],
    ) -> None:
        """Take the client.

        Args:
            client: of the action.
            one_at_a_time: the next goal waits for the result of the one before.
            on_failure: called with a sentence when a goal was rejected or did not succeed.
        """
        self._client, self._on_failure = client, on_failure
        self._one_at_a_time = one_at_a_time
        self._waiting: Any = None
        self._in_flight = 0
        self._newest = 0

    def send(self, goal: Any) -> None:
        """Send a goal as soon as it may be; it takes the place of one that waits."""
        self._waiting = goal
        self.poll()

    def poll(self) -> None:
        """Send what waits if the server is there and the goal before has ended."""
        if self._waiting is None or (self._one_at_a_time and self._in_flight):
            return
        if not self._client.server_is_ready():
            return
        goal, self._waiting = self._waiting, None
        self._in_flight += 1
        self._newest += 1
        number = self._newest
        future = self._client.send_goal_async(goal)
        future.add_done_callback(lambda f: self._answered(number, f))

    def forget(self) -> None:
        """Drop a goal that waits: it is no longer wished for."""
        self._waiting = None

    @property
    def waiting(self) -> bool:
        """Whether a goal could not be sent yet."""
        return self._waiting is not None

    def _answered(self, number: int, future: Any) -> None:
        handle = future.result()
        if not handle.accepted:
            self._ended()
            self._on_failure('the goal was rejected')
            return
        handle.get_result_async().add_done_callback(lambda f: self._finished(number, f))

    def _finished(self, number: int, future: Any) -> None:
        self._ended()
        answer = future.result()
        # A goal that a newer one replaced ends as aborted, which is what was wanted.
        if answer.status in _DONE_WELL or number != self._newest:
            return
        text = getattr(answer.result, 'error_string', '') or f'status {answer.status}'
        self._on_failure(f'the goal did not succeed: {text}')

    def _ended(self) -> None:
        self._in_flight -= 1
        self.poll()
