"""What is measured about a tokenizer, as functions of numbers: no tokenizer, no files.

Truth is never clipped: what a tokenizer cannot represent counts as its error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Thresholds of the valid reconstruction rate (FASTer, Eq. 4).
SIGMAS = (1e-3, 5e-3, 1e-2)
# Dimensions that move less than this in the data (standard deviation, SI units) are left out.
NEAR_CONSTANT = 1e-4


def sigma_name(sigma: float) -> str:
    """Write 0.001 as '1e-3', as the keys of reports do."""
    mantissa, exponent = f'{sigma:.0e}'.split('e')
    return f'{mantissa}e{int(exponent)}'


def moving_dimensions(truth: np.ndarray) -> np.ndarray:
    """Return bool [D]: which dimensions of chunks [M, H, D] move at all."""
    spread = truth.reshape(-1, truth.shape[-1]).astype(np.float64).std(axis=0)
    return spread >= NEAR_CONSTANT


def vrr(error: np.ndarray, sigma: float, norm: str) -> float:
    """Return the valid reconstruction rate: the share of errors [M, H, D] below sigma.

    Args:
        error: truth minus reconstruction, physical or normalised.
        sigma: threshold, same unit.
        norm: 'dim': every value on its own; 'step_l1', 'step_l2': all dimensions of a row
            together, as Eq. 4 (L1) and the paper's prose (Euclidean) have it.
    """
    if norm == 'dim':
        return float((np.abs(error) < sigma).mean())
    if norm == 'step_l1':
        return float((np.abs(error).sum(axis=-1) < sigma).mean())
    if norm == 'step_l2':
        return float((np.square(error).sum(axis=-1) < sigma**2).mean())
    raise ValueError(f"norm: expected 'dim', 'step_l1' or 'step_l2', found {norm!r}")


def vrr_table(error: np.ndarray, half_range: np.ndarray) -> dict[str, float]:
    """Return all variants, e.g. 'phys_dim_1e-3', 'norm_step_l2_1e-2'; error [M, H, D] physical."""
    variants = {'phys': error, 'norm': error / half_range}
    return {
        f'{unit}_{norm}_{sigma_name(sigma)}': vrr(values, sigma, norm)
        for unit, values in variants.items()
        for norm in ('dim', 'step_l1', 'step_l2')
        for sigma in SIGMAS
    }


def code_statistics(counts: np.ndarray) -> dict[str, float]:
    """Return how well codes are used.

    Args:
        counts: [K] how often every code was chosen.

    Returns:
        'code_use': share of codes chosen at least once; 'perplexity'; 'entropy': normalised by
        that of uniform use; 'largest_code': share of the most frequent one.
    """
    shares = counts[counts > 0] / max(counts.sum(), 1)
    entropy = float(-(shares * np.log(shares)).sum())
    return {
        'code_use': float((counts > 0).mean()),
        'perplexity': float(np.exp(entropy)),
        'entropy': entropy / float(np.log(len(counts))) if len(counts) > 1 else 0.0,
        'largest_code': float(shares.max(initial=0.0)),
    }


def border_jump(
    truth: Sequence[np.ndarray], decoded: Sequence[np.ndarray], half_range: np.ndarray, rate: float
) -> float | None:
    """Return the mean error of velocity from one chunk's last row to the next one's first.

    Args:
        truth: per episode chunks [M_i, H, D] that follow each other without overlap.
        decoded: what became of them.
        half_range: [D], what is 1 in normalised units.
        rate: rows per second.

    Returns:
        Normalised units per second; None if no episode has two chunks.
    """
    errors = []
    for real, made in zip(truth, decoded, strict=True):
        if len(real) > 1:
            steps = [(c[1:, 0] - c[:-1, -1]) for c in (real, made)]
            errors.append(np.abs(steps[0] - steps[1]) / half_range * rate)
    return float(np.concatenate(errors).mean()) if errors else None


def transition_timing(
    truth: np.ndarray, decoded: np.ndarray, rate: float
) -> dict[str, float | int | None]:
    """Compare when a gripper crosses the middle of its way.

    Args:
        truth: [M, H] of one gripper dimension.
        decoded: what became of it.
        rate: rows per second.

    Returns:
        'transitions' in the truth, 'missed': share of them without one in the same direction in
        the decoded chunk, 'error_ms': mean distance of the others (None if there are none).
    """
    middle = (truth.min() + truth.max()) / 2
    real, made = (
        np.diff((values > middle).astype(np.int8), axis=1) for values in (truth, decoded)
    )
    errors, missed, count = [], 0, 0
    for m, t in np.argwhere(real != 0):
        count += 1
        candidates = np.flatnonzero(made[m] == real[m, t])
        if len(candidates):
            errors.append(np.abs(candidates - t).min())
        else:
            missed += 1
    return {
        'transitions': count,
        'missed': missed / count if count else None,
        'error_ms': float(np.mean(errors)) / rate * 1e3 if errors else None,
    }
