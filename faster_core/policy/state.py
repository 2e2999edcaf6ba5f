"""Normalisation of the proprioceptive state."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from faster_core.errors import CheckpointError, ObservationError

# A dimension that hardly moves in the data keeps this half range (SI units), so that sensor noise
# is not blown up into a signal.
MIN_HALF_RANGE = 0.02
MAX_ABS = 2.0
# So many half ranges from the centre a value is no unusual posture any more but something else:
# degrees for radians, another joint, a sensor that is off.
REFUSED_ABS = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateNormalizer:
    """Maps the 1st and 99th percentile of every dimension to -1 and 1, and clips at ±2.

    Attributes:
        centre, half_range: float32 [S], SI units.
    """

    centre: np.ndarray
    half_range: np.ndarray

    @classmethod
    def fit(cls, states: np.ndarray) -> StateNormalizer:
        """Take percentiles of states [M, S]."""
        low, high = np.percentile(states, [1, 99], axis=0)
        return cls(
            centre=((low + high) / 2).astype(np.float32),
            half_range=np.maximum((high - low) / 2, MIN_HALF_RANGE).astype(np.float32),
        )

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Return normalised states [..., S], float32."""
        scaled = (state - self.centre) / self.half_range
        return np.clip(scaled, -MAX_ABS, MAX_ABS).astype(np.float32)

    def check(self, state: np.ndarray, names: Sequence[str]) -> None:
        """Refuse a state that is nowhere near those of the data.

        Args:
            state: [S], SI units.
            names: of the dimensions.

        Raises:
            ObservationError: a value is `REFUSED_ABS` half ranges or more from the centre; names
                dimension, value and range.
        """
        far = np.abs(state - self.centre) >= REFUSED_ABS * self.half_range
        if far.any():
            i = int(np.flatnonzero(far)[0])
            low, high = self.centre[i] - self.half_range[i], self.centre[i] + self.half_range[i]
            raise ObservationError(
                f'state: {names[i]} is {state[i]:.4g}, in the data it was from {low:.4g} to '
                f'{high:.4g}: other units, another joint or a broken sensor?'
            )

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values."""
        return {'centre': self.centre.tolist(), 'half_range': self.half_range.tolist()}

    @classmethod
    def from_dict(cls, values: Any, state_dim: int) -> StateNormalizer:
        """Read plain values; CheckpointError if they do not fit `state_dim`."""
        try:
            arrays = {k: np.asarray(values[k], np.float32) for k in ('centre', 'half_range')}
        except (TypeError, KeyError, ValueError) as e:
            raise CheckpointError(f'state statistics: {e!r}') from e
        for name, array in arrays.items():
            if array.shape != (state_dim,) or not np.isfinite(array).all():
                raise CheckpointError(
                    f'state statistics: {name} must be {state_dim} finite numbers'
                )
        if (arrays['half_range'] <= 0).any():
            raise CheckpointError('state statistics: half_range must be positive')
        return cls(**arrays)
