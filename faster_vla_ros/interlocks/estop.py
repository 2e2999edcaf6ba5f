"""The optional emergency-stop topic: true stops, and so does silence if a timeout is set."""

from __future__ import annotations

import time

from rclpy.node import Node
from std_msgs.msg import Bool

from faster_vla_ros import qos

PRESSED = 'estop'
SILENT = 'estop_silent'


class EmergencyStop:
    """Listens to `estop`; silence is counted from the start, on the steady clock."""

    def __init__(self, node: Node, timeout: float) -> None:
        """Subscribe; `timeout` in seconds, 0: silence means nothing."""
        self._timeout = timeout
        self._pressed, self._heard = False, time.perf_counter()
        self._was_pressed = False
        qos.subscription(node, Bool, 'estop', self._take, qos.REPORT)

    def _take(self, message: Bool) -> None:
        self._pressed, self._heard = message.data, time.perf_counter()
        self._was_pressed |= message.data

    def take_press(self) -> str:
        """Return `reason`, or that of a press that was let go again since this was asked last."""
        was, self._was_pressed = self._was_pressed, False
        return PRESSED if was else self.reason

    @property
    def reason(self) -> str:
        """Why the robot may not move; empty if it may."""
        if self._pressed:
            return PRESSED
        if self._timeout and time.perf_counter() - self._heard > self._timeout:
            return SILENT
        return ''
