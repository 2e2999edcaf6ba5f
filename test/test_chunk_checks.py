"""Checks on a whole chunk: every reason, its boundary, and a sentence that helps."""

import re

from execution_helpers import chunk, config, PERIOD, rows, START, TOY
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from faster_core.execution import checks
from faster_core.execution.errors import ChunkError, CONTENT_REASONS, STATE_REASONS

MEASURED = {'arm': np.zeros(2), 'hand': np.array([0.05])}


def refused(check, *args, **kwargs):
    with pytest.raises(ChunkError) as caught:
        check(*args, **kwargs)
    return caught.value


def with_value(value, *, row=2, name=0):
    values = rows()
    values[row, name] = value
    return values


# --- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize('num_rows', [0, 1, 8])
def test_from_no_row_to_the_whole_horizon_is_fine(num_rows):
    checks.check_layout(chunk(rows(num_rows)), TOY)


@pytest.mark.parametrize('checksum', ['', 'f' * 64])
def test_a_chunk_of_another_embodiment_is_refused_and_names_both(checksum):
    error = refused(checks.check_layout, chunk(embodiment_checksum=checksum), TOY)
    assert error.reason == 'embodiment_mismatch'
    assert (checksum[:12] or '(none)') in error.detail
    assert TOY.checksum[:12] in error.detail


@pytest.mark.parametrize('shape', [(9, 5), (8, 4), (8, 6), (5,), (1, 8, 5), (0, 4), ()])
def test_a_wrong_shape_is_refused_and_named(shape):
    error = refused(checks.check_layout, chunk(np.zeros(shape)), TOY)
    assert error.reason == 'bad_shape'
    assert str(list(shape)) in error.detail
    assert '[at most 8, 5]' in error.detail


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(('name', 'words'), [(1, 'arm/j2'), (2, 'hand/finger'), (4, 'base/wz')])
def test_nan_in_one_component_drops_the_whole_chunk(bad, name, words):
    error = refused(checks.check_layout, chunk(with_value(bad, row=7, name=name)), TOY)
    assert error.reason == 'not_finite'
    assert error.component == words.split('/')[0]
    assert f'{words} is {bad} in row 7, expected finite' in error.detail


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('stamp', np.nan),
        ('stamp', np.inf),
        ('step_period', 0.0),
        ('step_period', -PERIOD),
        ('step_period', np.nan),
        ('step_period', PERIOD * 1.01),
        ('first_step_offset', -0.01),
        ('first_step_offset', 8.1 * PERIOD),
        ('first_step_offset', np.nan),
    ],
)
def test_impossible_timing_is_refused_and_named(field, value):
    error = refused(checks.check_layout, chunk(**{field: value}), TOY)
    assert error.reason == 'bad_timing'
    assert field in error.detail
    assert 'expected' in error.detail


def test_a_period_rounded_to_nanoseconds_is_the_period():
    checks.check_layout(chunk(step_period=PERIOD + 1e-9), TOY)


def test_a_chunk_without_rows_needs_no_timing_but_a_stamp():
    checks.check_layout(chunk(rows(0), step_period=0.0, first_step_offset=0.0), TOY)
    error = refused(checks.check_layout, chunk(rows(0), stamp=np.nan), TOY)
    assert error.reason == 'bad_timing'


# --- time -------------------------------------------------------------------------------------


def check_time(now, *, newest=-np.inf, values=None, **changes):
    return checks.check_time(chunk(values), TOY, config(**changes), now=now, newest_stamp=newest)


@pytest.mark.parametrize(
    ('age', 'dropped'), [(0.0, 0), (0.05, 1), (0.1001, 2), (0.237, 3), (0.6999, 7)]
)
def test_late_chunk_keeps_only_future_rows(age, dropped):
    # Row k is due at START + (k + 1) * 0.1; due sooner than one period from now is too late.
    assert check_time(START + age) == dropped


@pytest.mark.parametrize(('min_lead', 'dropped'), [(0.01, 0), (0.151, 1), (0.3501, 3)])
def test_rows_due_sooner_than_the_lead_are_dropped(min_lead, dropped):
    assert check_time(START, min_lead=min_lead) == dropped


def test_all_rows_late_is_expired():
    error = refused(check_time, START + 0.75)
    assert error.reason == 'expired'
    assert 'due 0.050 s from now' in error.detail
    assert 'at least 0.100 s' in error.detail


def test_a_single_row_expires_too():
    assert check_time(START, values=rows(1), min_lead=0.05) == 0
    assert refused(check_time, START + 0.06, values=rows(1), min_lead=0.05).reason == 'expired'


def test_an_observation_may_be_as_old_as_allowed_and_no_older():
    assert check_time(START + 0.5, max_chunk_age=0.5001) == 5
    error = refused(check_time, START + 0.5, max_chunk_age=0.499)
    assert error.reason == 'too_old'
    assert '0.500 s ago, at most 0.499 s' in error.detail


@pytest.mark.parametrize('newest', [START, START + 0.1])
def test_a_stamp_not_later_than_the_newest_is_out_of_order(newest):
    error = refused(check_time, START + 0.2, newest=newest)
    assert error.reason == 'out_of_order'
    assert f'{START:.3f}, expected later than {newest:.3f}' in error.detail


def test_a_stamp_of_the_future_is_refused_beyond_what_two_clocks_differ():
    assert check_time(START - 0.04) == 0
    error = refused(check_time, START - 0.06)
    assert error.reason == 'bad_timing'
    assert '0.060 s in the future' in error.detail


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(0.0, 0.5), st.integers(1, 8))
def test_rows_that_survive_are_at_least_the_lead_away_and_those_before_are_not(age, lead, count):
    now, due = START + age, chunk(rows(count)).row_times
    lead_used = lead or PERIOD
    try:
        dropped = check_time(now, values=rows(count), min_lead=lead)
    except ChunkError as error:
        assert error.reason == 'expired'
        dropped = count
    assert (due[dropped:] >= now + lead_used).all()
    assert (due[:dropped] < now + lead_used).all()


# --- motion -----------------------------------------------------------------------------------


def check_motion(values, first_row=0, **changes):
    checks.check_motion(chunk(values), TOY, config(**changes), first_row=first_row)


def test_a_range_may_be_exceeded_by_a_tenth_of_it_and_no_more():
    check_motion(rows(arm=(1.19, -1.19)))
    error = refused(check_motion, rows(arm=(0.0, -1.21)))
    assert (error.reason, error.component) == ('position_limit', 'arm')
    assert 'arm/j2 is -1.210, expected -1.000 to 1.000' in error.detail


def test_the_grippers_range_counts_as_well():
    check_motion(rows(hand=(0.109,)))
    error = refused(check_motion, rows(hand=(-0.02,)))
    assert (error.reason, error.component) == ('position_limit', 'hand')


def test_a_speed_may_exceed_its_limit_by_a_tenth_and_no_more():
    arm = np.zeros((8, 2))
    arm[:, 1] = 2.19 * PERIOD * np.arange(8) - 0.7
    check_motion(rows(arm=arm))
    arm[5, 1] += 0.02
    error = refused(check_motion, rows(arm=arm))
    assert (error.reason, error.component) == ('step_velocity', 'arm')
    assert re.search(r'arm/j2 has speed 2\.390 in row 4, at most 2\.200', error.detail)


@pytest.mark.parametrize(('value', 'fine'), [(0.54, True), (0.56, False), (-0.56, False)])
def test_a_velocity_component_is_compared_by_value(value, fine):
    if fine:
        check_motion(rows(base=(value, 0.0)))
        return
    error = refused(check_motion, rows(base=(value, 0.0)))
    assert (error.reason, error.component) == ('step_velocity', 'base')
    assert 'base/vx has speed 0.560' in error.detail
    assert 'at most 0.550' in error.detail


def test_the_tolerated_excess_is_configured():
    check_motion(rows(base=(0.7, 0.0)), excess_tolerance=0.5)
    with pytest.raises(ChunkError, match=r'at most 0\.500'):
        check_motion(rows(base=(0.51, 0.0)), excess_tolerance=0.0)


def test_a_gripper_may_switch_from_row_to_row():
    check_motion(rows(hand=[[0.0], [0.1]] * 4))


@pytest.mark.parametrize('name', [0, 3])
def test_rows_that_are_dropped_are_not_judged(name):
    values = with_value(99.0, row=1, name=name)
    check_motion(values, first_row=2)
    assert refused(check_motion, values, first_row=1).reason.endswith(('limit', 'velocity'))


@pytest.mark.parametrize('num_rows', [1, 2, 8])
def test_rows_that_are_all_equal_or_alone_have_no_speed(num_rows):
    check_motion(rows(num_rows, arm=(0.5, 0.5)))


def test_without_position_limits_only_speed_counts():
    changes = {'arm.position_limits': None}
    check_motion(rows(arm=(50.0, -50.0)), **changes)


def test_the_row_that_is_named_is_counted_from_the_chunks_first():
    values = with_value(99.0, row=6, name=3)
    assert 'in row 6' in refused(check_motion, values, first_row=4).detail


# --- start ------------------------------------------------------------------------------------


def check_start(first):
    checks.check_start(np.asarray(first, dtype=float), MEASURED, TOY, config())


def test_the_first_set_point_may_be_the_start_offset_away_and_no_more():
    check_start([0.29, -0.29, 0.05, 0.0, 0.0])
    error = refused(check_start, [0.0, -0.31, 0.05, 0.0, 0.0])
    assert (error.reason, error.component) == ('start_offset', 'arm')
    assert (
        'arm/j2 would start at -0.310 but is at 0.000: 0.310 apart, at most 0.300' in error.detail
    )


def test_the_dimension_that_is_farthest_away_is_named():
    assert 'arm/j1' in refused(check_start, [0.5, 0.4, 0.05, 0.0, 0.0]).detail


def test_a_gripper_has_a_start_offset_of_its_own():
    check_start([0.0, 0.0, 0.16, 0.0, 0.0])
    assert refused(check_start, [0.0, 0.0, 0.18, 0.0, 0.0]).component == 'hand'


def test_velocities_have_no_start_offset():
    check_start([0.0, 0.0, 0.05, 0.5, -1.0])


# --- the error itself -------------------------------------------------------------------------


def test_every_reason_of_the_contract_is_known_and_speaks_of_one_thing_only():
    contract = (
        'not_enabled, stopped, embodiment_mismatch, bad_shape, bad_names, bad_frame, not_finite, '
        'out_of_order, too_old, expired, start_offset, position_limit, step_velocity'
    ).split(', ')
    assert set(contract) <= set(STATE_REASONS + CONTENT_REASONS)
    assert not set(STATE_REASONS) & set(CONTENT_REASONS)


def test_an_invented_reason_is_a_mistake_in_the_code():
    with pytest.raises(ValueError, match='is no rejection reason'):
        ChunkError('bad_mood', 'found grumpy, expected cheerful')
