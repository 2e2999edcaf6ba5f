"""The plan: sampling between rows, and splicing a new chunk into it (docs/execution.md)."""

import dataclasses

from execution_helpers import chunk, PERIOD, rows, START, TOY
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from faster_core.execution.plan import held_columns, Plan, splice, step_columns

SWITCHING, HOLDING = step_columns(TOY), held_columns(TOY)
HAND = TOY.action_slices['hand']
PROPERTY = settings(max_examples=50, deadline=None)
REST = np.zeros(5)
random_rows = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).uniform(-1, 1, (8, 5))
)


def plan_of(values, stamp=START):
    return Plan.of_chunk(chunk(values, stamp=stamp), SWITCHING)


def join(values, *, old=None, anchor=None, first=0, stamp=START, blend_steps=0, rest=REST):
    new = chunk(values, stamp=stamp, sequence_id=2)
    return splice(
        old=old,
        anchor=(stamp, np.zeros(5)) if anchor is None else anchor,
        times=new.row_times[first:],
        values=new.values[first:],
        rest=rest,
        holding=HOLDING,
        switching=SWITCHING,
        blend_steps=blend_steps,
        sequence_id=2,
    )


def ramp(slope=1.0):
    return slope * np.arange(1.0, 9.0)[:, None] * np.ones(5)


def test_only_the_gripper_switches():
    assert SWITCHING.tolist() == [False, False, True, False, False]


def test_a_row_is_the_set_point_at_its_due_time():
    plan = plan_of(ramp())
    for k, due in enumerate(START + PERIOD * np.arange(1, 9)):
        assert plan.sample(due) == pytest.approx(np.full(5, k + 1.0))


def test_between_rows_positions_and_velocities_are_interpolated_and_the_gripper_waits():
    sample = plan_of(ramp()).sample(START + 3.25 * PERIOD)
    assert sample == pytest.approx([3.25, 3.25, 3.0, 3.25, 3.25])


def test_the_gripper_switches_when_its_row_falls_due_and_not_before():
    plan = plan_of(rows(hand=[[0.0]] * 4 + [[0.1]] * 4))
    due = START + 5 * PERIOD
    assert plan.sample(due - 1e-3)[HAND] == [0.0]
    assert plan.sample(due)[HAND] == [0.1]


@pytest.mark.parametrize(('time', 'row'), [(-50.0, 0), (START, 0), (START + 60.0, 7)])
def test_outside_of_the_plan_the_nearest_row_holds(time, row):
    assert plan_of(ramp()).sample(time) == pytest.approx(ramp()[row])


def test_a_plan_of_one_row_is_that_row_at_all_times():
    plan = plan_of(rows(1, arm=(0.3, -0.2)))
    for time in (0.0, START + PERIOD, START + 9.0):
        assert plan.sample(time)[:2] == pytest.approx([0.3, -0.2])


def test_a_sample_is_a_copy_that_may_be_written_to():
    plan = plan_of(ramp())
    for time in (0.0, START + PERIOD, START + 60.0):
        plan.sample(time)[:] = 99.0
    assert plan.values == pytest.approx(ramp())


@PROPERTY
@given(random_rows, st.floats(-0.5, 1.5))
def test_a_sample_lies_between_its_neighbours(values, time):
    plan = plan_of(values)
    after = int(np.searchsorted(plan.times, START + time, side='right'))
    near = values[max(after - 1, 0) : after + 1]
    sample = plan.sample(START + time)
    assert (sample >= near.min(axis=0) - 1e-9).all()
    assert (sample <= near.max(axis=0) + 1e-9).all()
    assert sample[HAND] in near[:, HAND]


def test_rows_due_counts_rows_of_the_newest_chunk_only():
    old = plan_of(ramp())
    plan = join(ramp(), old=old, stamp=START + 0.25, first=2)
    assert plan.first_row == 4  # after the anchor and the old rows due at 0.3, 0.4 and 0.5
    assert plan.rows_due(START + 0.5) == 0
    assert plan.rows_due(plan.times[plan.first_row]) == 1
    assert plan.rows_due(plan.end + 1.0) == 6


# --- splice -----------------------------------------------------------------------------------


@pytest.mark.parametrize('blend_steps', [0, 1, 3, 5])
def test_row_i_of_the_blend_weighs_i_plus_one_of_n_plus_one(blend_steps):
    old, new = plan_of(rows(arm=(1.0, 1.0))), rows(arm=(2.0, 2.0))
    spliced = join(new, old=old, blend_steps=blend_steps)
    weights = [(i + 1) / (blend_steps + 1) for i in range(blend_steps)]
    expected = [1.0 + w for w in weights] + [2.0] * (8 - blend_steps)
    assert spliced.values[spliced.first_row :, 0] == pytest.approx(expected)


def test_the_old_plan_is_sampled_at_the_same_absolute_time():
    old = plan_of(ramp())
    spliced = join(np.zeros((8, 5)), old=old, stamp=START + 0.05, blend_steps=1)
    # The first new row is due at START + 0.15: there the old plan says 1.5.
    assert spliced.values[spliced.first_row, 0] == pytest.approx(0.75)


def test_the_gripper_is_never_blended():
    old = plan_of(rows(hand=(0.0,)))
    spliced = join(rows(hand=(0.1,)), old=old, blend_steps=5)
    assert spliced.values[spliced.first_row :, HAND] == pytest.approx(0.1)


def test_beyond_the_old_plans_end_the_blend_starts_from_rest_not_from_its_last_velocity():
    old = plan_of(rows(2, base=(0.5, 0.5)))  # ends at START + 0.2
    spliced = join(rows(base=(0.0, 0.0)), old=old, stamp=START + 0.1, blend_steps=3)
    base = spliced.values[spliced.first_row :, 3]
    assert base == pytest.approx([0.75 * 0.5] + [0.0] * 7)


def test_beyond_the_old_plans_end_positions_blend_from_where_it_would_have_led():
    old = plan_of(rows(3, arm=(0.6, 0.6)))  # ends at START + 0.3
    spliced = join(rows(arm=(0.6, 0.6)), old=old, stamp=START + 0.2, blend_steps=5, rest=REST)
    assert spliced.values[spliced.first_row :, :2] == pytest.approx(0.6)  # not back towards rest


def test_without_an_old_plan_the_blend_starts_from_rest():
    rest = np.array([0.4, 0.0, 0.0, 0.0, 0.0])
    spliced = join(rows(), blend_steps=1, rest=rest)
    assert spliced.values[1, 0] == pytest.approx(0.2)


def test_a_blend_longer_than_the_chunk_ends_with_the_chunk():
    spliced = join(rows(2, arm=(1.0, 1.0)), blend_steps=5)
    assert spliced.values[1:, 0] == pytest.approx([1 / 6, 2 / 6])


def test_the_old_plan_is_followed_until_the_first_new_row():
    old = plan_of(ramp())
    anchor = (START + 0.25, np.full(5, 2.5))
    spliced = join(-ramp(), old=old, anchor=anchor, stamp=START + 0.05, first=4)
    for time in (0.25, 0.3, 0.37, 0.5):
        assert spliced.sample(START + time)[0] == pytest.approx(10 * time)
    assert spliced.sample(START + 0.55)[0] == pytest.approx(-5.0)


def test_rows_on_the_old_rows_grid_replace_them_also_at_todays_wall_clock():
    # As floats, times of today are 2.4e-7 s apart: the same instant computed twice differs.
    for k in range(200):
        stamp, later = 1.76e9 + k * PERIOD, 1.76e9 + (k + 3) * PERIOD
        old = plan_of(ramp(), stamp=stamp)
        spliced = join(ramp(-1.0), old=old, anchor=(stamp, REST), stamp=later)
        assert np.diff(spliced.times).min() > 0.5 * PERIOD
        assert spliced.first_row == 4


@PROPERTY
@given(random_rows, random_rows, st.floats(0.0, 0.7), st.integers(0, 8), st.floats(0.0, 1.2))
def test_a_splice_starts_where_the_robot_is_and_its_times_strictly_increase(
    old_values, new_values, age, blend_steps, now
):
    anchor = (START + now, np.linspace(-0.5, 0.5, 5))
    stamp = START + now - age
    first = int(np.count_nonzero(chunk(stamp=stamp).row_times < START + now + PERIOD))
    spliced = join(
        new_values,
        old=plan_of(old_values),
        anchor=anchor,
        stamp=stamp,
        first=first,
        blend_steps=blend_steps,
    )
    assert (np.diff(spliced.times) > 0).all()
    assert spliced.sample(START + now) == pytest.approx(anchor[1])
    assert spliced.end == pytest.approx(stamp + 8 * PERIOD)
    step = spliced.sample(START + now + 1e-4) - anchor[1]
    gap = spliced.times[1] - spliced.times[0]
    assert (np.abs(step[~SWITCHING]) <= 2.0 * (1e-4 + 1e-6) / gap).all()


@PROPERTY
@given(random_rows, random_rows, st.integers(0, 8))
def test_blended_rows_stay_between_old_and_new(old_values, new_values, blend_steps):
    spliced = join(new_values, old=plan_of(old_values), blend_steps=blend_steps)
    blended = spliced.values[spliced.first_row :]
    low, high = np.minimum(old_values, new_values), np.maximum(old_values, new_values)
    assert (blended >= low - 1e-9).all()
    assert (blended <= high + 1e-9).all()


@PROPERTY
@given(random_rows, st.integers(0, 5), st.integers(0, 4), st.floats(0.0, 1.0))
def test_a_chunk_that_says_what_the_plan_says_changes_nothing(values, blend, first, share):
    old = plan_of(values)
    now = START + PERIOD * (first + share) + PERIOD
    again = join(
        values, old=old, anchor=(now, old.sample(now)), first=first + 2, blend_steps=blend
    )
    for time in np.linspace(now, old.end + 0.1, 23):
        sample, expected = again.sample(time), old.sample(time)
        assert sample[~SWITCHING] == pytest.approx(expected[~SWITCHING], abs=1e-4)


def test_splicing_again_and_again_does_not_make_the_plan_grow():
    plan = None
    for k in range(100):
        stamp = START + 0.03 * k
        plan = join(ramp(), old=plan, anchor=(stamp, REST), stamp=stamp, first=1)
    assert len(plan.times) <= 16  # anchor, one knot per chunk until the first row, rows


def test_splice_leaves_chunk_and_old_plan_as_they_were():
    values, old = ramp(), plan_of(rows())
    before = dataclasses.replace(old, values=old.values.copy(), times=old.times.copy())
    join(values, old=old, blend_steps=5)
    assert (values == ramp()).all()
    assert (old.values == before.values).all()
    assert (old.times == before.times).all()
