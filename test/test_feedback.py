"""What was measured last, and how long that is believed."""

from execution_helpers import TOY
import numpy as np
import pytest

from faster_core.execution.feedback import Feedback


@pytest.fixture
def feedback():
    f = Feedback(TOY, 0.5)
    f.take('arm', np.array([0.1, 0.2]), 10.0)
    f.take('hand', np.array([0.03]), 10.0)
    return f


def test_what_was_never_measured_is_stale():
    assert Feedback(TOY, 0.5).stale(0.0) == ('arm', 'hand')


def test_velocities_are_never_stale_nor_positions(feedback):
    assert feedback.stale(10.0) == ()
    assert feedback.take('base', np.array([0.1, 0.1]), 10.0)
    assert set(feedback.positions()) == {'arm', 'hand'}


@pytest.mark.parametrize(('now', 'stale'), [(10.5, ()), (10.51, ('arm', 'hand'))])
def test_a_position_is_believed_for_the_timeout(feedback, now, stale):
    assert feedback.stale(now) == stale


def test_each_component_grows_stale_on_its_own(feedback):
    feedback.take('hand', np.array([0.04]), 10.4)
    assert feedback.stale(10.7) == ('arm',)


@pytest.mark.parametrize(
    'bad',
    [[0.1], [0.1, 0.2, 0.3], [], 0.1, [[0.1, 0.2]], [np.nan, 0.2], [0.1, np.inf]],
    ids=['short', 'long', 'empty', 'scalar', 'matrix', 'nan', 'inf'],
)
def test_a_value_of_wrong_size_or_not_finite_is_ignored_and_does_not_count_as_life(feedback, bad):
    assert not feedback.take('arm', np.array(bad), 10.6)
    assert feedback.positions()['arm'].tolist() == [0.1, 0.2]
    assert 'arm' in feedback.stale(10.6)


def test_an_unknown_component_is_a_mistake_of_the_caller(feedback):
    with pytest.raises(KeyError, match='tail'):
        feedback.take('tail', np.zeros(2), 10.0)


def test_the_array_that_was_handed_in_may_be_reused(feedback):
    buffer = np.array([0.5, 0.6])
    feedback.take('arm', buffer, 10.1)
    buffer[:] = 9.0
    assert feedback.positions()['arm'].tolist() == [0.5, 0.6]


def test_cleared_feedback_is_stale_and_empty(feedback):
    feedback.clear()
    assert feedback.stale(10.0) == ('arm', 'hand')
    assert feedback.positions() == {}


def test_at_a_time_that_is_no_number_nothing_is_fresh(feedback):
    assert feedback.stale(np.nan) == ('arm', 'hand')
