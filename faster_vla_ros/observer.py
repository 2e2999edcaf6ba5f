"""What an observer on the wire learns about every chunk: stages, fate, first command.

The first command computed from a chunk is the first one the dispatcher published after its report
on the chunk; both come from one process, so their DDS source timestamps order them exactly.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import dataclasses
import math
import time
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float32

from faster_core.chunk import StageTiming
from faster_vla_msgs.msg import ChunkReport, InferenceTiming
from faster_vla_ros.compat.message_info import with_info
from faster_vla_ros.session import LATCHED, Session

TIMING_TOPIC = '/policy_node/timing'
REPORT_TOPIC = '/action_dispatcher/chunk_report'
COMMAND_TOPIC = '/motion_target/target_joint_state_arm_left'
SUCCESS_TOPIC = '/mujoco_robot/task_success'
FACTOR_TOPIC = '/mujoco_robot/real_time_factor'
CAMERA_TOPIC = '/hdas/camera_head/left_raw/image_raw_color/compressed'

_SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_NANO = 1_000_000_000


@dataclasses.dataclass(kw_only=True)
class ChunkRecord:
    """One chunk as seen from outside; `None` until the message came.

    Attributes:
        sequence_id: of the chunk.
        stamp_ns: stamp of its observation.
        timing: milliseconds by stage.
        observation_age_ms: age of the observation when inference began.
        report: what the dispatcher did with it.
        first_command_ns: time the first command computed from it arrived.
    """

    sequence_id: int
    stamp_ns: int
    timing: StageTiming | None = None
    observation_age_ms: float | None = None
    report: ChunkReport | None = None
    first_command_ns: int | None = None

    @property
    def first_command_ms(self) -> float | None:
        """Observation stamp to first command, minus inference, in milliseconds."""
        if self.first_command_ns is None or self.timing is None:
            return None
        return (self.first_command_ns - self.stamp_ns) / 1e6 - self.timing.total_ms

    @property
    def complete(self) -> bool:
        """Whether both timing and report came."""
        return self.timing is not None and self.report is not None


class Observer:
    """Subscribes to everything an episode is judged by; call `clear` before each."""

    def __init__(
        self,
        session: Session,
        *,
        on_chunk: Callable[[ChunkRecord], None] | None = None,
        on_frame: Callable[[float, bytes], None] | None = None,
    ) -> None:
        """Subscribe.

        Args:
            session: whose node is used; it must be spun.
            on_chunk: called once per chunk as soon as its timing and report are there.
            on_frame: called with seconds and JPEG of every frame of the head camera.

        `num_frames` and `last_command_at` (`time.monotonic()` of the last command to an arm) are
        not forgotten by `clear`.
        """
        self._on_chunk, self._on_frame = on_chunk, on_frame
        self.num_frames = 0
        self.last_command_at = -math.inf
        self.clear()
        subscribe = session.node.create_subscription
        subscribe(InferenceTiming, TIMING_TOPIC, self._take_timing, 10)
        subscribe(ChunkReport, REPORT_TOPIC, with_info(self._take_report), 10)
        subscribe(JointState, COMMAND_TOPIC, with_info(self._take_command), 10)
        subscribe(Bool, SUCCESS_TOPIC, self._take_success, LATCHED)
        subscribe(Float32, FACTOR_TOPIC, self._take_factor, 10)
        subscribe(CompressedImage, CAMERA_TOPIC, self._take_frame, _SENSOR_QOS)

    def clear(self) -> None:
        """Forget everything seen."""
        self.success = False
        self.real_time_factors: list[float] = []
        self.flushes_ns: list[int] = []
        self._records: dict[int, ChunkRecord] = {}
        self._waiting: list[tuple[int, ChunkRecord]] = []
        self._commands: collections.deque[tuple[int, int]] = collections.deque(maxlen=50)

    @property
    def chunks(self) -> list[ChunkRecord]:
        """Chunks with rows, in order."""
        records = sorted(self._records.values(), key=lambda r: r.sequence_id)
        return [r for r in records if r.report is None or r.report.num_rows]

    def _record(self, msg: InferenceTiming | ChunkReport) -> ChunkRecord:
        record = self._records.get(msg.sequence_id)
        if record is None:
            record = ChunkRecord(sequence_id=msg.sequence_id, stamp_ns=_nanoseconds(msg))
            self._records[msg.sequence_id] = record
        return record

    def _take_timing(self, msg: InferenceTiming) -> None:
        record = self._record(msg)
        record.observation_age_ms = float(msg.observation_age_ms)
        record.timing = StageTiming(
            preprocess_ms=float(msg.preprocess_ms),
            vision_ms=float(msg.vision_ms),
            prefill_ms=float(msg.prefill_ms),
            decode_block_ms=tuple(float(v) for v in msg.decode_block_ms),
            detokenize_ms=float(msg.detokenize_ms),
            total_ms=float(msg.total_ms),
        )
        self._completed(record)

    def _take_report(self, msg: ChunkReport, info: Mapping[str, int]) -> None:
        at = info['source_timestamp']
        if not msg.num_rows:
            self.flushes_ns.append(at)
            return
        record = self._record(msg)
        record.report = msg
        if msg.accepted:
            self._waiting.append((at, record))
            self._match_commands()
        self._completed(record)

    def _take_command(self, _: JointState, info: Mapping[str, int]) -> None:
        self.last_command_at = time.monotonic()
        self._commands.append((info['source_timestamp'], info['received_timestamp']))
        self._match_commands()

    def _match_commands(self) -> None:
        still_waiting = []
        for at, record in self._waiting:
            received = next((r for sent, r in self._commands if sent > at), None)
            if received is None:
                still_waiting.append((at, record))
            else:
                record.first_command_ns = received
        self._waiting = still_waiting

    def _completed(self, record: ChunkRecord) -> None:
        if record.complete and self._on_chunk is not None:
            self._on_chunk(record)

    def _take_success(self, msg: Bool) -> None:
        self.success = msg.data

    def _take_factor(self, msg: Float32) -> None:
        self.real_time_factors.append(float(msg.data))

    def _take_frame(self, msg: CompressedImage) -> None:
        self.num_frames += 1
        if self._on_frame is not None:
            self._on_frame(_nanoseconds(msg) / _NANO, msg.data)


def _nanoseconds(msg: Any) -> int:
    return msg.header.stamp.sec * _NANO + msg.header.stamp.nanosec
