"""Camera messages to RGB: every known encoding, padded rows, and what is refused."""

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('cv2')

import cv2
from sensor_msgs.msg import CompressedImage, Image

from faster_core.errors import ObservationError
from faster_vla_ros.compat import cv_bridge
from faster_vla_ros.sensors.images import to_rgb

pytestmark = pytest.mark.ros

# encoding -> where red, green and blue are in a pixel, and its bytes
LAYOUTS = {
    'rgb8': ((0, 1, 2), 3),
    'bgr8': ((2, 1, 0), 3),
    'rgba8': ((0, 1, 2), 4),
    'bgra8': ((2, 1, 0), 4),
    'mono8': ((0, 0, 0), 1),
}


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


@pytest.mark.parametrize('big_endian', [0, 1])
@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('encoding', LAYOUTS)
def test_every_encoding_becomes_rgb_whatever_the_padding_and_endianness(
    encoding, padding, big_endian
):
    order, channels = LAYOUTS[encoding]
    data = random_bytes(channels)
    image = to_rgb('head', message(data, encoding, padding=padding, big_endian=big_endian))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, data[..., list(order)])


def test_every_known_encoding_is_tested():
    assert set(cv_bridge.ENCODINGS) == set(LAYOUTS)


@pytest.mark.parametrize('encoding', ['', 'RGB8', 'yuv422', '16UC1', '32FC1', 'bayer_rggb8'])
def test_unknown_encoding_is_refused_with_the_known_ones(encoding):
    with pytest.raises(ObservationError) as caught:
        to_rgb('wrist', message(random_bytes(3), encoding))
    assert str(caught.value) == (
        f'camera wrist: unknown encoding {encoding!r}; known: rgb8, bgr8, rgba8, bgra8, mono8'
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
def test_size_that_does_not_fit_the_data_is_refused(field, value):
    m = message(random_bytes(3), 'rgb8')
    setattr(m, field, value)
    with pytest.raises(ObservationError, match=r'camera head: .* bytes do not fit'):
        to_rgb('head', m)


def test_image_larger_than_any_camera_is_refused_without_an_allocation():
    m = message(random_bytes(1), 'mono8')
    m.width, m.step, m.height = 2**31, 2**31, 2**31
    with pytest.raises(ObservationError, match='do not fit'):
        to_rgb('head', m)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_compressed_image_becomes_rgb(suffix):
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:] = (200, 30, 10), (10, 60, 220)
    data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    image = to_rgb('head', CompressedImage(format='rgb8; jpeg compressed bgr8', data=data))
    assert image.shape == rgb.shape
    far = np.abs(image.astype(int) - rgb)[:, [*range(24), *range(40, 64)]]
    assert far.max() <= (0 if suffix == '.png' else 6)


def test_compressed_grey_image_becomes_rgb():
    data = cv2.imencode('.png', np.full((4, 4), 77, np.uint8))[1].tobytes()
    image = to_rgb('head', CompressedImage(format='png', data=data))
    np.testing.assert_array_equal(image, np.full((4, 4, 3), 77))


@pytest.mark.parametrize('data', [b'', b'\xff\xd8\xff', b'not an image', b'\0' * 1000])
def test_damaged_compressed_image_is_refused(data):
    with pytest.raises(ObservationError, match=f'camera head: {len(data)} bytes of format .jpeg'):
        to_rgb('head', CompressedImage(format='jpeg', data=data))


def test_error_inside_the_decoder_is_an_observation_error(monkeypatch):
    def explode(*_):
        raise cv2.error('more pixels than allowed')

    monkeypatch.setattr(cv2, 'imdecode', explode)
    with pytest.raises(ObservationError, match='are not an image'):
        to_rgb('head', CompressedImage(format='png', data=b'abc'))


def test_bridge_that_refuses_is_an_observation_error(monkeypatch):
    def explode(*_):
        raise cv_bridge.CvBridgeError('no such conversion')

    monkeypatch.setattr(cv_bridge.CvBridge, 'imgmsg_to_cv2', explode)
    with pytest.raises(ObservationError, match='camera head: no such conversion'):
        to_rgb('head', message(random_bytes(3), 'rgb8'))


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
