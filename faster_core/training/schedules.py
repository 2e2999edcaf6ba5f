"""Learning-rate schedules."""

from __future__ import annotations

import math


def cosine_schedule(progress: float, *, warmup: float, peak: float, floor: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to `floor`.

    Args:
        progress: share of the training that is done, 0 to 1.
        warmup: share of the training that warms up.
        peak: highest learning rate.
        floor: last learning rate.
    """
    if progress < warmup:
        return peak * progress / warmup
    done = min(1.0, (progress - warmup) / (1.0 - warmup))
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * done))
