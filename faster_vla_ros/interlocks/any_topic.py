"""A subscription whose type is whatever its publishers have: known when there is one."""

from __future__ import annotations

from collections.abc import Callable
import importlib
from typing import Any

from rclpy.node import Node

from faster_vla_ros import qos


class AnyTopic:
    """Calls back with every message of a topic once it has a publisher; `look` finds it.

    Fast DDS lets a process have one type per topic, so of several at a time only one can be heard.

    Attributes:
        topic: full name.
        problem: why some messages cannot be heard; empty if all can, or if there are none.
    """

    def __init__(self, node: Node, topic: str, callback: Callable[[Any], None]) -> None:
        """Take the topic; nothing is subscribed before `look`."""
        self._node, self._callback = node, callback
        self.topic = node.resolve_topic_name(topic)
        self._subscription: Any = None
        self._type = ''  # that of the subscription
        self.problem = ''

    def look(self) -> None:
        """Listen to the type that is spoken; a publisher may come back with another one."""
        found = self._node.get_publishers_info_by_topic(self.topic)
        types = sorted({info.topic_type for info in found})
        self.problem = ''
        for name in types:
            if self._type not in types:
                self._listen(name)
        if not self.problem and len(types) > 1:
            self.problem = f'{self.topic}: {" and ".join(types)}, only {self._type} is heard'

    def _listen(self, name: str) -> None:
        try:
            kind = message_class(name)
        except ImportError as e:
            self.problem = f'{self.topic}: {name} is not installed ({e})'
            return
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._type = name
        self._subscription = self._node.create_subscription(
            kind, self.topic, self._callback, qos.STATE
        )


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
