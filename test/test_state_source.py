"""One state component out of feedback messages: by name or by index, nearest in time."""

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from sensor_msgs.msg import JointState

from faster_core.embodiment import Component, Kind
from faster_core.errors import ConfigError, ObservationError
from faster_vla_ros.sensors.state import HISTORY, SourceConfig, StateSource

pytestmark = pytest.mark.ros

ARM = Component(name='arm', kind=Kind.JOINT_POSITION, names=('a', 'b', 'c'))
JOINTS = ('shoulder', 'elbow', 'wrist')


def by_name(**options):
    return StateSource(ARM, SourceConfig(topic='joint_states', joints=JOINTS, **options))


def by_index(size, **options):
    config = SourceConfig(topic='feedback', mapping='by_index', size=tuple(size), **options)
    return StateSource(ARM, config)


def message(values, names=(), field='position'):
    m = JointState(name=list(names))
    setattr(m, field, [float(v) for v in values])
    return m


def test_joint_states_in_any_order_give_the_same_observation():
    rng = np.random.default_rng(0)
    names = [*JOINTS, 'wheel', 'finger']
    values = [0.1, -0.2, 0.3, 7.0, 8.0]
    for _ in range(20):
        order = rng.permutation(5)
        shuffled = message([values[i] for i in order], [names[i] for i in order])
        np.testing.assert_array_equal(by_name().parse(shuffled), [0.1, -0.2, 0.3])


def test_missing_joints_are_named():
    with pytest.raises(ObservationError, match='arm: no position of elbow, wrist'):
        by_name().parse(message([0.1], ['shoulder']))


def test_joint_without_a_value_in_the_wanted_field_is_missing():
    m = message([1.0, 2.0, 3.0], JOINTS)
    m.velocity = [0.5, 0.6]
    with pytest.raises(ObservationError, match='arm: no velocity of wrist'):
        by_name(field='velocity').parse(m)


def test_field_scale_and_offset_are_applied():
    m = message([1.0, 2.0, 3.0], JOINTS, field='effort')
    m.position = [9.0, 9.0, 9.0]
    source = by_name(field='effort', scale=0.5, offset=-1.0)
    np.testing.assert_allclose(source.parse(m), [-0.5, 0.0, 0.5])


@pytest.mark.parametrize('length', [3, 5])
def test_index_source_takes_the_first_values_of_an_accepted_length(length):
    source = by_index([3, 5])
    np.testing.assert_array_equal(source.parse(message(range(length))), [0, 1, 2])


@pytest.mark.parametrize('length', [0, 2, 4, 6])
def test_index_source_with_wrong_size_is_refused(length):
    with pytest.raises(ObservationError, match=f'arm: {length} values .* expected 3 or 5'):
        by_index([3, 5]).parse(message(range(length)))


def test_ignored_surplus_value_may_be_anything():
    np.testing.assert_array_equal(by_index([4]).parse(message([1, 2, 3, np.nan])), [1, 2, 3])


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named_by_its_dimension(bad):
    with pytest.raises(ObservationError, match='arm: position of b is not finite'):
        by_index([3]).parse(message([0.0, bad, 0.0]))


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'joints': ('x', 'y')}, r"arm.joints: expected 3 names, found \['x', 'y'\]"),
        ({'joints': ('x', 'y', 'x')}, 'arm.joints: named twice: x'),
        ({'mapping': 'by_index'}, r'arm.size: expected lengths of at least 3, found \[\]'),
        ({'mapping': 'by_index', 'size': (2, 3)}, r'at least 3, found \[2, 3\]'),
    ],
)
def test_configuration_that_cannot_fill_the_component_is_refused(options, expected):
    with pytest.raises(ConfigError, match=expected):
        StateSource(ARM, SourceConfig(topic='t', **options))


def test_nearest_message_in_time_is_taken():
    source = by_index([3])
    for k in range(10):
        assert source.add(message([k, k, k]), k * 0.01)
    for stamp, expected in ((0.034, 3), (0.036, 4), (-0.005, 0), (0.1, 9)):
        np.testing.assert_array_equal(source.nearest(stamp, 0.02), [expected] * 3)


def test_nothing_within_the_tolerance_is_refused_with_the_distance():
    source = by_index([3])
    source.add(message([1, 2, 3]), 5.0)
    np.testing.assert_array_equal(source.nearest(5.25, 0.25), [1, 2, 3])
    with pytest.raises(ObservationError, match=r'0\.300 s from the image, at most 0\.25 s'):
        source.nearest(5.3, 0.25)


def test_source_without_messages_says_so():
    source = by_index([3])
    with pytest.raises(ObservationError, match='arm: no message yet'):
        source.nearest(0.0, 1.0)
    source.add(message([1, 2, 3]), 0.0)
    source.clear()
    with pytest.raises(ObservationError, match='arm: no message yet'):
        source.nearest(0.0, 1.0)


def test_bad_message_blocks_older_good_ones_until_the_next_good_one():
    source = by_index([3])
    source.add(message([1, 2, 3]), 0.0)
    assert not source.add(message([1, np.nan, 3]), 0.01)
    with pytest.raises(ObservationError, match='b is not finite'):
        source.nearest(0.0, 1.0)
    assert source.add(message([4, 5, 6]), 0.02)
    np.testing.assert_array_equal(source.nearest(0.02, 0.001), [4, 5, 6])


def test_clock_that_went_back_forgets_what_came_before():
    source = by_index([3])
    source.add(message([1, 1, 1]), 100.0)
    source.add(message([2, 2, 2]), 3.0)
    np.testing.assert_array_equal(source.nearest(3.0, 0.01), [2, 2, 2])
    with pytest.raises(ObservationError, match='from the image'):
        source.nearest(100.0, 0.01)


def test_memory_is_bounded():
    source = by_index([3])
    for k in range(HISTORY + 5):
        source.add(message([k, k, k]), float(k))
    with pytest.raises(ObservationError, match=r'1\.000 s from the image'):
        source.nearest(4.0, 0.5)
    np.testing.assert_array_equal(source.nearest(5.0, 0.5), [5, 5, 5])
