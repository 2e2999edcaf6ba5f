"""The optional emergency-stop topic: true stops, and so does silence if a timeout is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import time

from rclpy.node import Node
from std_msgs.msg import Bool

from faster_vla_ros import qos
from faster_vla_ros.compat.message_info import seconds_waited, with_info

PRESSED = 'estop'
SILENT = 'estop_silent'


class EmergencyStop:
    """Listens to `estop`; silence is counted from the start, on the steady clock."""

    def __init__(
        self, node: Node, timeout: float, on_press: Callable[[], object] = lambda: None
    ) -> None:
        """Subscribe.

        Args:
            node: that subscribes.
            timeout: seconds of silence that stop, too; 0: silence means nothing.
            on_press: called when it is pressed, once until it is let go.
        """
        self._timeout, self._on_press = timeout, on_press
        self._pressed, self._heard = False, time.perf_counter()
        self._was_pressed = False
        qos.subscription(node, Bool, 'estop', with_info(self._take), qos.REPORT)

    def _take(self, message: Bool, info: Mapping[str, int]) -> None:
        before, self._pressed = self._pressed, message.data
        # It waits while a trajectory is computed, which must not lengthen the silence.
        self._heard = max(self._heard, time.perf_counter() - seconds_waited(info))
        self._was_pressed |= message.data
        if message.data and not before:
            self._on_press()

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
