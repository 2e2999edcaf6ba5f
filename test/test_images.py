"""Raw camera messages to RGB: every known encoding, padded rows, and what is refused."""

import sys
import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('cv2')

import importlib.util

from sensor_msgs.msg import Image

from faster_core.errors import ObservationError
from faster_vla_ros.compat import cv_bridge
from faster_vla_ros.sensors import images
from faster_vla_ros.sensors.images import check, to_rgb

pytestmark = pytest.mark.ros

# encoding -> where red, green and blue are in a pixel, and its bytes
LAYOUTS = {
    'rgb8': ((0, 1, 2), 3),
    'bgr8': ((2, 1, 0), 3),
    'rgba8': ((0, 1, 2), 4),
    'bgra8': ((2, 1, 0), 4),
    'mono8': ((0, 0, 0), 1),
}
# encoding -> colour of the pixels (0, 0), (0, 1), (1, 0), (1, 1), as in sensor_msgs'
# image_encodings.hpp: the name is read along the rows.
MOSAICS = {f'bayer_{pattern}8': pattern for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')}
KNOWN = ', '.join(cv_bridge.ENCODINGS)


def message(data, encoding, *, padding=0, big_endian=0):
    """Return the message of bytes [height, width, channels] with padded rows."""
    height, width, channels = data.shape
    rows = np.full((height, width * channels + padding), 0xEE, np.uint8)
    rows[:, : width * channels] = data.reshape(height, -1)
    m = Image(height=height, width=width, encoding=encoding, is_bigendian=big_endian)
    m.step = rows.shape[1]
    m.data.frombytes(rows.tobytes())
    return m


def random_bytes(channels, height=5, width=7):
    return np.random.default_rng(channels).integers(0, 256, (height, width, channels), np.uint8)


def mosaic(rgb, pattern):
    """Return what a sensor with a colour filter sees of RGB [height, width, 3]."""
    seen = np.empty(rgb.shape[:2], np.uint8)
    for k, colour in enumerate(pattern):
        part = np.s_[k // 2 :: 2, k % 2 :: 2]
        seen[part] = rgb[..., 'rgb'.index(colour)][part]
    return seen[..., None]


@pytest.mark.parametrize('big_endian', [0, 1])
@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('encoding', LAYOUTS)
def test_every_encoding_becomes_rgb_whatever_the_padding_and_endianness(
    encoding, padding, big_endian
):
    order, channels = LAYOUTS[encoding]
    data = random_bytes(channels)
    m = message(data, encoding, padding=padding, big_endian=big_endian)
    assert check('head', m) == (7, 5)
    image = to_rgb('head', m)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, data[..., list(order)])


@pytest.mark.parametrize('big_endian', [0, 1])
@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', MOSAICS)
def test_mosaic_of_a_smooth_picture_becomes_that_picture(encoding, padding, big_endian):
    # Linear in both directions, as is the interpolation; three different slopes and levels.
    y, x = np.mgrid[0:20, 0:30]
    rgb = np.stack([40 + 4 * x, 200 - 3 * y, 10 + 2 * x + 2 * y], -1).astype(np.uint8)
    m = message(mosaic(rgb, MOSAICS[encoding]), encoding, padding=padding, big_endian=big_endian)
    image = to_rgb('head', m)
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(image.astype(int) - rgb)[inner].max() <= 1


def test_mosaics_differ_so_that_a_wrong_pattern_would_be_seen():
    rgb = np.broadcast_to(np.array([200, 120, 10], np.uint8), (8, 8, 3))
    right = to_rgb('head', message(mosaic(rgb, 'rggb'), 'bayer_rggb8'))
    np.testing.assert_array_equal(right, rgb)
    for encoding in MOSAICS.keys() - {'bayer_rggb8'}:
        wrong = to_rgb('head', message(mosaic(rgb, 'rggb'), encoding))
        assert np.abs(wrong.astype(int) - rgb)[3:5, 3:5].max() > 50


def test_mosaic_too_small_for_colours_is_refused():
    assert to_rgb('head', message(np.full((3, 3, 1), 9, np.uint8), 'bayer_rggb8')).min() == 9
    for shape in ((2, 8), (8, 2), (1, 1)):
        m = message(np.full((*shape, 1), 9, np.uint8), 'bayer_rggb8')
        with pytest.raises(ObservationError, match=r'camera head: a mosaic of .* at least 3 x 3'):
            to_rgb('head', m)


def test_every_known_encoding_is_tested():
    assert set(cv_bridge.ENCODINGS) == set(LAYOUTS) | set(MOSAICS)


@pytest.mark.parametrize('encoding', ['', 'RGB8', 'yuv422', 'yuv422_yuy2', '8UC3', 'bayer_rgbg8'])
def test_unknown_encoding_is_refused_with_the_known_ones(encoding):
    with pytest.raises(ObservationError) as caught:
        to_rgb('wrist', message(random_bytes(3), encoding))
    assert str(caught.value) == (
        f'camera wrist: encoding {encoding!r} is not known; expected one of {KNOWN}'
    )


@pytest.mark.parametrize('big_endian', [0, 1])
@pytest.mark.parametrize(
    'encoding', ['mono16', 'rgb16', 'bgra16', 'bayer_rggb16', '16UC1', '32FC1', '64FC3']
)
def test_more_than_eight_bits_are_refused_in_either_byte_order(encoding, big_endian):
    m = message(random_bytes(2), encoding, big_endian=big_endian)
    with pytest.raises(ObservationError) as caught:
        to_rgb('wrist', m)
    assert str(caught.value) == (
        f'camera wrist: encoding {encoding!r} has more than 8 bits per channel; '
        f'expected one of {KNOWN}'
    )


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('step', 20),  # shorter than a row of 7 pixels
        ('step', 0),
        ('step', 22),
        ('height', 6),
        ('height', 4),
        ('height', 0),
        ('width', 0),
        ('width', 8),
        ('height', 2**31),
        ('data', b''),
        ('data', b'\0' * 104),
    ],
)
@pytest.mark.parametrize('function', [check, to_rgb])
def test_size_that_does_not_fit_the_data_is_refused(function, field, value):
    m = message(random_bytes(3), 'rgb8')
    setattr(m, field, value)
    with pytest.raises(ObservationError, match=r'camera head: .* bytes do not fit'):
        function('head', m)


def test_image_larger_than_any_camera_is_refused_without_an_allocation():
    m = message(random_bytes(1), 'mono8')
    m.width, m.step, m.height = 2**31, 2**31, 2**31
    with pytest.raises(ObservationError, match='do not fit'):
        to_rgb('head', m)


def test_bridge_gets_tight_rows_and_no_endianness_for_the_real_one_errs_with_them(monkeypatch):
    seen = []

    class Bridge:
        def imgmsg_to_cv2(self, message, desired_encoding):
            seen.append((message.step, message.is_bigendian, bytes(message.data)))
            return np.zeros((5, 7, 3), np.uint8)

    monkeypatch.setattr(images, '_BRIDGE', Bridge())
    data = random_bytes(3)
    for padding, big_endian in ((0, 0), (2, 0), (0, 1), (4, 1)):
        to_rgb('head', message(data, 'bgr8', padding=padding, big_endian=big_endian))
    assert seen == [(21, 0, data.tobytes())] * 4


def test_bridge_that_refuses_is_an_observation_error(monkeypatch):
    def explode(*_):
        raise cv_bridge.CvBridgeError('no such conversion')

    monkeypatch.setattr(cv_bridge.CvBridge, 'imgmsg_to_cv2', explode)
    with pytest.raises(ObservationError, match='camera head: no such conversion'):
        to_rgb('head', message(random_bytes(3), 'rgb8'))


def load_compat(patch, compiled):
    """Load compat/cv_bridge.py where a package cv_bridge is there; `compiled` may be broken."""
    real = types.ModuleType('cv_bridge')
    real.__path__ = []
    real.CvBridge, real.CvBridgeError = type('CvBridge', (), {}), type('CvBridgeError', (), {})
    boost = types.ModuleType('cv_bridge.boost')
    boost.__path__ = []
    patch.setitem(sys.modules, 'cv_bridge', real)
    patch.setitem(sys.modules, 'cv_bridge.boost', boost)
    name = 'cv_bridge.boost.cv_bridge_boost'
    patch.setitem(sys.modules, name, types.ModuleType(name) if compiled else None)
    spec = importlib.util.spec_from_file_location('compat_cv_bridge', cv_bridge.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, real


def test_real_bridge_is_used_where_it_is_whole(monkeypatch):
    module, real = load_compat(monkeypatch, compiled=True)
    assert module.CvBridge is real.CvBridge


def test_real_bridge_that_was_built_for_another_numpy_is_not_used(monkeypatch):
    module, real = load_compat(monkeypatch, compiled=False)
    assert module.CvBridge is not real.CvBridge
    data = random_bytes(3)
    image = module.CvBridge().imgmsg_to_cv2(message(data, 'bgr8', padding=2), 'rgb8')
    np.testing.assert_array_equal(image, data[..., ::-1])


fallback = pytest.mark.skipif(
    cv_bridge.CvBridge.__module__ != cv_bridge.__name__, reason='the real cv_bridge is there'
)


@fallback
def test_fallback_refuses_what_only_the_real_bridge_can_do():
    bridge = cv_bridge.CvBridge()
    with pytest.raises(cv_bridge.CvBridgeError, match=r"expected .* rgb8, found 'bgr8'"):
        bridge.imgmsg_to_cv2(message(random_bytes(3), 'rgb8'), 'bgr8')
    with pytest.raises(cv_bridge.CvBridgeError, match="unknown encoding 'mono16'"):
        bridge.imgmsg_to_cv2(message(random_bytes(2), 'mono16'), 'rgb8')


@fallback
def test_rgb_image_without_padding_is_not_copied():
    m = message(random_bytes(3), 'rgb8')
    image = cv_bridge.CvBridge().imgmsg_to_cv2(m, 'rgb8')
    assert np.shares_memory(image, np.frombuffer(m.data, np.uint8))
