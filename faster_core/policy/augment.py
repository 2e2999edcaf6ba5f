"""Augmentation of a batch of images: small shifts, brightness and contrast."""

from __future__ import annotations

import numpy as np


def augment(
    images: np.ndarray, rng: np.random.Generator, *, max_shift: int, colour: float
) -> np.ndarray:
    """Shift every image by up to `max_shift` pixels (edges repeat) and change its colours.

    Args:
        images: uint8 [B, cameras, size, size, 3].
        rng: source of randomness.
        max_shift: pixels.
        colour: brightness and contrast change by up to this share.

    Returns:
        uint8 of the same shape.
    """
    batch, cameras, size = images.shape[:3]
    if max_shift:
        shifts = rng.integers(-max_shift, max_shift + 1, (2, batch, cameras, 1))
        rows, columns = np.clip(np.arange(size) + shifts, 0, size - 1)
        b = np.arange(batch)[:, None, None, None]
        c = np.arange(cameras)[:, None, None]
        images = images[b, c, rows[:, :, :, None], columns[:, :, None, :]]
    if colour:
        shape = (batch, cameras, 1, 1, 1)
        gain = 1 + rng.uniform(-colour, colour, shape).astype(np.float32)
        offset = 128 * rng.uniform(-colour, colour, shape).astype(np.float32)
        images = np.clip((images - np.float32(128)) * gain + (128 + offset), 0, 255)
    return images.astype(np.uint8)
