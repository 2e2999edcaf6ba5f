"""What a compressed image says about itself, before it is decoded.

Decoders are generous: they scale 16 bits to 8, turn a photograph by its EXIF tag, fill the missing
end of a file with grey. All of it would reach the policy without a word, so it is refused here.
"""

from __future__ import annotations

import dataclasses
import re
import struct

JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
# Of the camera; `image_transport` names it before the semicolon.
_COLOUR = ('rgb8', 'bgr8', 'rgba8', 'bgra8')
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_START_OF_FRAME = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}


class FileError(ValueError):
    """A file cannot be used; the text says what was found and what is expected."""


@dataclasses.dataclass(frozen=True)
class FileHeader:
    """Width and height of an image file (pixels)."""

    width: int
    height: int


def check_format(text: str) -> None:
    """Check what the `format` of a `CompressedImage` says about colours.

    `image_transport` writes `<encoding of the camera>; <codec> compressed <encoding in the
    file>`, e.g. 'rgb8; jpeg compressed bgr8': a plain JPEG file. 'compressed rgb8' means that red
    and blue are exchanged in the file to some readers (image_transport) and nothing to others
    (cv_bridge, Foxglove). A text without semicolon ('jpeg', 'png', '') leaves all to the file.

    Raises:
        FileError: the pixels are no 8-bit colours, or readers differ about their order.
    """
    original, semicolon, rest = (part.strip() for part in text.partition(';'))
    if 'compresseddepth' in text.lower():
        raise FileError('is a depth image; expected JPEG or PNG of 8-bit colours')
    if semicolon and original not in (*_COLOUR, 'mono8'):
        raise FileError(
            f'is made of {original!r}; expected one of {", ".join((*_COLOUR, "mono8"))}'
        )
    found = re.search(r'compressed\s*(\w*)', rest if semicolon else text)
    target = found[1] if found else ''
    plain = not semicolon or original == 'mono8'
    if target != 'bgr8' and not (plain and target in ('', 'mono8')):
        raise FileError(
            f'says that {target or "something"} was compressed, and readers differ whether red '
            f'and blue are exchanged then; expected bgr8'
        )


def read_header(data: bytes) -> FileHeader:
    """Read the header of a whole JPEG or PNG file.

    Raises:
        FileError: another kind of file, not 8 bits per channel, not grey or colour, turned by
            EXIF, or cut off.
    """
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(PNG):
        return _png(data)
    raise FileError('are not an image of type JPEG or PNG')


def _jpeg(data: bytes) -> FileHeader:
    """Walk the segments up to the first scan (ITU-T T.81, annex B)."""
    at, header = 2, None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from('>H', data, at + 2)
        segment = data[at + 4 : at + 2 + length]
        if marker in _START_OF_FRAME and len(segment) >= 6:
            header = _frame(segment)
        elif marker in _OTHER_FRAMES:
            raise FileError('are a JPEG of a rare kind; expected baseline or progressive')
        elif marker == 0xE1 and segment.startswith(b'Exif\0\0'):
            _refuse_turned(segment[6:])
        elif marker == 0xDA and header is not None:
            # Within a scan 0xFF is always followed by 0, so this is the end of the image.
            if data.rfind(b'\xff\xd9', at) < 0:
                raise FileError('are a JPEG that is cut off')
            return header
        at += 2 + length
    raise FileError('are not an image: a JPEG without picture')


def _frame(segment: bytes) -> FileHeader:
    bits, height, width, channels = struct.unpack_from('>BHHB', segment)
    if bits != 8:
        raise FileError(f'are a JPEG of {bits} bits per channel; expected 8')
    if channels not in (1, 3):
        raise FileError(f'are a JPEG of {channels} channels; expected 1 (grey) or 3 (colour)')
    return _size(width, height)


def _png(data: bytes) -> FileHeader:
    """Walk the chunks up to the end (W3C PNG, section 5)."""
    at, header = len(PNG), None
    while at + 12 <= len(data):
        length, name = struct.unpack_from('>I4s', data, at)
        if header is None:
            if name != b'IHDR' or length != 13 or at + 25 > len(data):
                break
            width, height, bits = struct.unpack_from('>IIB', data, at + 8)
            if bits == 16:
                raise FileError('are a PNG of 16 bits per channel; expected 8')
            header = _size(width, height)
        elif name == b'eXIf':
            _refuse_turned(data[at + 8 : at + 8 + length])
        elif name == b'acTL':
            raise FileError('are an animated PNG; expected one picture')
        elif name == b'IEND':
            return header
        at += 12 + length
    raise FileError('are a PNG that is cut off' if header else 'are not an image: a broken PNG')


def _size(width: int, height: int) -> FileHeader:
    if not width or not height:
        raise FileError(f'are an image of {width} x {height} pixels')
    return FileHeader(width, height)


def _refuse_turned(exif: bytes) -> None:
    """Refuse an orientation (tag 0x0112 of the first directory) of 2 to 8; 1 is upright."""
    order = {b'II': '<', b'MM': '>'}.get(exif[:2])
    if order is None or len(exif) < 8:
        return
    (at,) = struct.unpack_from(f'{order}I', exif, 4)
    if at + 2 > len(exif):
        return
    (count,) = struct.unpack_from(f'{order}H', exif, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(f'{order}HH', exif, entry)
        if tag == 0x0112 and kind == 3:
            (found,) = struct.unpack_from(f'{order}H', exif, entry + 8)
            if 1 < found <= 8:
                raise FileError(
                    f'are an image turned by its EXIF orientation {found}, which some readers '
                    f'heed and some do not; expected 1'
                )
