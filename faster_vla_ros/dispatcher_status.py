"""What the dispatcher says about itself: state, chunk reports, what it sent, diagnostics."""

from __future__ import annotations

import collections
from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from rclpy.node import Node

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution.config import DispatcherConfig
from faster_core.execution.errors import CONTENT_REASONS
from faster_core.execution.state import Action, ChunkReport, DispatcherSnapshot
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import ChunkReport as ChunkReportMsg
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros import qos
from faster_vla_ros.conversions import (
    chunk_to_message,
    duration_from_seconds,
    seconds_from_stamp,
)
from faster_vla_ros.interlocks.twin import Twin

# Ticks over which their punctuality is judged, about ten seconds.
NUM_TICKS = 500
# A 99th percentile of lateness beyond this share of the period is a warning.
LATE_SHARE = 0.5
_LEVEL = {
    Action.HOLD: DiagnosticStatus.WARN,
    Action.STOP: DiagnosticStatus.ERROR,
}


class DispatcherBoard:
    """Publishes the latched state on change and at 1 Hz, a report per chunk, diagnostics."""

    def __init__(
        self, node: Node, embodiment: Embodiment, rules: DispatcherConfig, frame_id: str
    ) -> None:
        """Create the publishers."""
        self._node, self._embodiment, self.rules = node, embodiment, rules
        self._frame_id = frame_id
        self._state = qos.publisher(node, DispatcherState, '~/state', qos.LATCHED)
        self._reports = qos.publisher(node, ChunkReportMsg, '~/chunk_report', qos.REPORT)
        self._planned = qos.publisher(node, ActionChunkMsg, '~/planned', qos.CHUNK)
        self._diagnostics = qos.publisher(node, DiagnosticArray, '/diagnostics', qos.REPORT)
        self.twin = Twin(node)
        self._snapshot: DispatcherSnapshot | None = None
        self._rejected_before = 0
        # Position component -> messages of its feedback refused; those refused a second ago.
        self._refused: collections.Counter[str] = collections.Counter()
        self._refused_before = 0
        self._rejected_in_a_row = 0
        self._late_ms: collections.deque[float] = collections.deque(maxlen=NUM_TICKS)

    def report(self, stamp: Time, report: ChunkReport) -> None:
        """Publish what became of a chunk whose message carried `stamp`."""
        if report.accepted:
            self._rejected_in_a_row = 0
        elif report.reason in CONTENT_REASONS:  # not those of a policy that waits for an enable
            self._rejected_in_a_row += 1
        message = ChunkReportMsg(
            sequence_id=report.sequence_id,
            accepted=report.accepted,
            reason=report.reason,
            num_rows=report.num_rows,
            num_rows_dropped=report.rows_dropped,
            num_rows_executed_previous=report.rows_executed_of_previous,
        )
        message.header.stamp = stamp
        self._reports.publish(message)

    def update(self, snapshot: DispatcherSnapshot) -> None:
        """Take the state of a tick; published if it is another one."""
        before, self._snapshot = self._snapshot, snapshot
        if before is None or _essence(before) != _essence(snapshot):
            self._publish_state()

    def feedback_refused(self, component: str) -> None:
        """Count a message of its driver that was of no use, or not new."""
        self._refused[component] += 1

    def timed(self, late: float) -> None:
        """Take how late (seconds; negative: early) a tick was."""
        self._late_ms.append(late * 1e3)

    def publish(self) -> None:
        """Publish state and diagnostics; called at 1 Hz."""
        if self._snapshot is not None:
            self._publish_state()
            self._diagnostics.publish(self._diagnose(self._snapshot))

    def planned(self, commands: Mapping[str, np.ndarray | None], stamp: Time) -> None:
        """Publish what was sent (dry run: what would have been), if somebody listens."""
        sent = {name: values for name, values in commands.items() if values is not None}
        if not sent or not self._planned.get_subscription_count():
            return
        e = self._embodiment
        row = [sent.get(c.name, np.zeros(c.size)) for c in e.action]
        chunk = ActionChunk(
            values=np.concatenate(row)[None],
            stamp=seconds_from_stamp(stamp),
            first_step_offset=0.0,
            step_period=1.0 / self.rules.dispatch_rate,
            sequence_id=self._snapshot.sequence_id if self._snapshot else 0,
            embodiment_checksum=e.checksum,
        )
        message = chunk_to_message(chunk, e, frame_id=self._frame_id)
        message.components = [c for c in message.components if c.name in sent]
        self._planned.publish(message)

    def _publish_state(self) -> None:
        s = self._snapshot
        message = DispatcherState(
            action=int(s.action),
            enabled=s.enabled,
            components=list(s.components),
            message=s.message,
            sequence_id=s.sequence_id,
            remaining=duration_from_seconds(s.remaining),
            num_chunks_accepted=s.num_chunks_accepted,
            num_chunks_rejected=s.num_chunks_rejected,
            rejected_reasons=list(s.rejected),
            rejected_counts=list(s.rejected.values()),
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self.twin.said(message)
        self._state.publish(message)

    def _diagnose(self, s: DispatcherSnapshot) -> DiagnosticArray:
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            self._entry(
                'state',
                _LEVEL.get(s.action, DiagnosticStatus.OK),
                s.message or s.action.name.lower(),
                {
                    'action': s.action.name,
                    'enabled': str(s.enabled).lower(),
                    'components': ', '.join(s.components),
                },
            ),
            self._chunks(s),
            self._feedback(),
            self._tick(),
        ]
        return array

    def _chunks(self, s: DispatcherSnapshot) -> DiagnosticStatus:
        new = s.num_chunks_rejected - self._rejected_before
        self._rejected_before = s.num_chunks_rejected
        level, message = DiagnosticStatus.OK, 'ok'
        if new:
            level, message = DiagnosticStatus.WARN, f'{new} rejected in the last second'
        if self._rejected_in_a_row > self.rules.consecutive_violation_threshold:
            level = DiagnosticStatus.ERROR
            message = f'{self._rejected_in_a_row} rejected in a row'
        counts = {f'rejected/{reason}': str(count) for reason, count in s.rejected.items()}
        taken = {'accepted': s.num_chunks_accepted, 'missing': s.num_chunks_missing}
        counts = {key: str(count) for key, count in taken.items()} | counts
        return self._entry('chunks', level, message, counts)

    def _feedback(self) -> DiagnosticStatus:
        total = self._refused.total()
        new, self._refused_before = total - self._refused_before, total
        level, message = DiagnosticStatus.OK, 'ok'
        if new:
            level, message = DiagnosticStatus.WARN, f'{new} refused in the last second'
        positions = [c.name for c in self._embodiment.action if c.kind.is_position]
        counts = {f'refused/{name}': str(self._refused[name]) for name in positions}
        return self._entry('feedback', level, message, counts)

    def _tick(self) -> DiagnosticStatus:
        if not self._late_ms:
            return self._entry('tick', DiagnosticStatus.STALE, 'no tick yet', {})
        jitter = np.abs(self._late_ms)
        mean, p99 = float(np.mean(jitter)), float(np.percentile(jitter, 99))
        level, message = DiagnosticStatus.OK, 'ok'
        if p99 > LATE_SHARE * 1e3 / self.rules.dispatch_rate:
            level = DiagnosticStatus.WARN
            message = f'p99 of the jitter {p99:.1f} ms at {self.rules.dispatch_rate:g} Hz'
        values = {
            'mean_ms': f'{mean:.2f}',
            'p99_ms': f'{p99:.2f}',
            'max_ms': f'{jitter.max():.2f}',
        }
        return self._entry('tick', level, message, values)

    def _entry(
        self, name: str, level: bytes, message: str, values: dict[str, str]
    ) -> DiagnosticStatus:
        return DiagnosticStatus(
            name=f'{self._node.get_name()}: {name}',
            hardware_id=self._node.get_namespace().strip('/') or self._embodiment.name,
            level=level,
            message=message,
            values=[KeyValue(key=k, value=v) for k, v in values.items()],
        )


def _essence(s: DispatcherSnapshot) -> tuple:
    """Return what makes a state another one."""
    return s.action, s.enabled, s.components, s.message
