"""Pictures a camera might send: structured enough that a JPEG has its usual size."""

from __future__ import annotations

import cv2
import numpy as np


def jpeg(width: int, height: int, seed: int = 0, quality: int = 90) -> bytes:
    """Return a JPEG file of smooth shapes with some noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (max(height // 16, 2), max(width // 16, 2), 3), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
