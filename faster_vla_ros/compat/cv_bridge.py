"""`cv_bridge`, or the conversion to RGB that is used here.

The fallback converts as the original does (ros-perception/vision_opencv) and honours `step`. All
encodings have one byte per channel, so that `is_bigendian` says nothing. 8UC3 is none of them: it
does not say which colour comes first.
"""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import Image

# encoding -> (channels, conversion to RGB). ROS names a Bayer pattern by its first four pixels,
# as OpenCV's RGGB constants do; OpenCV's older two-letter names look at the second row and column
# (BayerBG is RGGB).
ENCODINGS = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGB2RGB),
}

try:
    from cv_bridge import CvBridge, CvBridgeError

    # Its compiled part is loaded at the first image only, and fails then if it was built for
    # another NumPy.
    from cv_bridge.boost import cv_bridge_boost as _  # noqa: F401
except (ImportError, AttributeError):

    class CvBridgeError(TypeError):
        """An image could not be converted."""

    class CvBridge:
        """Converts images; same names as the real one."""

        def imgmsg_to_cv2(self, message: Image, desired_encoding: str = 'rgb8') -> np.ndarray:
            """Return RGB uint8 [height, width, 3].

            Raises:
                CvBridgeError: another encoding is wished for or found.
            """
            if desired_encoding != 'rgb8':
                raise CvBridgeError(f'expected desired_encoding rgb8, found {desired_encoding!r}')
            if message.encoding not in ENCODINGS:
                raise CvBridgeError(f'unknown encoding {message.encoding!r}')
            channels, conversion = ENCODINGS[message.encoding]
            rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
            image = rows[:, : message.width * channels]
            if conversion is None:
                return image.reshape(message.height, message.width, channels)
            image = np.ascontiguousarray(image).reshape(message.height, message.width, channels)
            return cv2.cvtColor(image, conversion)


__all__ = ['ENCODINGS', 'CvBridge', 'CvBridgeError']
