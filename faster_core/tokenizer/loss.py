"""Reconstruction loss in time and in frequency."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
import torch


def dct_matrix(size: int) -> torch.Tensor:
    """Orthonormal DCT-II [size, size]: coefficients = matrix @ signal."""
    return torch.from_numpy(dct(np.eye(size), axis=0, norm='ortho')).float()


def reconstruction_loss(
    predicted: torch.Tensor, target: torch.Tensor, basis: torch.Tensor, *, both: bool = False
) -> dict[str, torch.Tensor]:
    """Mean absolute error over time and over DCT coefficients.

    Args:
        predicted: [B, H, D] normalised.
        target: [B, H, D] normalised.
        basis: [H, H] of `dct_matrix`.
        both: transform over the action dimensions too (ours; the paper does not say).

    Returns:
        'time' and 'dct', scalars.
    """
    error = predicted - target
    coefficients = basis @ error
    if both:
        coefficients = coefficients @ dct_matrix(error.shape[2]).to(error.device).T
    return {'time': error.abs().mean(), 'dct': coefficients.abs().mean()}
