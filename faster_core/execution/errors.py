"""Why a chunk was refused: a key to count by, and a sentence for people."""

from __future__ import annotations

from faster_core.errors import FasterVlaError

# Keys of rejections. The second group speaks of the chunk's content: several of them in a row say
# that the policy is broken, and the dispatcher stops.
STATE_REASONS = ('not_enabled', 'stopped', 'out_of_order', 'too_old', 'expired')
CONTENT_REASONS = (
    'embodiment_mismatch',
    'bad_shape',
    'bad_names',
    'bad_frame',
    'bad_timing',
    'not_finite',
    'start_offset',
    'position_limit',
    'step_velocity',
)


class ChunkError(FasterVlaError, ValueError):
    """A chunk may not be executed.

    Attributes:
        reason: one of `STATE_REASONS` or `CONTENT_REASONS`.
        detail: the value found and the value expected.
        component: the action component at fault; empty if it is the chunk as a whole.
    """

    def __init__(self, reason: str, detail: str, component: str = '') -> None:
        """Keep key, sentence and component; the reason must be a known one."""
        if reason not in STATE_REASONS + CONTENT_REASONS:
            raise ValueError(f'{reason!r} is no rejection reason')
        super().__init__(f'{reason}: {detail}')
        self.reason, self.detail, self.component = reason, detail, component
