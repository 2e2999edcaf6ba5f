"""One state component out of feedback messages: by name or by index, at the time of the image."""

import time
import tracemalloc

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


@pytest.mark.parametrize(
    ('velocity', 'expected'),
    [
        ([0.5, 0.6], 'arm: no velocity of wrist'),
        ([], 'arm: no velocity of shoulder, elbow, wrist'),
        ([0.5, 0.6, 0.7, 0.8], 'arm: 4 values of velocity for 3 names'),
    ],
)
def test_values_that_are_not_one_per_name_are_refused(velocity, expected):
    m = message([1.0, 2.0, 3.0], JOINTS)
    m.velocity = velocity
    with pytest.raises(ObservationError, match=expected):
        by_name(field='velocity').parse(m)


@pytest.mark.parametrize('twice', ['elbow', 'wheel'])
def test_joint_named_twice_in_a_message_is_refused(twice):
    source = by_name()
    m = message(range(6), [*JOINTS, 'wheel', 'finger', twice])
    for _ in range(2):  # the second time from what was remembered of the names
        with pytest.raises(ObservationError, match=f'arm: the message names {twice} twice'):
            source.parse(m)
    np.testing.assert_array_equal(source.parse(message(range(3), JOINTS)), [0, 1, 2])


def test_names_that_change_are_looked_up_anew():
    source = by_name()
    for _ in range(3):
        np.testing.assert_array_equal(source.parse(message([1, 2, 3], JOINTS)), [1, 2, 3])
        np.testing.assert_array_equal(source.parse(message([3, 2, 1], JOINTS[::-1])), [1, 2, 3])
        with pytest.raises(ObservationError, match='arm: no position of elbow'):
            source.parse(message([1, 2, 3], ['shoulder', 'Elbow', 'wrist']))


def test_values_are_those_of_the_message_when_it_came():
    m = message([1.0, 2.0, 3.0], JOINTS)
    for source in (by_name(), by_index([3])):
        values = source.parse(m)
        m.position[0] = 9.0
        np.testing.assert_array_equal(values, [1.0, 2.0, 3.0])
        m.position[0] = 1.0


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
        ({'joints': JOINTS, 'axes': ('vx',)}, r"arm.axes: expected none .* found \['vx'\]"),
        ({'joints': JOINTS, 'type': 'imu'}, "arm.type: expected one of joint_state, .* 'imu'"),
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


@pytest.mark.parametrize(
    ('back', 'expected'), [(0.0, 'arm: the stamp repeats'), (0.04, 'arm: the stamp runs back by ')]
)
def test_late_or_repeated_message_is_refused_and_counted_and_blocks_nothing(back, expected):
    source = by_index([3])
    source.add(message([1, 1, 1]), 10.0)
    assert not source.add(message([2, 2, 2]), 10.0 - back)
    assert source.num_refused == 1
    assert expected in source.refusal
    np.testing.assert_array_equal(source.nearest(10.0 - back, 0.1), [1, 1, 1])
    assert source.add(message([3, 3, 3]), 10.01)
    assert source.refusal == ''
    assert source.num_refused == 1


def test_clock_that_went_back_forgets_what_came_before():
    source = by_index([3])
    source.add(message([1, 1, 1]), 100.0)
    assert source.add(message([2, 2, 2]), 3.0)
    assert source.num_refused == 0
    np.testing.assert_array_equal(source.nearest(3.0, 0.01), [2, 2, 2])
    with pytest.raises(ObservationError, match='from the image'):
        source.nearest(100.0, 0.01)


def test_every_kind_of_bad_message_is_counted():
    source = by_name()
    nan = message([0.0, np.nan, 0.0], JOINTS)
    for bad in (message([1], ['shoulder']), nan, message(range(4), [*JOINTS, 'elbow']), nan):
        assert not source.add(bad, 1.0)
        assert source.refusal == source.problem != ''
    assert source.num_refused == 4
    source.clear()
    assert source.num_refused == 4


def test_message_of_another_publisher_on_the_topic_is_passed_over():
    source = by_name()
    others = message([7.0], ['wheel'])
    assert not source.add(others, 0.5)  # none came yet: perhaps the names are wrong
    assert source.problem == 'arm: no position of shoulder, elbow, wrist'
    assert source.add(message([1, 2, 3], JOINTS), 1.0)
    assert not source.add(others, 1.01)
    assert (source.problem, source.num_refused) == ('', 1)
    np.testing.assert_array_equal(source.nearest(1.0, 0.1), [1, 2, 3])


def test_memory_is_bounded():
    source = by_index([3])
    for k in range(HISTORY + 5):
        source.add(message([k, k, k]), float(k))
    with pytest.raises(ObservationError, match=r'1\.000 s from the image'):
        source.nearest(4.0, 0.5)
    np.testing.assert_array_equal(source.nearest(5.0, 0.5), [5, 5, 5])


def test_bad_messages_do_not_grow_memory():
    source, bad = by_name(), message([1], ['shoulder'])
    source.add(bad, 1.0)
    tracemalloc.start()
    try:
        for _ in range(2000):
            source.add(bad, 1.0)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def line(**options):
    """A source with values that are linear in time: 10, 20 and 30 per second."""
    source = by_index([3], interpolate=True, **options)
    for t in (1.0, 1.1, 1.3):
        source.add(message([10 * t, 20 * t, 30 * t]), t)
    return source


@pytest.mark.parametrize('stamp', [1.0, 1.025, 1.05, 1.1, 1.2])
def test_interpolation_is_linear_between_the_neighbours(stamp):
    np.testing.assert_allclose(line().at(stamp, 0.11), [10 * stamp, 20 * stamp, 30 * stamp])


@pytest.mark.parametrize(('stamp', 'expected'), [(0.95, 1.0), (1.32, 1.3)])
def test_nothing_is_extrapolated(stamp, expected):
    np.testing.assert_allclose(line().at(stamp, 0.1)[0], 10 * expected)


@pytest.mark.parametrize(('stamp', 'expected'), [(1.15, 1.1), (1.25, 1.3)])
def test_neighbour_beyond_the_tolerance_is_not_used(stamp, expected):
    np.testing.assert_allclose(line().at(stamp, 0.1)[0], 10 * expected)
    with pytest.raises(ObservationError, match=r'at most 0\.04 s are allowed'):
        line().at(stamp, 0.04)


def test_without_interpolation_the_nearest_is_taken_as_it_is():
    source = by_index([3])
    for t in (1.0, 1.1):
        source.add(message([t, t, t]), t)
    assert source.at(1.04, 0.1)[0] == 1.0
    assert source.at(1.06, 0.1)[0] == 1.1


@pytest.mark.parametrize('kind', [Kind.GRIPPER_POSITION, Kind.EE_POSE])
def test_what_has_no_value_between_two_is_not_interpolated(kind):
    part = Component(name='part', kind=kind, names=('a',))
    config = SourceConfig(topic='t', joints=('a',), interpolate=True)
    expected = f'part.interpolate: expected false for .* {kind.name.lower()}, found true'
    with pytest.raises(ConfigError, match=expected):
        StateSource(part, config)


@pytest.mark.bench
def test_microseconds_per_message_of_fourteen_joints():
    names = [f'joint{i}' for i in range(14)]
    arms = Component(name='arms', kind=Kind.JOINT_POSITION, names=tuple(names))
    config = SourceConfig(topic='joint_states', joints=tuple(reversed(names)))
    source, stamp, costs = StateSource(arms, config), 0.0, []
    messages = [message(range(14), names) for _ in range(100)]
    for _ in range(50):
        start = time.perf_counter()
        for m in messages:
            stamp += 0.002
            source.add(m, stamp)
        costs.append((time.perf_counter() - start) / len(messages) * 1e6)
    lookups = []
    for _ in range(50):
        start = time.perf_counter()
        for k in range(100):
            source.at(stamp - k * 0.01, 0.05)
        lookups.append((time.perf_counter() - start) / 100 * 1e6)
    print(f'\nadd: {np.median(costs):.2f} us, at: {np.median(lookups):.2f} us')
    assert np.median(costs) < 100.0  # 5 % of a core at 500 Hz
