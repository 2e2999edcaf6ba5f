"""Per-dimension percentile normalisation of actions that survives near-constant dimensions."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from faster_core.embodiment import Embodiment, Kind
from faster_core.errors import CheckpointError

# Least half range per kind, SI units: a dimension that hardly moves in the data must not have its
# noise blown up to full scale, and must still decode to what it was.
MIN_HALF_RANGE: Mapping[Kind, float] = {
    Kind.JOINT_POSITION: 0.05,
    Kind.JOINT_VELOCITY: 0.05,
    Kind.EE_POSE: 0.02,
    Kind.TWIST: 0.05,
    Kind.EE_DELTA: 0.001,
    Kind.GRIPPER_POSITION: 0.01,
}
# Normalised values beyond are clipped: rare outliers of the data, 50 % beyond the percentiles.
MAX_ABS = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionNormalizer:
    """Maps the 1st and 99th percentile of every dimension to -1 and 1.

    Attributes:
        centre, half_range: float32 [D], SI units.
        largest_step: float32 [D], the largest change from one row to the next in the data; None
            if it was not recorded.
    """

    centre: np.ndarray
    half_range: np.ndarray
    largest_step: np.ndarray | None = None

    @classmethod
    def fit(cls, chunks: np.ndarray, embodiment: Embodiment) -> ActionNormalizer:
        """Take percentiles of the rows, and the largest steps, of chunks [M, H, D]."""
        low, high = np.percentile(chunks.reshape(-1, chunks.shape[-1]), [1, 99], axis=0)
        least = np.concatenate(
            [np.full(c.size, MIN_HALF_RANGE[c.kind]) for c in embodiment.action]
        )
        return cls(
            centre=((low + high) / 2).astype(np.float32),
            half_range=np.maximum((high - low) / 2, least).astype(np.float32),
            largest_step=np.abs(np.diff(chunks, axis=1)).max(axis=(0, 1)).astype(np.float32),
        )

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Physical to normalised [..., D], clipped at ±1.5."""
        scaled = (actions - self.centre) / self.half_range
        return np.clip(scaled, -MAX_ABS, MAX_ABS).astype(np.float32)

    def denormalize(self, values: np.ndarray) -> np.ndarray:
        """Normalised to physical [..., D]; clips at ±1.5 first, so the result is bounded."""
        clipped = np.clip(values, -MAX_ABS, MAX_ABS)
        return (clipped * self.half_range + self.centre).astype(np.float32)

    def limit_steps(self, rows: np.ndarray) -> np.ndarray:
        """Let no row of chunks [..., H, D] differ more from the row before than in the data.

        Codes of neighbouring time slots are chosen one after the other and need not fit
        perfectly; what lags behind such a jump catches up in the rows that follow it.
        """
        if self.largest_step is None:
            return rows
        if (np.abs(np.diff(rows, axis=-2)) <= self.largest_step).all():
            return rows
        limited = rows.copy()
        for t in range(1, rows.shape[-2]):
            before = limited[..., t - 1, :]
            step = rows[..., t, :] - before
            limited[..., t, :] = before + np.clip(step, -self.largest_step, self.largest_step)
        return limited

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values."""
        values = {'centre': self.centre, 'half_range': self.half_range}
        if self.largest_step is not None:
            values['largest_step'] = self.largest_step
        return {name: array.tolist() for name, array in values.items()}

    @classmethod
    def from_dict(cls, values: Any, action_dim: int) -> ActionNormalizer:
        """Read plain values; CheckpointError if they do not fit `action_dim`."""
        names = ['centre', 'half_range']
        try:
            names += ['largest_step'] if 'largest_step' in values else []
            arrays = {k: np.asarray(values[k], np.float32) for k in names}
        except (TypeError, KeyError, ValueError) as e:
            raise CheckpointError(f'action statistics: {e!r}') from e
        for name, array in arrays.items():
            if array.shape != (action_dim,) or not np.isfinite(array).all():
                raise CheckpointError(
                    f'action statistics: {name} must be {action_dim} finite numbers'
                )
        if (arrays['half_range'] <= 0).any():
            raise CheckpointError('action statistics: half_range must be positive')
        if (arrays.get('largest_step', np.zeros(1)) < 0).any():
            raise CheckpointError('action statistics: largest_step must not be negative')
        return cls(**arrays)
