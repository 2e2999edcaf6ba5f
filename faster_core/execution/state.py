"""What the dispatcher answers with."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import enum
import math

import numpy as np

from faster_core.execution.spline import Trajectory


class Action(enum.IntEnum):
    """What is being done; the values equal `DispatcherState.ACTION_*`."""

    NONE = 0
    FOLLOW = 1
    LIMIT = 2
    HOLD = 3
    STOP = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer to enable, stop and reset; the message names the state found and the one needed."""

    success: bool
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkReport:
    """What became of one chunk.

    Attributes:
        reason: empty when accepted, else the rejection key (`errors.STATE_REASONS` and
            `errors.CONTENT_REASONS`).
        detail: the value found and the value expected.
        num_rows: rows in the chunk.
        rows_dropped: rows that came too late.
        rows_executed_of_previous: rows of the previous chunk that fell due before this one.
    """

    accepted: bool
    reason: str = ''
    detail: str = ''
    sequence_id: int = 0
    num_rows: int = 0
    rows_dropped: int = 0
    rows_executed_of_previous: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DispatcherSnapshot:
    """State at one tick; the fields are those of `DispatcherState.msg`, and one more.

    Attributes:
        components: components that caused LIMIT, HOLD or STOP.
        message: why.
        sequence_id: chunk being followed (0: none yet).
        remaining: seconds of motion left in the plan, never negative.
        num_chunks_missing: chunks whose numbers were left out between two that came.
        rejected: rejection key -> count; sums up to `num_chunks_rejected`.
    """

    action: Action
    enabled: bool
    components: tuple[str, ...]
    message: str
    sequence_id: int
    remaining: float
    num_chunks_accepted: int
    num_chunks_rejected: int
    num_chunks_missing: int
    rejected: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tick:
    """Commands of one tick.

    Attributes:
        commands: every action component -> set-point [d] (SI), or None: send nothing.
        state: what is done and why.
        goals: every position component -> where it is to go [d], without the way there: the row
            that was due last since motion was enabled, or None. For grippers that move by
            themselves.
        trajectories: component that is sent as a trajectory -> what replaces the last one; only
            in the tick in which there is something else to do than before.
        begins_in: seconds until these trajectories begin, where the controllers will be then. Who
            cannot send them by then has them put off (`Dispatcher.put_off`).
    """

    commands: Mapping[str, np.ndarray | None]
    state: DispatcherSnapshot
    goals: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)
    trajectories: Mapping[str, Trajectory] = dataclasses.field(default_factory=dict)
    begins_in: float = math.inf
