"""Chunks on the wire and in the core: nothing is lost, and what does not fit is refused whole."""

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from rclpy.serialization import deserialize_message, serialize_message
from unique_identifier_msgs.msg import UUID

from faster_core import paths
from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution.errors import ChunkError
from faster_vla_msgs.msg import ActionComponent
from faster_vla_ros import conversions as c

pytestmark = pytest.mark.ros

R1_LITE = Embodiment.load(paths.embodiment_file('r1_lite'))


def chunk(rows=32, **options):
    values = np.random.default_rng(rows).normal(size=(rows, 21)).astype(np.float32)
    defaults = {
        'values': values,
        'stamp': 1_760_000_000.25,
        'first_step_offset': 1 / 15,
        'step_period': 1 / 15,
        'sequence_id': 9,
        'embodiment_checksum': R1_LITE.checksum,
    }
    return ActionChunk(**defaults | options)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize('rows', [1, 32])
def test_chunk_survives_the_wire(rows):
    sent = chunk(rows)
    goal = UUID(uuid=list(range(16)))
    message = over_the_wire(
        c.chunk_to_message(sent, R1_LITE, instruction='grasp the cup', goal_id=goal)
    )
    assert (message.instruction, message.goal_id) == ('grasp the cup', goal)
    received = c.chunk_from_message(message, R1_LITE)
    np.testing.assert_array_equal(received.values, sent.values)
    assert received.values.dtype == np.float32
    assert received.stamp == sent.stamp
    assert received.step_period == pytest.approx(sent.step_period, abs=1e-9)
    assert received.first_step_offset == pytest.approx(sent.first_step_offset, abs=1e-9)
    assert received.sequence_id == 9
    assert received.embodiment_checksum == R1_LITE.checksum
    assert (received.log_prob, received.entropy, received.num_levels) == ((), (), None)


def test_confidence_and_levels_survive_the_wire():
    sent = chunk(log_prob=(-0.25, -1.5), entropy=(0.5, 2.0), num_levels=2)
    received = c.chunk_from_message(over_the_wire(c.chunk_to_message(sent, R1_LITE)), R1_LITE)
    assert received.log_prob == (-0.25, -1.5)
    assert received.entropy == (0.5, 2.0)
    assert received.num_levels == 2


def test_columns_of_every_component_are_row_major_and_named():
    sent = chunk()
    message = c.chunk_to_message(sent, R1_LITE)
    start = 0
    for component, m in zip(R1_LITE.action, message.components, strict=True):
        size = component.size
        expected = sent.values[:, start : start + size].ravel().tolist()
        assert list(m.data) == pytest.approx(expected)
        assert (m.name, tuple(m.names)) == (component.name, component.names)
        assert m.frame_id == ('base_link' if m.kind == ActionComponent.KIND_TWIST else '')
        start += size
    assert start == 21


def test_values_that_are_not_contiguous_or_float64_are_written_right():
    values = np.arange(42, dtype=np.float64).reshape(21, 2).T
    received = c.chunk_from_message(
        over_the_wire(c.chunk_to_message(chunk(values=values), R1_LITE)), R1_LITE
    )
    np.testing.assert_array_equal(received.values, values)


def test_chunk_without_rows_has_no_components_and_survives_the_wire():
    message = over_the_wire(c.chunk_to_message(chunk(0), R1_LITE))
    assert (message.num_steps, message.components) == (0, [])
    assert c.chunk_from_message(message, R1_LITE).values.shape == (0, 21)


@pytest.mark.parametrize('shape', [(21,), (4, 20), (1, 4, 21)])
def test_values_of_another_shape_are_not_written(shape):
    with pytest.raises(ChunkError) as caught:
        c.chunk_to_message(chunk(values=np.zeros(shape)), R1_LITE)
    assert caught.value.reason == 'bad_shape'
    assert str(list(shape)) in str(caught.value)


def drop_component(m):
    m.components = m.components[:-1]


def swap_components(m):
    m.components = [m.components[1], m.components[0], *m.components[2:]]


def rename_column(m):
    m.components[0].names = ['x', *m.components[0].names[1:]]


def change_kind(m):
    m.components[4].kind = ActionComponent.KIND_JOINT_VELOCITY


def change_frame(m):
    m.components[5].frame_id = 'odom'


def give_joints_a_frame(m):
    m.components[0].frame_id = 'base_link'


def cut_data(m):
    m.components[2].data = m.components[2].data[:-1]


def promise_rows(m):
    m.num_steps = 2**31


def components_without_rows(m):
    m.num_steps = 0


def change_checksum(m):
    m.embodiment_checksum = 'f' * 64


@pytest.mark.parametrize(
    ('damage', 'reason', 'component'),
    [
        (drop_component, 'bad_names', ''),
        (swap_components, 'bad_names', ''),
        (components_without_rows, 'bad_names', ''),
        (rename_column, 'bad_names', 'left_arm'),
        (change_kind, 'bad_names', 'torso'),
        (change_frame, 'bad_frame', 'base'),
        (give_joints_a_frame, 'bad_frame', 'left_arm'),
        (cut_data, 'bad_shape', 'right_arm'),
        (promise_rows, 'bad_shape', 'left_arm'),
        (change_checksum, 'embodiment_mismatch', ''),
    ],
)
def test_message_that_does_not_fit_is_refused_with_key_and_component(damage, reason, component):
    message = c.chunk_to_message(chunk(), R1_LITE)
    damage(message)
    with pytest.raises(ChunkError) as caught:
        c.chunk_from_message(message, R1_LITE)
    assert (caught.value.reason, caught.value.component) == (reason, component)


def test_message_without_a_checksum_is_left_to_the_dispatcher():
    message = c.chunk_to_message(chunk(), R1_LITE)
    message.embodiment_checksum = ''
    assert c.chunk_from_message(message, R1_LITE).embodiment_checksum == ''


@pytest.mark.parametrize(
    ('seconds', 'expected'),
    [
        (0.0, (0, 0)),
        (1.5, (1, 500_000_000)),
        (-0.25, (-1, 750_000_000)),
        (0.9999999999, (1, 0)),  # rounds up to the next second
        (-1e-12, (0, 0)),
        (2**31 - 0.5, (2**31 - 1, 500_000_000)),
        (-(2.0**31), (-(2**31), 0)),
    ],
)
def test_seconds_are_split_into_whole_and_nanoseconds(seconds, expected):
    for message in (c.stamp_from_seconds(seconds), c.duration_from_seconds(seconds)):
        assert (message.sec, message.nanosec) == expected
        assert c.seconds_from_stamp(message) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize('seconds', [float('nan'), float('inf'), 2.0**31, -(2.0**31) - 1])
def test_seconds_that_do_not_fit_are_refused(seconds):
    with pytest.raises(ValueError, match='32-bit'):
        c.duration_from_seconds(seconds)
