"""From a camera image of any size to the policy's square input."""

from __future__ import annotations

import cv2
import numpy as np


def to_square(image: np.ndarray, size: int) -> np.ndarray:
    """Crop the centre square and resize it by area.

    Args:
        image: RGB uint8 [height, width, 3].
        size: side of the result, pixels.

    Returns:
        RGB uint8 [size, size, 3]; the image itself if it has that size.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    shrink = side >= size
    return cv2.resize(
        square, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
