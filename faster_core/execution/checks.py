"""Checks on a whole chunk: any failure rejects all of it, and nothing changes."""

from __future__ import annotations

import dataclasses

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment, Kind
from faster_core.execution.config import DispatcherConfig

# Excess over a limit up to this share is clipped and reported, beyond it is a rejection.
TOLERATED_EXCESS = 0.1
# Rejections that speak of an unfit policy; so many in a row latch a stop.
VIOLATIONS = frozenset(
    {
        'embodiment_mismatch',
        'bad_shape',
        'not_finite',
        'start_offset',
        'position_limit',
        'step_velocity',
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why a chunk is not executed: a key that is counted, and a sentence with the values."""

    reason: str
    detail: str


def check_content(chunk: ActionChunk, embodiment: Embodiment) -> Rejection | None:
    """Check what does not depend on time: checksum, shape, finite values, positive period."""
    if chunk.embodiment_checksum != embodiment.checksum:
        return Rejection(
            reason='embodiment_mismatch',
            detail=f'chunk made for embodiment {chunk.embodiment_checksum[:12] or "(none)"}, '
            f'this dispatcher has {embodiment.checksum[:12]}',
        )
    shape, period = chunk.values.shape, chunk.step_period
    if len(shape) != 2 or shape[1] != embodiment.action_dim:
        return Rejection(
            reason='bad_shape',
            detail=f'expected [rows, {embodiment.action_dim}], found {list(shape)}',
        )
    if not (np.isfinite(period) and period > 0 and np.isfinite(chunk.first_step_offset)):
        return Rejection(reason='bad_shape', detail=f'step_period {period} s is not positive')
    if not np.isfinite(chunk.values).all():
        bad = [
            c.name
            for c in embodiment.action
            if not np.isfinite(chunk.component(embodiment, c.name)).all()
        ]
        return Rejection(reason='not_finite', detail=f'not finite: {", ".join(bad)}')
    return None


def check_limits(
    values: np.ndarray, period: float, embodiment: Embodiment, config: DispatcherConfig
) -> Rejection | None:
    """Check rows [n, D] against position and velocity limits with 10 % tolerance."""
    for c in embodiment.action:
        limits = config.components[c.name]
        rows = values[:, embodiment.action_slices[c.name]]
        if c.kind.is_position and limits.position_limits:
            low, high = np.array(limits.position_limits).T
            slack = TOLERATED_EXCESS * (high - low)
            if found := _first_outside(rows, low - slack, high + slack):
                row, k = found
                return Rejection(
                    reason='position_limit',
                    detail=f'{c.name}/{c.names[k]} row {row}: {rows[row, k]:.3f} is outside '
                    f'{low[k]:.3f}..{high[k]:.3f}',
                )
        if c.kind is Kind.GRIPPER_POSITION:
            continue  # grippers switch: the limiter turns the step into a ramp
        speed = np.diff(rows, axis=0) / period if c.kind.is_position else rows
        most = np.array(limits.max_velocity) * (1 + TOLERATED_EXCESS)
        if found := _first_outside(speed, -most, most):
            row, k = found
            return Rejection(
                reason='step_velocity',
                detail=f'{c.name}/{c.names[k]} row {row}: speed {speed[row, k]:.3f} is above '
                f'{limits.max_velocity[k]:.3f}',
            )
    return None


def check_start(
    first: np.ndarray,
    measured: dict[str, np.ndarray],
    embodiment: Embodiment,
    config: DispatcherConfig,
) -> Rejection | None:
    """Check the first used row [D] against the measured positions."""
    for c in embodiment.action:
        if not c.kind.is_position:
            continue
        most = config.components[c.name].max_start_offset
        if c.name not in measured:
            return Rejection(reason='start_offset', detail=f'no feedback of {c.name} yet')
        offset = np.abs(first[embodiment.action_slices[c.name]] - measured[c.name])
        k = int(offset.argmax())
        if offset[k] > most:
            return Rejection(
                reason='start_offset',
                detail=f'{c.name}/{c.names[k]} starts {offset[k]:.3f} from the measured position, '
                f'at most {most:.3f} is allowed',
            )
    return None


def _first_outside(
    values: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[int, int] | None:
    outside = np.argwhere((values < low) | (values > high))
    return (int(outside[0][0]), int(outside[0][1])) if len(outside) else None
