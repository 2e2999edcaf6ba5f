"""Rate-distortion curves: comparing tokenizers at the same number of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One operating point.

    Attributes:
        label: what was varied.
        tokens: mean number per chunk.
        vrr: VRR at 1e-3, SI units, per value.
        l1: mean absolute error, normalised.
    """

    label: str
    tokens: float
    vrr: float
    l1: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points by number of tokens, without those that more tokens make no better."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.vrr)):
        if not best or point.vrr > best[-1].vrr:
            best.append(point)
    return best


def at(points: Sequence[Point], tokens: float) -> dict[str, float] | None:
    """Interpolate VRR and L1 at a number of tokens, linear in its logarithm.

    Outside of what was measured there is no value, but for 5 % beyond either end.
    """
    curve = frontier(points)
    low, high = curve[0].tokens, curve[-1].tokens
    if not low / 1.05 <= tokens <= high * 1.05:
        return None
    x = np.log(np.clip(tokens, low, high))
    axis = np.log([p.tokens for p in curve])
    return {
        'vrr': float(np.interp(x, axis, [p.vrr for p in curve])),
        'l1': float(np.interp(x, axis, [p.l1 for p in curve])),
    }


def area(points: Sequence[Point], low: float, high: float) -> float:
    """Return the mean VRR between two numbers of tokens, over the logarithm of tokens."""
    curve = frontier(points)
    axis = np.linspace(np.log(low), np.log(high), 200)
    values = np.interp(axis, np.log([p.tokens for p in curve]), [p.vrr for p in curve])
    return float(values.mean())


def against(ours: Sequence[Point], theirs: Sequence[Point]) -> dict[str, object]:
    """Compare two curves.

    Returns:
        'matched': one row per point of theirs that ours reaches: tokens, both VRR and L1;
        'areas': mean VRR of both over the range both cover, None if there is none;
        'wins': whether ours has higher VRR and lower L1 in every row, None without rows.
    """
    matched = []
    for point in theirs:
        if (mine := at(ours, point.tokens)) is not None:
            matched.append(
                {
                    'tokens': point.tokens,
                    'label': point.label,
                    'vrr': (mine['vrr'], point.vrr),
                    'l1': (mine['l1'], point.l1),
                }
            )
    low = max(min(p.tokens for p in side) for side in (ours, theirs))
    high = min(max(p.tokens for p in side) for side in (ours, theirs))
    areas = (area(ours, low, high), area(theirs, low, high)) if low < high else None
    wins = all(r['vrr'][0] > r['vrr'][1] and r['l1'][0] < r['l1'][1] for r in matched)
    return {'matched': matched, 'areas': areas, 'wins': wins if matched else None}


def compare_curves(curves: Mapping[str, Sequence[Point]], name: str) -> dict[str, dict]:
    """Compare one tokenizer's curve with that of every other."""
    others = {k: v for k, v in curves.items() if k != name and v}
    return {other: against(curves[name], points) for other, points in others.items()}
