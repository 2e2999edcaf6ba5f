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
        qos.subscription(node, Bool, 'estop', self._take, qos.COMMAND)

    def _take(self, message: Bool) -> None:
        self._pressed, self._heard = message.data, time.perf_counter()

    @property
    def reason(self) -> str:
        """Why the robot may not move; empty if it may."""
        if self._pressed:
            return PRESSED
        if self._timeout and time.perf_counter() - self._heard > self._timeout:
            return SILENT
        return ''
