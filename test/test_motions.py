"""Sets of motions: what is refused, how chunks are cut, and what a folder holds."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from motion_helpers import motion, motion_set
import numpy as np
import pytest

from faster_core.data.episodes import chunk_labels
from faster_core.data.motions import (
    HELD_OUT,
    HELD_OUT_TASK,
    MotionError,
    TRAIN,
)

POSITIONS, MOVES = slice(0, 3), slice(3, 5)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'action': [[0.0] * 5, [0.0, 0.0, np.nan, 0.0, 0.0]]}, r'row 1, column 2 is nan'),
        ({'action': [[np.inf] * 5]}, r'action: row 0, column 0 is inf, expected a finite number'),
        ({'action': [[1e300] * 5]}, r'column 0 is inf'),
        ({'action': np.zeros((0, 5))}, r'expected \[T, width\] with T >= 1, found \[0, 5\]'),
        ({'action': np.zeros(5)}, r'found \[5\]'),
        ({'action': np.zeros((2, 3, 5))}, r'found \[2, 3, 5\]'),
        ({'action': [['left'] * 5]}, r'expected numbers, found list'),
        ({'state': np.zeros((7, 2))}, r'7 rows of state, expected 6'),
        ({'state': np.full((6, 2), -np.inf)}, r'state: row 0, column 0 is -inf'),
    ],
)
@pytest.mark.filterwarnings('ignore:overflow')
def test_arrays_that_are_no_finite_rows_are_refused(changes, message):
    with pytest.raises(MotionError, match=message) as caught:
        motion(**changes)
    assert str(caught.value).startswith('episode e0')


def test_motion_is_a_copy_in_float32_that_cannot_be_written_to():
    source = np.ones((3, 5), dtype=np.float32)
    kept = motion(action=source, state=None)
    source[:] = 7
    assert kept.action.dtype == np.float32
    assert (kept.action == 1).all()
    with pytest.raises(ValueError, match='read-only'):
        kept.action[0, 0] = 2


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'motions': (), 'splits': ()}, 'no motions'),
        ({'splits': (TRAIN,)}, '1 splits for 3 motions'),
        ({'splits': (TRAIN, 'test', TRAIN)}, "split 'test', expected one of .*held_out_task"),
        ({'rate': 15.0}, 'recorded at 15 Hz, the embodiment toy has 10 Hz'),
        ({'rate': 10.02}, 'recorded at 10.02 Hz'),
        ({'rate': float('nan')}, 'recorded at nan Hz'),
        (
            {'motions': (motion(action=np.zeros((6, 4))),), 'splits': (TRAIN,)},
            'episode e0: action has 4 columns, the embodiment toy has 5',
        ),
        (
            {'motions': (motion(state=np.zeros((6, 3))),), 'splits': (TRAIN,)},
            'state has 3 columns, the embodiment toy has 2',
        ),
        (
            {'motions': (motion(), motion(8)), 'splits': (TRAIN, TRAIN)},
            'episode e0: named twice',
        ),
        (
            {'motions': (motion(), motion(number=1, state=None)), 'splits': (TRAIN, TRAIN)},
            'episode e1: some episodes have a state and some have none',
        ),
    ],
)
def test_set_that_does_not_fit_together_is_refused_by_name_and_value(changes, message):
    with pytest.raises(MotionError, match=message) as caught:
        motion_set(**changes)
    assert str(caught.value).startswith('toys: ')


def test_rate_may_differ_from_the_embodiments_by_what_clocks_differ():
    assert motion_set(rate=10.001).rate == 10.001


def test_same_trajectory_may_not_be_trained_on_and_held_out():
    twin = dataclasses.replace(motion(), episode='twin')
    alone = {'motions': (motion(), twin)}
    assert motion_set(**alone, splits=(TRAIN, TRAIN)).splits == (TRAIN, TRAIN)
    with pytest.raises(MotionError, match='episode twin: held_out, its twin e0 is train'):
        motion_set(**alone, splits=(TRAIN, HELD_OUT))


def test_absent_split_is_refused_and_the_present_ones_are_named():
    with pytest.raises(MotionError, match=r"no episodes in split 'held_out', only in \['train'"):
        motion_set().chunks(HELD_OUT)


@pytest.mark.parametrize('stride', [0, -1, 1.5, True, '2'])
def test_stride_that_is_no_positive_whole_number_is_refused(stride):
    with pytest.raises(MotionError, match='stride: expected a whole number >= 1, found'):
        motion_set().chunks(TRAIN, stride=stride)


def test_unknown_reference_is_refused():
    with pytest.raises(MotionError, match=r"reference: expected one of .* found 'camera'"):
        motion_set().chunks(TRAIN, 'camera')


# --- chunks -----------------------------------------------------------------------------------

SHAPES = st.fixed_dictionaries(
    {
        'lengths': st.lists(st.integers(1, 20), min_size=1, max_size=5),
        'horizon': st.integers(1, 8),
        'stride': st.integers(1, 9),
        'rests': st.booleans(),
        'reference': st.sampled_from(['absolute', 'state']),
    }
)


@given(SHAPES)
def test_every_row_of_a_chunk_is_the_episodes_or_past_its_end_the_rest(shape):
    motions = motion_set(shape['lengths'], horizon=shape['horizon'], rests=shape['rests'])
    parts = motions.episode_chunks(TRAIN, shape['reference'], shape['stride'])
    starts = motions.chunk_starts(TRAIN, shape['stride'])
    assert sum(map(len, parts)) == len(starts)
    chunks = np.concatenate(parts)
    assert chunks.dtype == np.float32
    for chunk, (episode, first) in zip(chunks, starts, strict=True):
        own = motions.of_split(TRAIN)[episode]
        expected = np.zeros((shape['horizon'], 5), dtype=np.float32)
        for row in range(shape['horizon']):
            past = first + row >= own.num_steps
            assert not past or shape['rests']
            expected[row, POSITIONS] = own.action[min(first + row, own.num_steps - 1), POSITIONS]
            expected[row, MOVES] = 0 if past else own.action[first + row, MOVES]
        if shape['reference'] == 'state':
            expected[:, :2] -= own.state[first]
        assert np.array_equal(chunk, expected)


@given(SHAPES)
def test_chunks_start_at_every_stride_as_long_as_they_fit(shape):
    motions = motion_set(shape['lengths'], horizon=shape['horizon'], rests=shape['rests'])
    found = motions.chunk_starts(TRAIN, shape['stride'])
    expected = [
        (episode, first)
        for episode, length in enumerate(shape['lengths'])
        for first in range(0, length, shape['stride'])
        if shape['rests'] or first + shape['horizon'] <= length
    ]
    assert found.tolist() == [list(pair) for pair in expected]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 8), st.booleans())
def test_consecutive_chunks_put_together_are_the_episode(lengths, horizon, rests):
    motions = motion_set(lengths, horizon=horizon, rests=rests)
    for own, chunks in zip(motions.motions, motions.episode_chunks(TRAIN), strict=True):
        together = chunks.reshape(-1, 5)
        inside = min(len(together), own.num_steps)
        assert np.array_equal(together[:inside], own.action[:inside])
        # Without rest less than a chunk is missing, with rest nothing is.
        assert own.num_steps - inside < (1 if rests else horizon)


def test_chunks_of_a_robot_that_rests_are_the_labels_of_its_episodes():
    motions = motion_set(rests=True)
    expected = [chunk_labels(m.action, motions.embodiment) for m in motions.motions]
    assert np.array_equal(motions.chunks(TRAIN), np.concatenate(expected))


def test_chunks_are_those_of_the_split_alone():
    motions = motion_set(splits=(HELD_OUT_TASK, TRAIN, HELD_OUT))
    for i, split in enumerate((HELD_OUT_TASK, TRAIN, HELD_OUT)):
        assert np.array_equal(motions.chunks(split)[0], motions.motions[i].action[:4])
        assert len(motions.chunks(split)) == (6, 9, 7)[i] - 3


def test_split_whose_episodes_are_all_too_short_has_no_chunk_and_says_so():
    motions = motion_set((2, 3, 9), splits=(HELD_OUT, HELD_OUT, TRAIN))
    with pytest.raises(MotionError, match='its longest episode has 3 rows, a chunk 4'):
        motions.chunks(HELD_OUT)
    assert [len(c) for c in motions.episode_chunks(HELD_OUT)] == [0, 0]
    assert motions.chunk_starts(HELD_OUT).shape == (0, 2)


def test_chunks_relative_to_the_state_need_one():
    motions = motion_set(state=False)
    assert motions.chunks(TRAIN).shape == (3 + 6 + 4, 4, 5)
    with pytest.raises(MotionError, match="reference 'state' needs a state, found none"):
        motions.chunks(TRAIN, 'state')


def test_chunks_may_be_written_to_without_changing_the_episode():
    for rests in (False, True):
        motions = motion_set(rests=rests)
        before = motions.motions[0].action.copy()
        motions.chunks(TRAIN)[:] = 9
        motions.episode_chunks(TRAIN)[0][:] = 9
        assert np.array_equal(motions.motions[0].action, before)


def test_summary_counts_what_is_there():
    summary = motion_set(splits=(TRAIN, HELD_OUT, TRAIN)).summary()
    assert summary['splits'] == {
        TRAIN: {'tasks': 1, 'episodes': 2, 'steps': 13, 'chunks': 3 + 4},
        HELD_OUT: {'tasks': 1, 'episodes': 1, 'steps': 9, 'chunks': 6},
    }
    assert (summary['action_dim'], summary['horizon'], summary['has_state']) == (5, 4, True)


def test_columns_tell_range_and_largest_step_within_an_episode():
    action = np.zeros((3, 5))
    action[:, 0] = [1.0, 3.0, 2.0]
    far = np.zeros((2, 5))
    far[:, 0] = [90.0, 91.0]
    motions = motion_set(
        motions=(motion(action=action, state=None), motion(number=1, action=far, state=None)),
        splits=(TRAIN, TRAIN),
    )
    first, *_, last = motions.columns()
    assert first == {
        'component': 'arm',
        'kind': 'joint_position',
        'name': 'j1',
        'least': 1.0,
        'most': 91.0,
        'largest_step': 2.0,
        'values': 5,
    }
    assert (last['kind'], last['name'], last['values']) == ('ee_delta', 'rz', 1)
