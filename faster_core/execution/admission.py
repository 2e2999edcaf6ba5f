"""Which chunks may become the plan, in which order, and how many were refused for what."""

from __future__ import annotations

import math

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution import checks
from faster_core.execution.config import DispatcherConfig
from faster_core.execution.errors import ChunkError, CONTENT_REASONS
from faster_core.execution.feedback import Feedback
from faster_core.execution.plan import Plan, step_columns


class Admission:
    """Judges one chunk after the other, by those taken before.

    Attributes:
        num_accepted: chunks taken.
        num_missing: chunks lost on the way: numbers left out between two that came, taken or
            refused. A number that does not grow is a policy that begins anew, and no gap.
        rejected: reason -> chunks refused.
    """

    def __init__(self, embodiment: Embodiment, config: DispatcherConfig) -> None:
        """Start with nothing taken and nothing refused."""
        self._embodiment, self.config = embodiment, config
        self._switching = step_columns(embodiment)
        self.num_accepted = self.num_missing = 0
        self.rejected: dict[str, int] = {}
        self._violations = 0  # in a row
        self._last_stamp, self._last_levels = -np.inf, math.inf
        self._last_id = math.inf

    def check(self, chunk: ActionChunk, feedback: Feedback, now: float) -> int:
        """Return the number of rows that came too late.

        A chunk without rows only has to fit the layout: a wish to hold is always granted.

        Raises:
            ChunkError: the chunk as a whole is refused.
        """
        checks.check_layout(chunk, self._embodiment)
        if not chunk.num_steps:
            return 0
        # The same observation again is welcome with more levels than before: coarse came first.
        finer = chunk.stamp == self._last_stamp and _levels(chunk) > self._last_levels
        dropped = checks.check_time(
            chunk,
            self._embodiment,
            self.config,
            now=now,
            newest_stamp=-math.inf if finer else self._last_stamp,
        )
        checks.check_motion(chunk, self._embodiment, self.config, first_row=dropped)
        if stale := feedback.stale(now):
            raise ChunkError('start_offset', f'no fresh feedback of {", ".join(stale)}', stale[0])
        first = Plan.of_chunk(chunk, self._switching).sample(now)
        checks.check_start(first, feedback.positions(), self._embodiment, self.config)
        return dropped

    def took(self, chunk: ActionChunk, now: float) -> None:
        """Count a chunk that was taken; older ones are refused from now on."""
        self._came(chunk.sequence_id)
        self.num_accepted += 1
        if chunk.num_steps:
            self._violations = 0
            self._last_stamp, self._last_levels = chunk.stamp, _levels(chunk)
        elif self._last_stamp < (stamp := min(chunk.stamp, now)):
            self._last_stamp, self._last_levels = stamp, math.inf

    def refused(self, error: ChunkError, *, sequence_id: int, enabled: bool) -> str:
        """Count a refused chunk; returns why to stop, if too many in a row would break limits."""
        self._came(sequence_id)
        self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1
        if error.reason not in CONTENT_REASONS or not enabled:
            return ''
        self._violations += 1
        if self._violations <= self.config.consecutive_violation_threshold:
            return ''
        return f'{self._violations} chunks rejected in a row, {error}'

    def _came(self, sequence_id: int) -> None:
        if sequence_id > self._last_id:
            self.num_missing += sequence_id - self._last_id - 1
        self._last_id = sequence_id

    def begin_anew(self) -> None:
        """Forget refusals in a row."""
        self._violations = 0

    def clock_set_back(self) -> None:
        """Forget the newest stamp: it may lie in the future now."""
        self._last_stamp, self._last_levels = -np.inf, math.inf


def _levels(chunk: ActionChunk) -> float:
    return math.inf if chunk.num_levels is None else chunk.num_levels
