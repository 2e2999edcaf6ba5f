"""What becomes of every inference: a chunk on the wire, or a reason and a count.

Called in the inference thread; the node's lock keeps a chunk and a change of the instruction from
crossing each other.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.errors import DecodeError
from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros.inference import Job, Outcome

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode

# Inferences that mean, 99th percentile and maximum are taken over.
NUM_DURATIONS = 100


class Outcomes:
    """Publishes good chunks, holds doubtful ones back, counts the rest.

    Attributes:
        num_published: chunks on the wire, coarse ones too.
        num_failures: inferences whose codes could not be decoded.
        num_low_confidence: chunks held back by `min_confidence`.
        num_refused: observations that could not be used.
        failures_in_a_row: chunks in a row that could not be decoded or were held back.
        last_error: why the newest inference gave no chunk.
        durations: milliseconds from start to publishing of the newest inferences.
        observation_age_ms: age of the observation when the newest inference began.
        coverage: seconds of motion left in the plan before when each chunk since the newest
            diagnosis was ready; negative: it had run out.
    """

    def __init__(self, node: PolicyNode) -> None:
        """Start with nothing counted."""
        self._node = node
        self.num_published = self.num_failures = self.num_low_confidence = self.num_refused = 0
        self.failures_in_a_row = 0
        self.last_error = ''
        self.durations: collections.deque[float] = collections.deque(maxlen=NUM_DURATIONS)
        self.coverage: collections.deque[float] = collections.deque(maxlen=NUM_DURATIONS)
        self.observation_age_ms = 0.0
        self._plan_end: float | None = None
        self._covered = 0.0

    def started(self, job: Job) -> None:
        """Note how old an observation is when its inference begins."""
        self.observation_age_ms = (self._now() - job.stamp) * 1e3

    def refused(self, why: str) -> None:
        """Count an observation that cannot be used."""
        with self._node.lock:
            self.num_refused += 1
        self._node.status.set(PolicyStatus.STATE_STALE_OBSERVATION, why)

    def plan_dropped(self) -> None:
        """Take note that the dispatcher has no plan any more."""
        self._plan_end = None

    def done(self, outcome: Outcome) -> None:
        """Publish the chunk of an inference, or say why there is none."""
        node = self._node
        with node.lock:
            if outcome.fatal:
                node.get_logger().fatal(f'inference thread ended:\n{outcome.text}')
                self.last_error = repr(outcome.error)
                node.instructions.fail(self.last_error)
            elif outcome.job.generation != node.instructions.generation:
                pass  # the instruction changed meanwhile
            elif outcome.error is not None:
                self._failed(outcome)
            elif outcome.coarse:
                self._publish(outcome)
            elif why := self._doubt(outcome.chunk):
                self.num_low_confidence += 1
                self._hold_back(why)
            else:
                self.durations.append(self._publish(outcome))
                self.failures_in_a_row = 0

    def _failed(self, outcome: Outcome) -> None:
        if isinstance(outcome.error, DecodeError):
            self.num_failures += 1
            self._hold_back(outcome.text)
            return
        self.last_error = outcome.text
        self.num_refused += 1
        self._node.status.set(PolicyStatus.STATE_STALE_OBSERVATION, outcome.text)

    def _hold_back(self, why: str) -> None:
        self.failures_in_a_row += 1
        self.last_error = why
        self._node.status.set(PolicyStatus.STATE_STALE_OBSERVATION, why)

    def _doubt(self, chunk: ActionChunk) -> str:
        """Return why a chunk is not trusted; empty if it is."""
        least = self._node.config['min_confidence']
        if least is None:
            return ''
        if not chunk.log_prob:
            return f'the policy gives no confidence, min_confidence expects at least {least:g}'
        found = float(np.mean(chunk.log_prob))
        if found >= least:
            return ''
        return f'confidence {found:.3f} of the chunk is below min_confidence {least:g}'

    def _publish(self, outcome: Outcome) -> float:
        node = self._node
        self._note_coverage(outcome)
        total = node.chunks.chunk(
            outcome,
            reference_camera=node.config['reference_camera'],
            goal_id=node.goals.goal_id,
            observation_age_ms=self.observation_age_ms,
        )
        self.num_published += 1
        node.status.set(PolicyStatus.STATE_RUNNING, '')
        return total

    def _note_coverage(self, outcome: Outcome) -> None:
        stamp = outcome.job.stamp
        # A whole chunk does not follow its own coarse one.
        if self._plan_end is not None and stamp != self._covered:
            self.coverage.append(self._plan_end - self._now())
        self._covered, self._plan_end = stamp, float(outcome.chunk.row_times[-1])

    def _now(self) -> float:
        return self._node.get_clock().now().nanoseconds / 1e9
