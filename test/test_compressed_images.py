"""Compressed camera messages to RGB: right, or refused; what decoders do in silence is not."""

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('cv2')

import cv2
from image_files import encode, exif, jpeg, jpeg_segment, picture, png, png_chunk
from sensor_msgs.msg import CompressedImage, Image

from faster_core.errors import ObservationError
from faster_vla_ros.sensors.images import check, jpeg_file, to_rgb

pytestmark = pytest.mark.ros

RGB = picture()
JPEG, PNG = jpeg(RGB), png(RGB)
FILES = {'jpeg': JPEG, 'png': PNG}


def message(data, text='jpeg'):
    return CompressedImage(format=text, data=data)


def assert_is_picture(image, tolerance=6):
    assert image.shape == RGB.shape
    far = np.abs(image.astype(int) - RGB)[:, [*range(24), *range(40, 64)]]
    assert far.max() <= tolerance


def refused(data, text='jpeg'):
    """Return why a message is refused, which `check`, `to_rgb` and `jpeg_file` agree about."""
    m = message(data, text)
    with pytest.raises(ObservationError) as caught:
        to_rgb('head', m)
    with pytest.raises(ObservationError) as early:
        check('head', m)
    assert str(early.value) == str(caught.value)
    assert jpeg_file(m) is None
    return str(caught.value)


@pytest.mark.parametrize('camera', ['rgb8', 'bgr8', 'rgba8', 'bgra8'])
@pytest.mark.parametrize('codec', FILES)
def test_what_image_transport_writes_becomes_rgb(codec, camera):
    # It converts to BGR and has OpenCV write a plain file, whatever the camera sent.
    m = message(FILES[codec], f'{camera}; {codec} compressed bgr8')
    assert check('head', m) == (64, 48)
    assert_is_picture(to_rgb('head', m), 6 if codec == 'jpeg' else 0)


@pytest.mark.parametrize('text', ['', 'jpeg', 'png', 'jpg', 'JPEG', 'image/jpeg', 'rgb8', 'bgr8'])
@pytest.mark.parametrize('codec', FILES)
def test_without_an_encoding_of_the_camera_the_file_decides(codec, text):
    assert_is_picture(to_rgb('head', message(FILES[codec], text)))


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('rgb8; jpeg compressed rgb8', 'rgb8'),
        ('bgr8; jpeg compressed rgb8', 'rgb8'),
        ('rgba8; jpeg compressed rgba8', 'rgba8'),
        ('rgb8; jpeg compressed', 'something'),
        ('rgb8; jpeg', 'something'),
        ('bgr8; png compressed ', 'something'),
        ('jpeg compressed rgb8', 'rgb8'),
        ('mono8; jpeg compressed rgb8', 'rgb8'),
    ],
)
def test_order_of_colours_that_readers_differ_about_is_refused(text, found):
    why = refused(JPEG, text)
    assert why.startswith(f'camera head: format {text!r} says that {found} was compressed')
    assert why.endswith('expected bgr8')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('mono16; png compressed ', "is made of 'mono16'; expected one of rgb8, bgr8"),
        ('rgb16; jpeg compressed bgr8', "is made of 'rgb16'"),
        ('16UC1; png compressed ', "is made of '16UC1'"),
        ('bayer_rggb8; png compressed ', "is made of 'bayer_rggb8'"),  # a mosaic in the file
        ('bayer_rggb8; jpeg compressed mono8', "is made of 'bayer_rggb8'"),
        ('yuv422; jpeg compressed mono8', "is made of 'yuv422'"),
        ('16UC1; compressedDepth png', 'is a depth image'),
        ('32FC1; compressedDepth', 'is a depth image'),
        ('16UC1; compressedDepth rvl', 'is a depth image'),
    ],
)
def test_format_that_is_no_eight_bit_picture_is_refused(text, expected):
    assert f'camera head: format {text!r} {expected}' in refused(PNG, text)


@pytest.mark.parametrize('text', ['mono8; jpeg compressed mono8', 'mono8; png compressed ', ''])
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_grey_files_become_rgb(suffix, text):
    data = encode(suffix, np.full((16, 24), 77, np.uint8))
    m = message(data, text)
    assert check('head', m) == (24, 16)
    np.testing.assert_array_equal(to_rgb('head', m), np.full((16, 24, 3), 77))


def test_alpha_of_a_png_is_dropped_as_that_of_a_raw_image_is():
    alpha = np.random.default_rng(0).integers(0, 256, RGB.shape[:2], np.uint8)
    bgra = np.dstack([RGB[..., ::-1], alpha])
    image = to_rgb('head', message(encode('.png', bgra), 'rgba8; png compressed bgr8'))
    np.testing.assert_array_equal(image, RGB)


def test_progressive_jpeg_becomes_rgb():
    data = encode('.jpg', RGB[..., ::-1], cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert b'\xff\xc2' in data
    assert_is_picture(to_rgb('head', message(data)))


@pytest.mark.parametrize('channels', [1, 3])
def test_png_of_sixteen_bits_is_refused_not_scaled(channels):
    shape = (8, 8) if channels == 1 else (8, 8, channels)
    data = encode('.png', np.full(shape, 1500, np.uint16))
    assert 'are a PNG of 16 bits per channel; expected 8' in refused(data, 'png')


def test_jpeg_of_twelve_bits_is_refused():
    at = JPEG.index(b'\xff\xc0')
    assert 'JPEG of 12 bits per channel' in refused(JPEG[: at + 4] + b'\x0c' + JPEG[at + 5 :])


def test_jpeg_of_four_inks_is_refused():
    at = JPEG.index(b'\xff\xc0')
    why = refused(JPEG[: at + 9] + b'\x04' + JPEG[at + 10 :])
    assert 'JPEG of 4 channels; expected 1 (grey) or 3 (colour)' in why


def test_jpeg_of_a_rare_kind_is_refused():
    at = JPEG.index(b'\xff\xc0')
    assert 'JPEG of a rare kind' in refused(JPEG[:at] + b'\xff\xc9' + JPEG[at + 2 :])


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('orientation', range(2, 9))
def test_picture_turned_by_exif_is_refused(orientation, order):
    tag = exif(orientation, order)
    for data in (jpeg_segment(JPEG, 0xE1, b'Exif\0\0' + tag), png_chunk(PNG, b'eXIf', tag)):
        assert f'turned by its EXIF orientation {orientation}' in refused(data)


@pytest.mark.parametrize('orientation', [0, 1, 9])
def test_picture_that_exif_says_is_upright_is_taken(orientation):
    tag = exif(orientation)
    for data in (jpeg_segment(JPEG, 0xE1, b'Exif\0\0' + tag), png_chunk(PNG, b'eXIf', tag)):
        assert_is_picture(to_rgb('head', message(data)))


@pytest.mark.parametrize(
    'tag', [b'', b'MM', b'XX\0\0\0\0\0\0\0', exif(6)[:12], b'II' + b'\xff' * 9]
)
def test_broken_exif_is_no_orientation(tag):
    assert_is_picture(to_rgb('head', message(jpeg_segment(JPEG, 0xE1, b'Exif\0\0' + tag))))


def test_thumbnail_inside_a_jpeg_is_not_taken_for_the_picture():
    small = jpeg(picture(8, 8))
    data = jpeg_segment(JPEG, 0xE1, b'Exif\0\0' + exif(1) + small)
    assert check('head', message(data)) == (64, 48)
    cut = data[: data.index(b'\xff\xda', len(small) + 60) + 40]
    assert b'\xff\xd9' in cut  # that of the thumbnail
    assert 'are a JPEG that is cut off' in refused(cut)


@pytest.mark.parametrize('share', [0.9, 0.95, 0.99])
@pytest.mark.parametrize('codec', FILES)
def test_file_that_is_cut_off_is_refused_not_filled_with_grey(codec, share):
    data = FILES[codec]
    why = refused(data[: int(len(data) * share)], codec)
    assert f'are a {codec.upper()} that is cut off' in why


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    assert_is_picture(to_rgb('head', message(JPEG + b'\0' * 4096)))


@pytest.mark.parametrize('codec', FILES)
def test_no_cut_at_all_gets_through(codec):
    data = FILES[codec]
    for length in range(len(data) - 2):
        with pytest.raises(ObservationError, match='camera head: '):
            to_rgb('head', message(data[:length]))


@pytest.mark.parametrize('codec', FILES)
def test_any_damage_gives_a_picture_of_the_right_size_or_an_observation_error(codec, capfd):
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(FILES[codec])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        m = message(bytes(data))
        try:
            image = to_rgb('head', m)
        except ObservationError:
            continue
        assert image.shape[:2] == check('head', m)[::-1]
    capfd.readouterr()  # the decoders' own complaints


@pytest.mark.parametrize(
    'data', [b'', b'\xff\xd8\xff', b'not an image', b'\0' * 1000, b'\xff\xd8' + b'\xff' * 5000]
)
def test_what_is_no_image_is_refused(data):
    found = f"camera head: {len(data)} bytes of format 'jpeg' are not an image"
    assert refused(data).startswith(found)


@pytest.mark.parametrize('suffix', ['.bmp', '.webp', '.tiff', '.jp2', '.ppm'])
def test_other_kinds_of_files_are_refused(suffix):
    assert 'are not an image of type JPEG or PNG' in refused(encode(suffix, RGB), suffix[1:])


def test_animated_png_is_refused():
    assert 'animated PNG' in refused(png_chunk(PNG, b'acTL', b'\0\0\0\2\0\0\0\0'))


def test_picture_larger_than_any_camera_is_refused_without_an_allocation():
    size = (60_000).to_bytes(2, 'big') * 2
    at = JPEG.index(b'\xff\xc0')
    assert '60000 x 60000 pixels' in refused(JPEG[: at + 5] + size + JPEG[at + 9 :])
    assert 'an image of 0 x 48 pixels' in refused(JPEG[: at + 7] + b'\0\0' + JPEG[at + 9 :])


def test_error_inside_the_decoder_is_an_observation_error(monkeypatch):
    def explode(*_):
        raise cv2.error('more pixels than allowed')

    monkeypatch.setattr(cv2, 'imdecode', explode)
    with pytest.raises(ObservationError, match='are not an image'):
        to_rgb('head', message(PNG))


def test_decoder_that_returns_another_size_is_not_believed(monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ObservationError, match='are not an image'):
        to_rgb('head', message(PNG))


def test_only_a_jpeg_that_would_be_taken_is_handed_on_undecoded():
    assert jpeg_file(message(JPEG)) == JPEG
    assert jpeg_file(message(PNG)) is None
    assert jpeg_file(Image()) is None
    assert jpeg_file(message(JPEG, 'rgb8; jpeg compressed rgb8')) is None
