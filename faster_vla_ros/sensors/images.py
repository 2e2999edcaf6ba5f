"""Camera messages to RGB arrays."""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from faster_core.errors import ObservationError
from faster_vla_ros.compat.cv_bridge import CvBridge, CvBridgeError, ENCODINGS

TYPES = {'raw': Image, 'compressed': CompressedImage}
MAX_PIXELS = 64_000_000
_BRIDGE = CvBridge()
_JPEG = b'\xff\xd8\xff'


def to_rgb(camera: str, message: Image | CompressedImage) -> np.ndarray:
    """Decode a message.

    Returns:
        RGB uint8 [height, width, 3].

    Raises:
        ObservationError: unknown encoding, data that does not fit the size, damaged or empty data.
    """
    if isinstance(message, CompressedImage):
        return _decompress(camera, message)
    if message.encoding not in ENCODINGS:
        raise ObservationError(
            f'camera {camera}: unknown encoding {message.encoding!r}; known: '
            f'{", ".join(ENCODINGS)}'
        )
    channels = ENCODINGS[message.encoding][0]
    pixels = message.width * message.height
    fits = (
        0 < pixels <= MAX_PIXELS
        and message.step >= message.width * channels
        and len(message.data) == message.step * message.height
    )
    if not fits:
        raise ObservationError(
            f'camera {camera}: {len(message.data)} bytes do not fit {message.width} x '
            f'{message.height} {message.encoding} with rows of {message.step} bytes'
        )
    try:
        return _BRIDGE.imgmsg_to_cv2(message, 'rgb8')
    except CvBridgeError as e:
        raise ObservationError(f'camera {camera}: {e}') from e


def jpeg_file(message: Image | CompressedImage) -> bytes | None:
    """Return the JPEG file a message holds; None if it holds anything else."""
    if not isinstance(message, CompressedImage):
        return None
    data = bytes(message.data)
    return data if data.startswith(_JPEG) else None


def _decompress(camera: str, message: CompressedImage) -> np.ndarray:
    data = np.frombuffer(message.data, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:  # a header that promises more pixels than OpenCV accepts
        image = None
    if image is None:
        raise ObservationError(
            f'camera {camera}: {data.size} bytes of format {message.format!r} are not an image'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
