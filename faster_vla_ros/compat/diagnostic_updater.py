"""`diagnostic_updater`, or the part of it that is used here.

The fallback follows the original (ros/diagnostics, `diagnostic_updater/_diagnostic_updater.py`):
the same names, parameter, topic and period. It has neither composite tasks nor frequency tasks,
says nothing while there is no task, and does not announce a task before its first run.
"""

from __future__ import annotations

try:
    from diagnostic_updater import DiagnosticStatusWrapper, Updater
except ImportError:
    from collections.abc import Callable
    from typing import Any

    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from rclpy.node import Node

    class DiagnosticStatusWrapper(DiagnosticStatus):
        """A status that is filled in by its task."""

        def summary(self, level: bytes, message: str) -> None:
            """Set level and message."""
            self.level, self.message = level, str(message)

        def add(self, key: str, val: Any) -> None:
            """Add a value."""
            self.values.append(KeyValue(key=key, value=str(val)))

    class Updater:
        """Runs its tasks every period and publishes what they say on /diagnostics."""

        def __init__(self, node: Node, period: float = 1.0) -> None:
            """Create publisher and timer; `diagnostic_updater.period` overrides the seconds."""
            self.node, self.hwid = node, ''
            self.tasks: list[tuple[str, Callable]] = []
            self.publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 1)
            name = 'diagnostic_updater.period'
            if not node.has_parameter(name):
                node.declare_parameter(name, period)
            self.timer = node.create_timer(node.get_parameter(name).value, self.update)

        def setHardwareID(self, hwid: str) -> None:
            """Name the hardware in every status."""
            self.hwid = hwid

        def add(
            self, name: str, fn: Callable[[DiagnosticStatusWrapper], DiagnosticStatusWrapper]
        ) -> None:
            """Add a task: it fills in a status and returns it."""
            self.tasks.append((name, fn))

        def removeByName(self, name: str) -> bool:
            """Remove the first task of a name; False if there is none."""
            index = next((i for i, task in enumerate(self.tasks) if task[0] == name), None)
            if index is not None:
                del self.tasks[index]
            return index is not None

        def force_update(self) -> None:
            """Run all tasks now."""
            self.update()

        def update(self) -> None:
            """Run all tasks and publish one array."""
            if not self.tasks:
                return
            array = DiagnosticArray()
            array.header.stamp = self.node.get_clock().now().to_msg()
            for name, fn in self.tasks:
                status = DiagnosticStatusWrapper(
                    level=DiagnosticStatus.ERROR,
                    name=name,
                    message='No message was set',
                    hardware_id=self.hwid,
                )
                status = fn(status)
                status.name = f'{self.node.get_name()}: {status.name}'
                array.status.append(status)
            self.publisher.publish(array)


__all__ = ['DiagnosticStatusWrapper', 'Updater']
