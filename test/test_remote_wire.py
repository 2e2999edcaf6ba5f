"""What policy server and client send: nothing is lost, and nothing malformed gets through."""

import dataclasses
import struct

import cv2
from fake_policy import FakePolicy, TIMING
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
import numpy as np
from project_files import ROOT
import pytest
import remote_helpers as h

from faster_core import errors
from faster_core.chunk import ActionChunk
from faster_core.errors import (
    ConfigError,
    DecodeError,
    EmbodimentError,
    FasterVlaError,
    ObservationError,
    RemoteError,
    RemoteProtocolError,
)
from faster_core.remote import protocol, wire

E = FakePolicy().embodiment
DTYPES = ('uint8', 'int32', 'int64', 'float32', 'float64')
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FasterVlaError)
]


def sent(message):
    """Return a message as the other side gets it."""
    return wire.unpack(wire.pack(message))


def chunk(**fields):
    values = np.random.default_rng(0).normal(size=(32, 21)).astype(np.float32)
    return ActionChunk(
        **{
            'values': values,
            'stamp': 1.25,
            'first_step_offset': 1 / 15,
            'step_period': 1 / 15,
            'sequence_id': 3,
            'embodiment_checksum': E.checksum,
            'codes': np.arange(12, dtype=np.int64).reshape(3, 2, 2),
            'num_levels': 2,
            'log_prob': (-0.5, -0.25),
            'entropy': (0.5,),
            'timing': TIMING,
        }
        | fields
    )


# --- arrays -----------------------------------------------------------------------------------


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda d: npst.arrays(d, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    )
)
def test_an_array_comes_back_bit_by_bit(array):
    back = wire.decode_array(sent(wire.encode_array(array)), 'a')
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    'array',
    [np.arange(24.0).reshape(4, 6).T[::2], np.arange(4, dtype='>f4'), np.float16([1.5, 2])],
)
def test_strides_byte_order_and_other_numbers_do_not_matter(array):
    np.testing.assert_array_equal(wire.decode_array(sent(wire.encode_array(array)), 'a'), array)


@pytest.mark.parametrize('array', [np.array(['a']), np.array([None]), np.array([1j])])
def test_what_is_no_number_is_not_sent(array):
    with pytest.raises(ValueError, match='expected numbers'):
        wire.encode_array(array)


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'dtype': 'object'}, r"expected one of uint8.*found 'object'"),
        ({'dtype': 4}, 'dtype: expected str, found int'),
        ({'shape': [2, 4]}, r'float32 \[2, 4\] has 32 bytes, found 24'),
        ({'shape': [-2, -3]}, 'is no shape'),
        ({'shape': [2.0, 3]}, 'is no shape'),
        ({'shape': [True, 6]}, 'is no shape'),
        ({'shape': [1, 1, 1, 2, 3]}, 'is no shape'),
        ({'shape': [0, 2**62, 2**62], 'data': b''}, 'is no shape'),
        ({'data': b'short'}, 'found 5'),
        ({'data': 'text'}, 'data: expected bytes, found str'),
        ({'more': 1}, 'unknown more'),
        ({'shape': None}, 'shape: expected list, found NoneType'),
    ],
)
def test_a_wrong_array_is_refused_with_the_reason(changes, expected):
    good = wire.encode_array(np.zeros((2, 3), np.float32))
    with pytest.raises(RemoteProtocolError, match=expected):
        wire.decode_array(sent(good | changes), 'state')


def test_a_map_without_a_key_is_refused():
    with pytest.raises(RemoteProtocolError, match='state: missing data'):
        wire.decode_array({'dtype': 'uint8', 'shape': [1]}, 'state')


# --- observations -----------------------------------------------------------------------------


@given(st.text(max_size=40), st.floats(allow_nan=False), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=50)
def test_a_raw_observation_comes_back_bit_by_bit(text, stamp, height, width):
    before = h.observation(size=(height, width), instruction=text, stamp=stamp)
    after = wire.decode_observation(sent(wire.encode_observation(before, 'raw')))
    assert list(after.images) == list(before.images)
    for name, image in before.images.items():
        np.testing.assert_array_equal(after.images[name], image)
    assert after.state.dtype == before.state.dtype
    np.testing.assert_array_equal(after.state, before.state)
    assert (after.instruction, after.stamp) == (text, stamp)


def test_jpeg_images_are_close_and_equal_to_what_the_file_holds():
    before = h.observation()
    message = sent(wire.encode_observation(before, 'jpeg'))
    after = wire.decode_observation(message)
    for name, image in before.images.items():
        file = np.frombuffer(message['images'][name], np.uint8)
        expected = cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(after.images[name], expected)
        # Red stays red: a swap of channels would be off by far more.
        assert np.abs(after.images[name].astype(int) - image).mean() < 6


@pytest.mark.parametrize('images', wire.IMAGES)
def test_a_jpeg_file_travels_untouched(images):
    file = wire.encode_jpeg(h.picture())
    message = wire.encode_observation(h.observation(images={'head': file}), images)
    assert sent(message)['images']['head'] == file


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_arbitrary_bytes_are_refused_and_never_crash(data):
    with pytest.raises(RemoteProtocolError):
        wire.decode_observation(wire.unpack(data))


@given(st.data(), st.sampled_from(wire.IMAGES))
@settings(max_examples=150, deadline=None)
def test_a_truncated_message_is_refused(data, images):
    whole = wire.pack(wire.encode_observation(h.observation(size=(8, 8)), images))
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(RemoteProtocolError):
        wire.unpack(whole[:length])


@given(st.data(), st.sampled_from(wire.IMAGES))
@settings(max_examples=150, deadline=None)
def test_a_damaged_message_is_read_or_refused_but_never_crashes(data, images):
    message = bytearray(wire.pack(wire.encode_observation(h.observation(size=(8, 8)), images)))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        observation = wire.decode_observation(wire.unpack(bytes(message)))
        observation.validate(E)
    except FasterVlaError:
        return
    assert set(observation.images) == set(h.CAMERAS)


def test_one_message_followed_by_more_is_refused():
    with pytest.raises(RemoteProtocolError, match='no message'):
        wire.unpack(wire.pack({}) * 2)


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'stamp': 1}, 'stamp: expected float, found int'),
        ({'stamp': True}, 'stamp: expected float, found bool'),
        ({'instruction': b'x'}, 'instruction: expected str, found bytes'),
        ({'images': []}, 'images: expected dict, found list'),
        ({'images': {'head': 'x'}}, r'images\.head: expected a map, found str'),
        ({'state': None}, 'state: expected dict'),
        ({'extra': 1}, 'unknown extra'),
    ],
)
def test_an_observation_of_other_types_is_refused(changes, expected):
    message = wire.encode_observation(h.observation(), 'raw') | changes
    with pytest.raises(RemoteProtocolError, match=expected):
        wire.decode_observation(sent(message))


# --- JPEG -------------------------------------------------------------------------------------


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([0, 1]))
@settings(max_examples=30, deadline=None)
def test_the_size_of_a_jpeg_is_read_from_its_header(height, width, progressive):
    image = np.zeros((height, width, 3), np.uint8)
    file = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    assert wire.jpeg_pixels(file) == height * width
    # Fill bytes before a marker are allowed.
    assert wire.jpeg_pixels(file[:2] + b'\xff\xff' + file[2:]) == height * width


def bomb():
    """Return a small JPEG whose header promises 4 gigapixels."""
    file = bytearray(wire.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    frame = file.index(b'\xff\xc0')
    file[frame + 5 : frame + 9] = struct.pack('>HH', 65535, 65535)
    return bytes(file)


@pytest.mark.parametrize(
    ('file', 'expected'),
    [
        (b'', '0 bytes are not a JPEG image'),
        (b'\x89PNG\r\n\x1a\n' + bytes(20), '28 bytes are not a JPEG image'),
        (b'\xff\xd8\xff', 'not a JPEG image'),
        (b'\xff\xd8' + b'\xff' * 50, 'not a JPEG image'),
        (b'\xff\xd8\xff\xe0\x00\x00' * 9, 'not a JPEG image'),
        (bomb(), 'camera head: 4294836225 pixels, at most 16000000'),
        (wire.encode_jpeg(np.zeros((8, 8, 3), np.uint8))[:180], 'not a JPEG image'),
    ],
    ids=['empty', 'png', 'start', 'fill', 'segments', 'bomb', 'cut'],
)
def test_what_is_no_usable_jpeg_is_an_observation_error(file, expected):
    with pytest.raises(ObservationError, match=expected):
        wire.decode_jpeg('head', file)


# --- chunks -----------------------------------------------------------------------------------


@given(st.sampled_from(['float32', 'float64']), st.integers(0, 40), st.booleans())
@settings(max_examples=30)
def test_a_chunk_comes_back_bit_by_bit(dtype, rows, has_codes):
    before = chunk(values=np.random.default_rng(rows).normal(size=(rows, 21)).astype(dtype))
    if not has_codes:
        before = dataclasses.replace(before, codes=None)
    after = wire.decode_chunk(sent(wire.encode_chunk(before)), E)
    assert after.values.dtype == dtype
    np.testing.assert_array_equal(after.values, before.values)
    np.testing.assert_array_equal(after.codes, before.codes)
    for field in dataclasses.fields(ActionChunk):  # also those of tomorrow
        if field.name not in ('values', 'codes'):
            assert getattr(after, field.name) == getattr(before, field.name)
            assert getattr(chunk(), field.name) != field.default, 'not covered by this test'
    after.values[:] = 0.0  # as of a policy: the caller's own


@pytest.mark.parametrize(
    ('fields', 'error', 'expected'),
    [
        (
            {'values': np.zeros((3, 20))},
            RemoteProtocolError,
            r'\[H, 21\], found .* \[3, 20\]',
        ),
        ({'values': np.zeros(21)}, RemoteProtocolError, r'found float64 \[21\]'),
        ({'values': np.zeros((3, 21), int)}, RemoteProtocolError, 'found int64'),
        ({'values': np.full((3, 21), np.nan)}, DecodeError, 'not finite'),
        ({'stamp': np.inf}, RemoteProtocolError, 'stamp: expected a finite number, found inf'),
        ({'step_period': np.nan}, RemoteProtocolError, 'step_period: expected a finite number'),
        ({'embodiment_checksum': 'f' * 64}, EmbodimentError, r'fff.*, expected 79ad'),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused(fields, error, expected):
    with pytest.raises(error, match=expected):
        wire.decode_chunk(sent(wire.encode_chunk(chunk(**fields))), E)


@pytest.mark.parametrize('blocks', [[1.0, 'x'], [True], 'abc'])
def test_timings_are_numbers(blocks):
    message = wire.encode_chunk(chunk())
    message['timing']['decode_block_ms'] = blocks
    with pytest.raises(RemoteProtocolError, match='decode_block_ms'):
        wire.decode_chunk(sent(message), E)


# --- handshake, errors, addresses -------------------------------------------------------------


def handshake(**changes):
    shake = protocol.Handshake(
        protocol=protocol.PROTOCOL,
        version='0.1.0',
        session='s',
        embodiment=E.source,
        checksum=E.checksum,
        cameras=E.cameras,
        image_size=96,
    )
    return sent(shake.encode() | changes)


def test_a_handshake_tells_the_robot():
    told, embodiment = protocol.decode_handshake(handshake(checkpoint_sha='abc'))
    assert embodiment == E
    assert (told.image_size, told.checkpoint_sha, told.cameras) == (96, 'abc', E.cameras)


@pytest.mark.parametrize(
    ('changes', 'error', 'expected'),
    [
        (
            {'protocol': 7, 'new': 1},
            RemoteProtocolError,
            'speaks protocol 7 .*side protocol 1',
        ),
        ({'protocol': None}, RemoteProtocolError, 'protocol None'),
        ({'checksum': 'e' * 64}, RemoteProtocolError, 'eee.* is not that of the embodiment'),
        ({'cameras': ['head']}, RemoteProtocolError, r"cameras \['head'\], the embodiment has"),
        ({'image_size': '96'}, RemoteProtocolError, 'image_size: expected int, found str'),
        ({'embodiment': 'name: x'}, EmbodimentError, 'missing keys'),
    ],
)
def test_a_wrong_handshake_is_refused_with_the_reason(changes, error, expected):
    with pytest.raises(error, match=expected):
        protocol.decode_handshake(handshake(**changes))


@pytest.mark.parametrize('kind', [*KINDS, ValueError], ids=lambda k: k.__name__)
def test_every_error_of_ours_keeps_its_class_and_words(kind):
    back = protocol.decode_error(sent(protocol.encode_error(kind('why: 3'))))
    assert (type(back), str(back)) == (kind, 'why: 3')


def test_an_error_the_other_side_does_not_know_becomes_what_it_is_derived_from():
    class NewError(ConfigError):
        pass

    assert type(protocol.decode_error(protocol.encode_error(NewError('x')))) is ConfigError


@pytest.mark.parametrize(
    'error', [ZeroDivisionError('by 0'), UnicodeError('by 0'), KeyError('by 0')]
)
def test_any_other_error_becomes_a_remote_error_that_names_it(error):
    back = protocol.decode_error(sent(protocol.encode_error(error)))
    assert type(back) is RemoteError
    assert type(error).__name__ in str(back)
    assert 'by 0' in str(back)


def test_an_error_of_a_newer_server_is_a_remote_error():
    back = protocol.decode_error({'type': 'FutureError', 'message': 'x'})
    assert (type(back), str(back)) == (RemoteError, 'FutureError: x')


def test_a_long_message_is_cut():
    text = protocol.encode_error(ConfigError('x' * 10**6))['message']
    assert len(text) == protocol.MAX_ERROR_CHARS


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('127.0.0.1:7447', ('127.0.0.1', 7447)),
        ('workstation.local:1', ('workstation.local', 1)),
        ('[::1]:65535', ('::1', 65535)),
    ],
)
def test_an_address_is_host_and_port(text, expected):
    assert protocol.split_address(text) == expected
    assert protocol.join_address(*expected) == text


@pytest.mark.parametrize(
    'text',
    [
        *('', 'host', ':1', 'host:', 'host:x', 'host:0', 'host:65536', 'host:-1', '::1:1'),
        *('http://host:1', '[host]:1', 'a b:1', 'host:1.5', '[]:1', 'host:١'),
    ],
)
def test_anything_else_is_no_address(text):
    with pytest.raises(ConfigError, match='expected host:port'):
        protocol.split_address(text)


def test_the_room_names_no_pickle():
    for path in (ROOT / 'faster_core' / 'remote').glob('*.py'):
        text = path.read_text(encoding='utf-8')
        assert 'import pickle' not in text
        assert 'allow_pickle' not in text
