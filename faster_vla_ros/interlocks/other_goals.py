"""Goals of others at an action that we command, too: MoveIt's, for example."""

from __future__ import annotations

from collections.abc import Callable

from action_msgs.msg import GoalStatus, GoalStatusArray
from rclpy.node import Node

from faster_vla_ros import qos

_ACTIVE = (GoalStatus.STATUS_ACCEPTED, GoalStatus.STATUS_EXECUTING, GoalStatus.STATUS_CANCELING)


class OtherGoals:
    """Listens to `<action>/_action/status`, which action servers latch, whatever their type.

    Goals that have ended stay in it for a while; they do not count.

    Attributes:
        action: its full name.
        active: whether somebody else has a goal there that has not ended.
    """

    def __init__(self, node: Node, action: str, is_own: Callable[[bytes], bool]) -> None:
        """Subscribe; `is_own` tells whether a goal's id is one of ours."""
        self._node, self.action, self._is_own = node, action, is_own
        self._topic = f'{action}/_action/status'
        self._servers: set[bytes] = set()
        self._listen()

    def _listen(self) -> None:
        self.active = False
        self._subscription = qos.subscription(
            self._node, GoalStatusArray, self._topic, self._take, qos.LATCHED
        )

    def _take(self, message: GoalStatusArray) -> None:
        self.active = any(
            goal.status in _ACTIVE and not self._is_own(bytes(goal.goal_info.goal_id.uuid))
            for goal in message.status_list
        )

    def look(self) -> None:
        """Ask those that are left again when a server is gone: it does not tell of its end."""
        found = self._node.get_publishers_info_by_topic(self._topic)
        servers = {bytes(info.endpoint_gid) for info in found}
        if self._servers - servers or (self.active and not servers):
            self._node.destroy_subscription(self._subscription)
            self._listen()
        self._servers = servers
