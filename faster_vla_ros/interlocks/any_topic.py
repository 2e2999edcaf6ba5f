"""A subscription whose type is whatever its publisher has: known when there is one."""

from __future__ import annotations

from collections.abc import Callable
import importlib
from typing import Any

from rclpy.node import Node

from faster_vla_ros import qos


class AnyTopic:
    """Calls back with every message of a topic once it has a publisher; `look` finds it."""

    def __init__(self, node: Node, topic: str, callback: Callable[[Any], None]) -> None:
        """Take the topic; nothing is subscribed before `look`."""
        self._node, self._callback = node, callback
        self.topic = node.resolve_topic_name(topic)
        self._subscription: Any = None
        # Why its messages cannot be read; empty if they can, or if there are none.
        self.problem = ''

    def look(self) -> None:
        """Subscribe as soon as the type of the topic is known."""
        if self._subscription is not None:
            return
        self.problem = ''
        for info in self._node.get_publishers_info_by_topic(self.topic):
            try:
                kind = message_class(info.topic_type)
            except ImportError as e:
                self.problem = f'{self.topic}: {info.topic_type} is not installed ({e})'
                continue
            self.problem = ''
            self._subscription = self._node.create_subscription(
                kind, self.topic, self._callback, qos.STATE
            )
            return


def message_class(name: str) -> type:
    """Return the class of a message type, 'std_msgs/msg/Bool'.

    Raises:
        ImportError: the package is not there or has no such type.
    """
    package, _, rest = name.partition('/')
    module, _, kind = rest.rpartition('/')
    found = importlib.import_module(f'{package}.{module or "msg"}')
    try:
        return getattr(found, kind)
    except AttributeError as e:
        raise ImportError(f'{found.__name__} has no {kind}') from e
