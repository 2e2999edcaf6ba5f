"""A remote control must be in the mode that lets programs move the robot."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node

from faster_vla_ros.interlocks.any_topic import AnyTopic


class Permit:
    """A field of some topic's messages must have one value, and not too long ago."""

    def __init__(self, node: Node, *, topic: str, field: str, value: int, timeout: float) -> None:
        """Listen to a topic of any type.

        Args:
            node: the dispatcher.
            topic: on which the remote control tells its mode.
            field: of the message, dots for fields of fields.
            value: it must have.
            timeout: seconds after which it counts as unknown.
        """
        self._topic = AnyTopic(node, topic, self._take)
        self._field, self._value, self._timeout = field, value, timeout
        self._found: Any = None
        self._problem = ''
        self._heard: float | None = None

    def _take(self, message: Any) -> None:
        self._problem = ''
        for name in self._field.split('.'):
            if not hasattr(message, name):
                self._problem = f'{self._topic.topic}: the message has no field {self._field}'
                return
            message = getattr(message, name)
        self._found, self._heard = message, time.perf_counter()

    def look(self) -> None:
        """Subscribe as soon as there is a publisher."""
        self._topic.look()

    @property
    def unheard(self) -> bool:
        """Whether the remote control says nothing: nobody is known to move the robot by it."""
        return self._heard is None or time.perf_counter() - self._heard > self._timeout

    @property
    def denied(self) -> bool:
        """Whether the remote control says that the robot is moved by something else."""
        problem = self._topic.problem or self._problem
        return not problem and not self.unheard and self._found != self._value

    @property
    def reason(self) -> str:
        """Why the robot may not be moved by programs; empty if it may."""
        if problem := self._topic.problem or self._problem:
            return problem
        what = f'{self._field} of {self._topic.topic}'
        if self._heard is None:
            return f'{what} is not known, expected {self._value}'
        if self.unheard:
            return f'{what} was not told for {self._timeout:g} s, expected {self._value}'
        if self._found != self._value:
            return f'{what} is {self._found}, expected {self._value}'
        return ''
