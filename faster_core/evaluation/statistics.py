"""Statistics of success counts and latencies."""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), 95 % by default.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f'expected 0 <= successes <= trials > 0, found {successes} of {trials}')
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of a sample; an empty sample has none (empty mapping)."""
    if not len(values):
        return {}
    levels = np.percentile(np.asarray(values, dtype=float), [50, 95, 99])
    return {f'p{q}': round(float(v), 2) for q, v in zip((50, 95, 99), levels, strict=True)}
