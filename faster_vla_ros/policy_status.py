"""What the policy node says about itself: status, embodiment, diagnostics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np

from faster_vla_msgs.msg import Embodiment, PolicyStatus
from faster_vla_ros import qos

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode


class StatusBoard:
    """Publishes the latched status on change and at 1 Hz, the embodiment once, diagnostics."""

    def __init__(self, node: PolicyNode) -> None:
        """Create the publishers and announce the embodiment."""
        self._node = node
        self._lock = threading.RLock()
        self.state, self.message = PolicyStatus.STATE_IDLE, ''
        self._status = node.create_publisher(PolicyStatus, '~/status', qos.LATCHED)
        self._embodiment = node.create_publisher(Embodiment, '~/embodiment', qos.LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', qos.REPORT)
        self._announce()

    def destroy(self) -> None:
        """Free the publishers."""
        for publisher in (self._status, self._embodiment, self._diagnostics):
            self._node.destroy_publisher(publisher)

    @property
    def faulted(self) -> bool:
        """Whether the inference thread has ended with an exception."""
        return self.state == PolicyStatus.STATE_FAULT

    def set(self, state: int, message: str) -> None:
        """Change the state; published if it is another one. A fault stays until `recover`."""
        with self._lock:
            if not self.faulted:
                self._change(state, message)

    def recover(self, message: str) -> None:
        """Become idle, also after a fault."""
        with self._lock:
            self._change(PolicyStatus.STATE_IDLE, message)

    def _change(self, state: int, message: str) -> None:
        if (state, message) == (self.state, self.message):
            return
        if state == PolicyStatus.STATE_STALE_OBSERVATION != self.state:
            self._node.get_logger().warning(f'no chunk: {message}')
        self.state, self.message = state, message
        self._publish_status()

    def publish(self) -> None:
        """Publish status and diagnostics."""
        with self._lock:
            status = self._publish_status()
        self._diagnostics.publish(diagnose(self._node, status))

    def _publish_status(self) -> PolicyStatus:
        node = self._node
        status = PolicyStatus(
            state=self.state,
            message=self.message,
            instruction=node.instruction,
            num_chunks_published=node.num_published,
            num_decode_failures=node.num_failures,
            num_observations_dropped=node.num_dropped,
        )
        status.header.stamp = node.get_clock().now().to_msg()
        self._status.publish(status)
        return status

    def _announce(self) -> None:
        e = self._node.policy.embodiment
        message = Embodiment(
            name=e.name,
            checksum=e.checksum,
            action_frequency=e.action_frequency,
            action_horizon=e.action_horizon,
            camera_names=list(e.cameras),
            component_names=[c.name for c in e.action],
            component_kinds=[int(c.kind) for c in e.action],
            component_sizes=[c.size for c in e.action],
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._embodiment.publish(message)


def diagnose(node: PolicyNode, status: PolicyStatus) -> DiagnosticArray:
    """Return the current diagnostics."""
    array = DiagnosticArray()
    array.header.stamp = status.header.stamp
    stale = node.inputs.stale()
    for name in [*node.config.cameras, *node.config.sources]:
        level = DiagnosticStatus.OK
        if name in stale:
            never = not node.inputs.ever_seen(name)
            level = DiagnosticStatus.STALE if never else DiagnosticStatus.ERROR
        array.status.append(_entry(f'input/{name}', level, stale.get(name, 'ok'), {}))
    values, level, message = {}, DiagnosticStatus.OK, 'ok'
    if node.durations:
        p99 = float(np.percentile(node.durations, 99))
        values = {
            'mean_ms': f'{np.mean(node.durations):.1f}',
            'p99_ms': f'{p99:.1f}',
            'max_ms': f'{max(node.durations):.1f}',
        }
        for name, bad in (('warn', DiagnosticStatus.WARN), ('error', DiagnosticStatus.ERROR)):
            if p99 > node.config[f'latency.{name}'] * 1e3:
                level, message = bad, f'p99 {p99:.0f} ms is above latency.{name}'
    values['decode_failures'] = str(node.num_failures)
    if status.state == PolicyStatus.STATE_FAULT:
        level, message = DiagnosticStatus.ERROR, status.message
    array.status.append(_entry('inference', level, message, values))
    for entry in array.status:
        entry.name = f'{node.get_name()}: {entry.name}'
        entry.hardware_id = node.policy.embodiment.name
    return array


def _entry(name: str, level: bytes, message: str, values: dict[str, str]) -> DiagnosticStatus:
    pairs = [KeyValue(key=k, value=v) for k, v in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)
