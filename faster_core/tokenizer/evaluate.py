"""How well chunks survive the tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from faster_core.embodiment import Embodiment
from faster_core.tokenizer.faster_vq import FasterVQ

# Thresholds of the valid reconstruction rate (FASTer, Eq. 4).
SIGMAS = (1e-3, 5e-3, 1e-2)


def evaluate(
    tokenizer: FasterVQ, embodiment: Embodiment, chunks: np.ndarray, batch: int = 512
) -> dict[str, Any]:
    """Reconstruct chunks [M, H, D] (SI units).

    Returns:
        'mae': mean absolute error per component, SI units; 'mae_normalized' per number of levels;
        'vrr' and 'vrr_normalized': share of values with an error below each sigma;
        'perplexity' and 'used' per level: how evenly and how many codes are used.
    """
    codes = np.concatenate(
        [tokenizer.encode(chunks[i : i + batch]) for i in range(0, len(chunks), batch)]
    )
    half_range = tokenizer.normalizer.half_range
    mae_by_levels = {}
    for levels in range(1, tokenizer.config.num_levels + 1):
        decoded = np.concatenate(
            [
                tokenizer.decode(codes[i : i + batch], num_levels=levels)
                for i in range(0, len(codes), batch)
            ]
        )
        error = np.abs(decoded - chunks)
        mae_by_levels[str(levels)] = float((error / half_range).mean())
    perplexity, used = [], []
    for level in range(tokenizer.config.num_levels):
        counts = np.bincount(codes[:, level].ravel(), minlength=tokenizer.config.codebook_size)
        share = counts[counts > 0] / counts.sum()
        perplexity.append(round(float(np.exp(-(share * np.log(share)).sum())), 1))
        used.append(float((counts > 0).mean()))
    return {
        'mae': {
            c.name: float(error[:, :, embodiment.action_slices[c.name]].mean())
            for c in embodiment.action
        },
        'mae_normalized': mae_by_levels,
        'vrr': {str(s): float((error < s).mean()) for s in SIGMAS},
        'vrr_normalized': {str(s): float((error / half_range < s).mean()) for s in SIGMAS},
        'perplexity': perplexity,
        'used': used,
    }
