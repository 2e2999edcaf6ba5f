"""The plan: set-points at absolute times, spliced from chunks.

Positions and velocities are interpolated linearly between knots, grippers switch when a knot falls
due. A splice keeps what the old plan says until the first surviving row of the new chunk and fades
over a few rows (docs/execution.md), so the plan is continuous and never re-timed.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment, Kind

# Two knots closer than this are one (seconds). As a float, today's wall clock has steps of
# 2.4e-7 s.
_SAME_TIME = 1e-6


def step_columns(embodiment: Embodiment) -> np.ndarray:
    """Return [D] bool: columns that switch instead of being interpolated (grippers)."""
    return np.concatenate(
        [np.full(c.size, c.kind is Kind.GRIPPER_POSITION) for c in embodiment.action]
    )


def held_columns(embodiment: Embodiment) -> np.ndarray:
    """Return [D] bool: columns that stay where they are without a plan (positions)."""
    return np.concatenate([np.full(c.size, c.kind.is_position) for c in embodiment.action])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Set-points to follow.

    Attributes:
        times: [K] seconds, strictly increasing, K >= 1.
        values: [K, D] float64.
        first_row: index of the first knot that is a row of the newest chunk.
        switching: [D] bool, columns that are not interpolated.
        sequence_id: chunk the newest rows come from.
    """

    times: np.ndarray
    values: np.ndarray
    first_row: int
    switching: np.ndarray
    sequence_id: int

    @classmethod
    def of_chunk(cls, chunk: ActionChunk, switching: np.ndarray) -> Plan:
        """Return the rows of a chunk as they are, late ones included."""
        return cls(
            times=chunk.row_times,
            values=np.asarray(chunk.values, dtype=float),
            first_row=0,
            switching=switching,
            sequence_id=chunk.sequence_id,
        )

    @property
    def end(self) -> float:
        """Time of the last row."""
        return float(self.times[-1])

    def rows_due(self, now: float) -> int:
        """Return how many rows of the newest chunk have fallen due."""
        return int(np.count_nonzero(self.times[self.first_row :] <= now + _SAME_TIME))

    def at_anchor(self, t: float) -> bool:
        """Whether none of its rows has fallen due: it only says where it begins."""
        return t + _SAME_TIME < self.times[min(1, len(self.times) - 1)]

    def sample(self, t: float) -> np.ndarray:
        """Return the set-point [D] at time t; the nearest knot outside of the plan."""
        right = int(np.searchsorted(self.times, t + _SAME_TIME, side='right'))
        if right == 0:
            return self.values[0].copy()
        left = right - 1
        if right == len(self.times):
            return self.values[left].copy()
        span = self.times[right] - self.times[left]
        share = min(max((t - self.times[left]) / span, 0.0), 1.0)
        linear = self.values[left] + share * (self.values[right] - self.values[left])
        return np.where(self.switching, self.values[left], linear)


def splice(
    *,
    old: Plan | None,
    anchor: tuple[float, np.ndarray],
    times: np.ndarray,
    values: np.ndarray,
    rest: np.ndarray,
    holding: np.ndarray,
    switching: np.ndarray,
    blend_steps: int,
    sequence_id: int,
) -> Plan:
    """Join the surviving rows of a chunk to what is being commanded.

    Args:
        old: the plan in force, or None.
        anchor: (time, [D]): when and what was commanded last; the new plan starts there.
        times: [H] times of the surviving rows, all later than the anchor.
        values: [H, D] their set-points.
        rest: [D] what would be commanded without a plan: positions after braking, velocities
            zero.
        holding: [D] bool, columns that stay where a plan ends (positions).
        switching: [D] bool, columns that switch (never blended).
        blend_steps: n; row i < n becomes (1 - w) old(t_i) + w new with w = (i + 1) / (n + 1).
        sequence_id: of the chunk.

    Returns:
        The new plan: anchor, knots of the old plan before the first row, blended rows.
    """
    start, commanded = anchor
    values = np.array(values, dtype=float)
    going = old is not None and old.end > start + _SAME_TIME
    after = np.where(holding, old.values[-1], rest) if going else rest
    for i in range(min(blend_steps, len(values))):
        covered = old is not None and times[i] <= old.end + _SAME_TIME
        before = old.sample(times[i]) if covered else after
        weight = (i + 1) / (blend_steps + 1)
        mixed = (1.0 - weight) * before + weight * values[i]
        values[i] = np.where(switching, values[i], mixed)
    knots, rows = [start], [np.asarray(commanded, dtype=float)]
    if old is not None:
        between = (old.times > start + _SAME_TIME) & (old.times < times[0] - _SAME_TIME)
        knots.extend(old.times[between])
        rows.extend(old.values[between])
    return Plan(
        times=np.concatenate([knots, times]),
        values=np.concatenate([np.array(rows), values]),
        first_row=len(knots),
        switching=switching,
        sequence_id=sequence_id,
    )
