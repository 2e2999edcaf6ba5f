"""What the policy node sends: chunks, holds and timings under one sequence of ids."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from rclpy.lifecycle import LifecycleNode
from unique_identifier_msgs.msg import UUID

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import InferenceTiming
from faster_vla_ros import qos
from faster_vla_ros.conversions import chunk_to_message, seconds_from_stamp
from faster_vla_ros.inference import Outcome


class ChunkOutput:
    """Publishers of `~/action_chunk` and `~/timing`, silent unless the node is active.

    Callers of several threads hold a lock.
    """

    def __init__(
        self, node: LifecycleNode, embodiment: Embodiment, frame_id: str = 'base_link'
    ) -> None:
        """Create the publishers; `frame_id` of Cartesian components."""
        self._node, self._embodiment, self._frame_id = node, embodiment, frame_id
        self._chunks = qos.publisher(
            node, ActionChunkMsg, '~/action_chunk', qos.CHUNK, lifecycle=True
        )
        self._timing = qos.publisher(node, InferenceTiming, '~/timing', qos.REPORT, lifecycle=True)
        self.sequence_id = 0

    def destroy(self) -> None:
        """Free the publishers."""
        self._node.destroy_lifecycle_publisher(self._chunks)
        self._node.destroy_lifecycle_publisher(self._timing)

    def hold(self, instruction: str) -> float:
        """Tell the dispatcher to drop its plan; returns the stamp (s) of the message."""
        embodiment, stamp = self._embodiment, self._node.get_clock().now().to_msg()
        self.sequence_id += 1
        chunk = ActionChunk(
            values=np.zeros((0, embodiment.action_dim), dtype=np.float32),
            stamp=seconds_from_stamp(stamp),
            first_step_offset=embodiment.step_period,
            step_period=embodiment.step_period,
            sequence_id=self.sequence_id,
            embodiment_checksum=embodiment.checksum,
        )
        message = chunk_to_message(
            chunk, embodiment, instruction=instruction, frame_id=self._frame_id
        )
        message.header.stamp = stamp
        self._chunks.publish(message)
        return chunk.stamp

    def chunk(
        self,
        outcome: Outcome,
        *,
        reference_camera: str,
        goal_id: UUID | None,
        observation_age_ms: float,
    ) -> float:
        """Publish the chunk of an outcome; returns the milliseconds since its start.

        Every chunk has a number of its own, a coarse one too. The timing is that of the job, and
        is published with its last chunk.
        """
        self.sequence_id += 1
        message = chunk_to_message(
            dataclasses.replace(outcome.chunk, sequence_id=self.sequence_id),
            self._embodiment,
            instruction=outcome.job.instruction,
            goal_id=goal_id,
            frame_id=self._frame_id,
        )
        # The image's own stamp: seconds in a float are some hundred nanoseconds off.
        message.header.stamp = outcome.job.images[reference_camera].header.stamp
        self._chunks.publish(message)
        total = (time.perf_counter() - outcome.started) * 1e3
        if not outcome.coarse and self._timing.get_subscription_count():
            t = outcome.chunk.timing
            timing = InferenceTiming(
                sequence_id=self.sequence_id,
                observation_age_ms=observation_age_ms,
                preprocess_ms=t.preprocess_ms + outcome.preprocess_ms,
                vision_ms=t.vision_ms,
                prefill_ms=t.prefill_ms,
                decode_block_ms=list(t.decode_block_ms),
                detokenize_ms=t.detokenize_ms,
                total_ms=total,
            )
            timing.header.stamp = message.header.stamp
            self._timing.publish(timing)
        return total
