"""Checks on a whole chunk: any failure rejects it, nothing of it is executed (docs/execution.md).

What depends on the robot's place (start offset) is checked against the row that is due first.
"""

from __future__ import annotations

import math

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.execution.config import ComponentConfig, DispatcherConfig
from faster_core.execution.errors import ChunkError

# The policy's period is the embodiment's up to the wire's rounding to nanoseconds.
_PERIOD_TOLERANCE = 1e-3
# A stamp may lie this far in the future: clocks of two machines (seconds).
FUTURE_TOLERANCE = 0.05


def check_layout(chunk: ActionChunk, embodiment: Embodiment) -> None:
    """Refuse another embodiment, a wrong shape, timing or values that are not finite.

    Raises:
        ChunkError: `embodiment_mismatch`, `bad_shape`, `bad_timing` or `not_finite`.
    """
    if chunk.embodiment_checksum != embodiment.checksum:
        raise ChunkError(
            'embodiment_mismatch',
            f'the chunk is for embodiment {chunk.embodiment_checksum[:12] or "(none)"}, '
            f'this is {embodiment.name} {embodiment.checksum[:12]}',
        )
    shape, horizon = np.shape(chunk.values), embodiment.action_horizon
    if len(shape) != 2 or shape[1] != embodiment.action_dim or shape[0] > horizon:
        raise ChunkError(
            'bad_shape',
            f'values are {list(shape)}, expected [at most {horizon}, {embodiment.action_dim}]',
        )
    if not math.isfinite(chunk.stamp):
        raise ChunkError('bad_timing', f'stamp {chunk.stamp}, expected seconds')
    if not shape[0]:
        return
    period = embodiment.step_period
    if not abs(chunk.step_period - period) <= _PERIOD_TOLERANCE * period:
        raise ChunkError(
            'bad_timing', f'step_period {chunk.step_period:.6f} s, expected {period:.6f} s'
        )
    if not 0.0 <= chunk.first_step_offset <= horizon * period:
        raise ChunkError(
            'bad_timing',
            f'first_step_offset {chunk.first_step_offset} s, expected 0 to {horizon * period:.3f}',
        )
    if not np.isfinite(chunk.values).all():
        row, column = np.argwhere(~np.isfinite(chunk.values))[0]
        name = _column_name(embodiment, column)
        raise ChunkError(
            'not_finite',
            f'{name} is {chunk.values[row, column]} in row {row}, expected finite numbers',
            name.partition('/')[0],
        )


def check_time(
    chunk: ActionChunk,
    embodiment: Embodiment,
    config: DispatcherConfig,
    *,
    now: float,
    newest_stamp: float,
) -> int:
    """Refuse chunks from the future, out of order, too old or with no row left.

    Returns:
        How many rows are due before `now` plus the lead and are dropped.

    Raises:
        ChunkError: `bad_timing`, `out_of_order`, `too_old` or `expired`.
    """
    if chunk.stamp > now + FUTURE_TOLERANCE:
        raise ChunkError(
            'bad_timing', f'stamp lies {chunk.stamp - now:.3f} s in the future, expected the past'
        )
    if chunk.stamp <= newest_stamp:
        raise ChunkError(
            'out_of_order', f'stamp {chunk.stamp:.3f}, expected later than {newest_stamp:.3f}'
        )
    if now - chunk.stamp > config.max_chunk_age:
        raise ChunkError(
            'too_old',
            f'observed {now - chunk.stamp:.3f} s ago, at most {config.max_chunk_age:.3f} s',
        )
    lead = config.min_lead or embodiment.step_period
    dropped = int(np.count_nonzero(chunk.row_times < now + lead))
    if dropped == chunk.num_steps:
        raise ChunkError(
            'expired',
            f'the last row is due {chunk.row_times[-1] - now:.3f} s from now, expected at least '
            f'{lead:.3f} s',
        )
    return dropped


def check_motion(
    chunk: ActionChunk, embodiment: Embodiment, config: DispatcherConfig, *, first_row: int
) -> None:
    """Refuse rows far outside of ranges and speed limits; small excess is clipped later.

    Only the rows from `first_row` on are looked at, as only they are executed.

    Raises:
        ChunkError: `position_limit` or `step_velocity`.
    """
    for c in embodiment.action:
        rows = np.asarray(chunk.component(embodiment, c.name)[first_row:], dtype=float)
        limits = config.components[c.name]
        if c.kind.is_position:
            _check_range(c, rows, limits, config.excess_tolerance)
        if c.kind is Kind.GRIPPER_POSITION:
            continue  # it switches; the limiter sets its speed
        speed = np.diff(rows, axis=0) / chunk.step_period if c.kind.is_position else rows
        allowed = limits.max_velocity * (1.0 + config.excess_tolerance)
        _refuse(c, 'step_velocity', np.abs(speed), allowed, first_row, 'speed')


def check_start(
    first: np.ndarray,
    measured: dict[str, np.ndarray],
    embodiment: Embodiment,
    config: DispatcherConfig,
) -> None:
    """Refuse a chunk whose first set-point [D] is far from where the robot is measured.

    Raises:
        ChunkError: `start_offset`.
    """
    for c in embodiment.action:
        if not c.kind.is_position:
            continue
        offset = np.abs(first[embodiment.action_slices[c.name]] - measured[c.name])
        worst, limit = int(np.argmax(offset)), config.components[c.name].max_start_offset
        if offset[worst] > limit:
            start = first[embodiment.action_slices[c.name]][worst]
            raise ChunkError(
                'start_offset',
                f'{c.name}/{c.names[worst]} would start at {start:.3f} but is at '
                f'{measured[c.name][worst]:.3f}: {offset[worst]:.3f} apart, at most {limit:.3f}',
                c.name,
            )


def _check_range(
    c: Component, rows: np.ndarray, limits: ComponentConfig, tolerance: float
) -> None:
    if np.isinf(limits.lower).all():
        return
    outside = np.maximum(limits.lower - rows, rows - limits.upper)
    if (outside > tolerance * (limits.upper - limits.lower)).any():
        row, column = np.unravel_index(np.argmax(outside), outside.shape)
        raise ChunkError(
            'position_limit',
            f'{c.name}/{c.names[column]} is {rows[row, column]:.3f}, expected '
            f'{limits.lower[column]:.3f} to {limits.upper[column]:.3f}',
            c.name,
        )


def _refuse(
    c: Component, reason: str, found: np.ndarray, allowed: np.ndarray, first: int, what: str
) -> None:
    if (found > allowed).any():
        row, column = np.unravel_index(np.argmax(found / allowed), found.shape)
        raise ChunkError(
            reason,
            f'{c.name}/{c.names[column]} has {what} {found[row, column]:.3f} in row '
            f'{first + row}, at most {allowed[column]:.3f}',
            c.name,
        )


def _column_name(embodiment: Embodiment, column: int) -> str:
    return [f'{c.name}/{n}' for c in embodiment.action for n in c.names][column]
