"""Image files as cameras and careless programs write them."""

import struct
import zlib

import cv2
import numpy as np


def picture(height=48, width=64):
    """Return RGB [height, width, 3]: red-brown left, blue right."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2], rgb[:, width // 2 :] = (200, 30, 10), (10, 60, 220)
    return rgb


def encode(suffix, image, *options):
    """Encode grey, BGR or BGRA."""
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def jpeg(rgb):
    """Return a JPEG file of an RGB picture."""
    return encode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def png(rgb):
    """Return a PNG file of an RGB picture."""
    return encode('.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def exif(orientation, order='>'):
    """Return EXIF data with a width before the orientation."""
    start = b'MM' if order == '>' else b'II'
    entries = struct.pack(f'{order}HHII', 0x0100, 4, 1, 64)
    entries += struct.pack(f'{order}HHIHH', 0x0112, 3, 1, orientation, 0)
    head = start + struct.pack(f'{order}HIH', 42, 8, 2)
    return head + entries + struct.pack(f'{order}I', 0)


def jpeg_segment(file, marker, content):
    """Return a JPEG file with a segment after its first marker."""
    return file[:2] + struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content + file[2:]


def png_chunk(file, name, content):
    """Return a PNG file with a chunk after its header."""
    chunk = struct.pack('>I', len(content)) + name + content
    chunk += struct.pack('>I', zlib.crc32(name + content))
    return file[:33] + chunk + file[33:]
