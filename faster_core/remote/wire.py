"""What travels between policy server and client: msgpack maps, arrays as plain bytes, no pickle.

An array is `{'dtype', 'shape', 'data'}` (little-endian, C order); an image is such a map, or the
bytes of a JPEG file. Everything that arrives is checked first: exact keys, types, sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import math
import struct
from typing import Any

import cv2
import msgpack
import numpy as np

from faster_core.chunk import ActionChunk, StageTiming
from faster_core.embodiment import Embodiment
from faster_core.errors import (
    DecodeError,
    EmbodimentError,
    ObservationError,
    RemoteProtocolError,
)
from faster_core.observation import Observation

# Of one image; a JPEG of a few bytes can promise gigabytes.
MAX_PIXELS = 16_000_000
MAX_DIMENSIONS = 4
JPEG_QUALITY = 95
IMAGES = ('jpeg', 'raw')

_DTYPES = {
    'uint8': np.dtype('<u1'),
    'int32': np.dtype('<i4'),
    'int64': np.dtype('<i8'),
    'float32': np.dtype('<f4'),
    'float64': np.dtype('<f8'),
}
_TIMING = {
    f.name: list if isinstance(f.default, tuple) else float
    for f in dataclasses.fields(StageTiming)
}
_NONE = type(None)


def pack(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes."""
    return msgpack.packb(message, use_bin_type=True, unicode_errors='surrogatepass')


def unpack(data: bytes) -> Any:
    """Return what `pack` was given; RemoteProtocolError for anything that is not msgpack."""
    try:
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, unicode_errors='surrogatepass'
        )
    except (ValueError, msgpack.UnpackException) as e:  # ValueError: truncated, or too much
        raise RemoteProtocolError(f'{len(data)} bytes are no message: {e}') from e


def fields(value: Any, where: str, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Check a map that came over the wire.

    Args:
        value: what came.
        where: name of the map in error messages.
        kinds: key -> type, or types; a bool is no number.

    Returns:
        The map itself.

    Raises:
        RemoteProtocolError: no map, an unknown or missing key, a value of another type.
    """
    if not isinstance(value, dict):
        raise RemoteProtocolError(f'{where}: expected a map, found {type(value).__name__}')
    if missing := sorted(set(kinds) - set(value)):
        raise RemoteProtocolError(f'{where}: missing {", ".join(missing)}')
    if unknown := sorted(map(str, set(value) - set(kinds))):
        raise RemoteProtocolError(f'{where}: unknown {", ".join(unknown)}')
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if type(value[name]) not in allowed:
            raise RemoteProtocolError(
                f'{where}.{name}: expected {" or ".join(k.__name__ for k in allowed)}, found '
                f'{type(value[name]).__name__}'
            )
    return value


# --- arrays and images ---------------------------------------------------------------------------


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """Return an array as a map; numbers of a type that is not on the wire become float64."""
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        if array.dtype.kind not in 'fiu':
            raise ValueError(f'expected numbers, found {array.dtype}')
        array = array.astype(np.float64)
    name = array.dtype.name
    # tobytes: C order, whatever the strides.
    data = array.astype(_DTYPES[name], copy=False).tobytes()
    return {'dtype': name, 'shape': list(array.shape), 'data': data}


def decode_array(value: Any, where: str) -> np.ndarray:
    """Return the array of a map, read-only (RemoteProtocolError)."""
    f = fields(value, where, dtype=str, shape=list, data=bytes)
    dtype, shape = _DTYPES.get(f['dtype']), f['shape']
    if dtype is None:
        raise RemoteProtocolError(
            f'{where}: expected one of {", ".join(_DTYPES)}, found {f["dtype"]!r}'
        )
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise RemoteProtocolError(f'{where}: {shape!r} is no shape')
    if len(f['data']) != (expected := math.prod(shape) * dtype.itemsize):
        raise RemoteProtocolError(
            f'{where}: {f["dtype"]} {shape} has {expected} bytes, found {len(f["data"])}'
        )
    # Shapes without elements may still hold numbers NumPy cannot address.
    try:
        array = np.frombuffer(f['data'], dtype).reshape(shape)
    except ValueError as e:
        raise RemoteProtocolError(f'{where}: {shape} is no shape: {e}') from e
    return array.astype(dtype.newbyteorder('='), copy=False)


def encode_jpeg(image: np.ndarray) -> bytes:
    """Return RGB uint8 [height, width, 3] as a JPEG file of `JPEG_QUALITY`."""
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ObservationError(f'an image of shape {list(image.shape)} cannot become a JPEG')
    return data.tobytes()


def decode_jpeg(camera: str, data: bytes) -> np.ndarray:
    """Return a JPEG file as RGB uint8 [height, width, 3]; ObservationError if it is none."""
    pixels = jpeg_pixels(data)
    if pixels > MAX_PIXELS:
        raise ObservationError(
            f'camera {camera}: {pixels} pixels, at most {MAX_PIXELS} are accepted'
        )
    image = None
    if pixels:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # the header is fine, what follows is not
            image = None
    if image is None:
        raise ObservationError(f'camera {camera}: {len(data)} bytes are not a JPEG image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def jpeg_pixels(data: bytes) -> int:
    """Return width x height that the header of a JPEG file promises; 0 without such a header.

    Read from the frame header (SOFn, ITU T.81 B.2.2) before a decoder allocates anything.
    """
    position = 2 if data[:2] == b'\xff\xd8' else len(data)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no parameters
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from('>HH', data, position + 5)
            return height * width
        else:
            position += 2 + struct.unpack_from('>H', data, position + 2)[0]
    return 0


# --- observations and chunks ---------------------------------------------------------------------


def encode_observation(observation: Observation, images: str) -> dict[str, Any]:
    """Return an observation as a map.

    Args:
        observation: its images are uint8 [height, width, 3], or JPEG files (bytes) already.
        images: 'jpeg' or 'raw': how arrays are sent. What is a JPEG stays one.
    """
    encode = encode_jpeg if images == 'jpeg' else encode_array
    return {
        'images': {
            camera: bytes(image) if isinstance(image, bytes) else encode(image)
            for camera, image in observation.images.items()
        },
        'state': encode_array(observation.state),
        'instruction': observation.instruction,
        'stamp': float(observation.stamp),
    }


def decode_observation(
    value: Any,
    *,
    parallel: Callable[..., Iterable[np.ndarray]] = map,
    parallel_bytes: int = 0,
) -> Observation:
    """Return the observation of a map; whether it fits a robot is `Observation.validate`'s task.

    Args:
        value: the map.
        parallel: `map`, or an executor's that decodes JPEG files side by side ...
        parallel_bytes: ... if there are so many bytes of them.

    Raises:
        RemoteProtocolError: no such map.
        ObservationError: an image is damaged or too large.
    """
    f = fields(value, 'observation', images=dict, state=dict, instruction=str, stamp=float)
    cameras, images = list(f['images']), list(f['images'].values())
    num_bytes = sum(len(image) for image in images if isinstance(image, bytes))
    run = parallel if num_bytes >= parallel_bytes else map
    return Observation(
        images=dict(zip(cameras, run(_decode_image, cameras, images), strict=True)),
        state=decode_array(f['state'], 'observation.state'),
        instruction=f['instruction'],
        stamp=f['stamp'],
    )


def _decode_image(camera: str, value: Any) -> np.ndarray:
    if isinstance(value, bytes):
        return decode_jpeg(camera, value)
    return decode_array(value, f'observation.images.{camera}')


def encode_chunk(chunk: ActionChunk) -> dict[str, Any]:
    """Return a chunk as a map."""
    return {
        'values': encode_array(chunk.values),
        'stamp': float(chunk.stamp),
        'first_step_offset': float(chunk.first_step_offset),
        'step_period': float(chunk.step_period),
        'sequence_id': int(chunk.sequence_id),
        'embodiment_checksum': chunk.embodiment_checksum,
        'codes': None if chunk.codes is None else encode_array(chunk.codes),
        'num_levels': chunk.num_levels,
        'log_prob': _floats(chunk.log_prob),
        'entropy': _floats(chunk.entropy),
        'timing': {
            name: _floats(value) if isinstance(value, tuple) else float(value)
            for name, value in vars(chunk.timing).items()
        },
    }


def decode_chunk(value: Any, embodiment: Embodiment) -> ActionChunk:
    """Return the chunk of a map.

    Raises:
        RemoteProtocolError: no such map, values that are not [H, D], a time that is not finite.
        EmbodimentError: the chunk is for another embodiment.
        DecodeError: a value is not finite.
    """
    f = fields(
        value,
        'chunk',
        values=dict,
        stamp=float,
        first_step_offset=float,
        step_period=float,
        sequence_id=int,
        embodiment_checksum=str,
        codes=(dict, _NONE),
        num_levels=(int, _NONE),
        log_prob=list,
        entropy=list,
        timing=dict,
    )
    if f['embodiment_checksum'] != embodiment.checksum:
        raise EmbodimentError(
            f'chunk: made for an embodiment {f["embodiment_checksum"][:12]}…, expected '
            f'{embodiment.checksum[:12]}… ({embodiment.name})'
        )
    values = decode_array(f['values'], 'chunk.values')
    if values.ndim != 2 or values.shape[1] != embodiment.action_dim or values.dtype.kind != 'f':
        raise RemoteProtocolError(
            f'chunk.values: expected numbers [H, {embodiment.action_dim}], found {values.dtype} '
            f'{list(values.shape)}'
        )
    if not np.isfinite(values).all():
        raise DecodeError('the decoded chunk is not finite')
    for name in ('stamp', 'first_step_offset', 'step_period'):
        if not math.isfinite(f[name]):
            raise RemoteProtocolError(f'chunk.{name}: expected a finite number, found {f[name]}')
    codes = f['codes'] if f['codes'] is None else decode_array(f['codes'], 'chunk.codes').copy()
    return ActionChunk(
        **{
            **f,
            'values': values.copy(),
            'codes': codes,
            'log_prob': _tuple(f['log_prob'], 'chunk.log_prob'),
            'entropy': _tuple(f['entropy'], 'chunk.entropy'),
            'timing': _decode_timing(f['timing']),
        }
    )


def _decode_timing(value: Any) -> StageTiming:
    f = fields(value, 'chunk.timing', **_TIMING)
    lists = {
        name: _tuple(v, f'chunk.timing.{name}') for name, v in f.items() if isinstance(v, list)
    }
    return StageTiming(**(f | lists))


def _floats(values: Iterable[float]) -> list[float]:
    return [float(v) for v in values]


def _tuple(values: list, where: str) -> tuple[float, ...]:
    if not all(type(v) is float for v in values):
        raise RemoteProtocolError(f'{where}: expected numbers')
    return tuple(values)
