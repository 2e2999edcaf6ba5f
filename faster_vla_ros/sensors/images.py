"""Camera messages to RGB arrays: right, or refused with the reason."""

from __future__ import annotations

import re

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from faster_core.errors import ObservationError
from faster_vla_ros.compat.cv_bridge import CvBridge, CvBridgeError, ENCODINGS
from faster_vla_ros.sensors.compressed import check_format, FileError, JPEG, read_header

TYPES = {'raw': Image, 'compressed': CompressedImage}
MAX_PIXELS = 64_000_000
# OpenCV returns black for a smaller mosaic.
_SMALLEST_MOSAIC = 3
_BRIDGE = CvBridge()


def check(camera: str, message: Image | CompressedImage) -> tuple[int, int]:
    """Check all that can be checked without decoding.

    Returns:
        Width and height in pixels.

    Raises:
        ObservationError: unknown encoding or format, data that does not fit the size, a file that
            is cut off or that readers would understand in several ways.
    """
    if isinstance(message, CompressedImage):
        return _check_file(camera, message, bytes(message.data))
    encoding = message.encoding
    if encoding not in ENCODINGS:
        wide = re.search(r'(16|32|64)(?!\d)', encoding)
        why = 'has more than 8 bits per channel' if wide else 'is not known'
        raise ObservationError(
            f'camera {camera}: encoding {encoding!r} {why}; expected one of {", ".join(ENCODINGS)}'
        )
    width, height, step = message.width, message.height, message.step
    fits = (
        0 < width * height <= MAX_PIXELS
        and step >= width * ENCODINGS[encoding][0]
        and len(message.data) == step * height
    )
    if not fits:
        raise ObservationError(
            f'camera {camera}: {len(message.data)} bytes do not fit {width} x {height} '
            f'{encoding} with rows of {step} bytes'
        )
    if encoding.startswith('bayer') and min(width, height) < _SMALLEST_MOSAIC:
        raise ObservationError(
            f'camera {camera}: a mosaic of {width} x {height} {encoding} has no colours; expected '
            f'at least {_SMALLEST_MOSAIC} x {_SMALLEST_MOSAIC}'
        )
    return width, height


def to_rgb(camera: str, message: Image | CompressedImage) -> np.ndarray:
    """Decode a message; alpha is dropped, grey becomes three equal channels.

    Returns:
        RGB uint8 [height, width, 3].

    Raises:
        ObservationError: as `check`, or data that cannot be decoded.
    """
    if isinstance(message, CompressedImage):
        return _decompress(camera, message)
    check(camera, message)
    try:
        return _BRIDGE.imgmsg_to_cv2(_tight(message), 'rgb8')
    except CvBridgeError as e:
        raise ObservationError(f'camera {camera}: {e}') from e


def jpeg_file(message: Image | CompressedImage) -> bytes | None:
    """Return the JPEG file a message holds; None if it holds anything else or is refused."""
    if not isinstance(message, CompressedImage):
        return None
    data = bytes(message.data)
    if not data.startswith(JPEG):
        return None
    try:
        _check_file('', message, data)
    except ObservationError:
        return None  # `to_rgb` says why
    return data


def _tight(message: Image) -> Image:
    """Return a message without padded rows, marked as little-endian.

    The real bridge shears images whose padding is no whole number of pixels (it divides `step` by
    the channels), and with NumPy 2 it fails at `is_bigendian`, which says nothing about bytes.
    """
    width = message.width * ENCODINGS[message.encoding][0]
    if message.step == width and not message.is_bigendian:
        return message
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    tight = Image(
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        step=width,
    )
    tight.data.frombytes(rows[:, :width].tobytes())
    return tight


def _check_file(camera: str, message: CompressedImage, data: bytes) -> tuple[int, int]:
    found = f'camera {camera}: {len(data)} bytes of format {message.format!r}'
    try:
        check_format(message.format)
    except FileError as e:
        raise ObservationError(f'camera {camera}: format {message.format!r} {e}') from e
    try:
        header = read_header(data)
    except FileError as e:
        raise ObservationError(f'{found} {e}') from e
    if header.width * header.height > MAX_PIXELS:
        raise ObservationError(
            f'{found} are an image of {header.width} x {header.height} pixels; expected at most '
            f'{MAX_PIXELS}'
        )
    return header.width, header.height


def _decompress(camera: str, message: CompressedImage) -> np.ndarray:
    data = bytes(message.data)
    width, height = _check_file(camera, message, data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # what OpenCV refuses by itself
        image = None
    if image is None or image.shape != (height, width, 3):
        raise ObservationError(
            f'camera {camera}: {len(data)} bytes of format {message.format!r} are not an image'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
