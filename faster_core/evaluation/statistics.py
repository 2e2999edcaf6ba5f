"""Statistics of success counts and latencies."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from faster_core.chunk import StageTiming


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


def stage_percentiles(timings: Sequence[StageTiming]) -> dict[str, dict[str, float]]:
    """Return percentiles of the milliseconds of every stage, by the stage's field name.

    `decode_block_ms` is about single blocks; one more entry, `decode_ms`, about their sum in an
    inference.
    """
    if not timings:
        return {}
    stages: dict[str, dict[str, float]] = {}
    for field in dataclasses.fields(StageTiming):
        values = [getattr(t, field.name) for t in timings]
        if field.name == 'decode_block_ms':
            stages[field.name] = percentiles([block for blocks in values for block in blocks])
            stages['decode_ms'] = percentiles([sum(blocks) for blocks in values])
        else:
            stages[field.name] = percentiles(values)
    return stages


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: how likely pairs disagree so one-sidedly by chance.

    Args:
        only_first: pairs in which only the first succeeded.
        only_second: pairs in which only the second succeeded.

    Returns:
        p value; 1.0 without disagreement.

    Raises:
        ValueError: a negative count.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f'expected counts >= 0, found {only_first} and {only_second}')
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**discordant)
