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
    Kind.GRIPPER_POSITION: 0.01,
}
# Normalised values beyond are clipped: rare outliers of the data, 50 % beyond the percentiles.
MAX_ABS = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionNormalizer:
    """Maps the 1st and 99th percentile of every dimension to -1 and 1.

    Attributes:
        centre, half_range: float32 [D], SI units.
    """

    centre: np.ndarray
    half_range: np.ndarray

    @classmethod
    def fit(cls, actions: np.ndarray, embodiment: Embodiment) -> ActionNormalizer:
        """Take percentiles of actions [M, D]."""
        low, high = np.percentile(actions, [1, 99], axis=0)
        least = np.concatenate(
            [np.full(c.size, MIN_HALF_RANGE[c.kind]) for c in embodiment.action]
        )
        return cls(
            centre=((low + high) / 2).astype(np.float32),
            half_range=np.maximum((high - low) / 2, least).astype(np.float32),
        )

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Physical to normalised [..., D], clipped at ±1.5."""
        scaled = (actions - self.centre) / self.half_range
        return np.clip(scaled, -MAX_ABS, MAX_ABS).astype(np.float32)

    def denormalize(self, values: np.ndarray) -> np.ndarray:
        """Normalised to physical [..., D]; clips at ±1.5 first, so the result is bounded."""
        clipped = np.clip(values, -MAX_ABS, MAX_ABS)
        return (clipped * self.half_range + self.centre).astype(np.float32)

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values."""
        return {'centre': self.centre.tolist(), 'half_range': self.half_range.tolist()}

    @classmethod
    def from_dict(cls, values: Any, action_dim: int) -> ActionNormalizer:
        """Read plain values; CheckpointError if they do not fit `action_dim`."""
        try:
            arrays = {k: np.asarray(values[k], np.float32) for k in ('centre', 'half_range')}
        except (TypeError, KeyError, ValueError) as e:
            raise CheckpointError(f'action statistics: {e!r}') from e
        for name, array in arrays.items():
            if array.shape != (action_dim,) or not np.isfinite(array).all():
                raise CheckpointError(
                    f'action statistics: {name} must be {action_dim} finite numbers'
                )
        if (arrays['half_range'] <= 0).any():
            raise CheckpointError('action statistics: half_range must be positive')
        return cls(**arrays)
