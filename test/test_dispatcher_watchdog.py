"""When the plan ends, the feedback stalls or the policy is broken (docs/execution.md)."""

from execution_helpers import column, config, PERIOD, Rig, rows, TICK
import numpy as np
import pytest

from faster_core.execution.errors import ChunkError
from faster_core.execution.state import Action

NAN_ROWS = rows(arm=(np.nan, 0.0))


# --- the plan ends ----------------------------------------------------------------------------


def test_running_out_of_chunks_holds_positions_and_brakes_the_base():
    rig = Rig()
    rig.drive(0.8, arm_speed=0.5)
    ticks = rig.run(2.0)
    assert {t.state.action for t in ticks[2:]} == {Action.HOLD}
    assert ticks[-1].state.message == 'the plan is used up'
    assert ticks[-1].state.components == ('arm', 'hand', 'base')
    base, arm = column(ticks, 'base'), column(ticks, 'arm')
    assert np.abs(np.diff(base)).max() <= 1.0 * TICK + 1e-9
    assert base[-1] == 0.0
    assert (np.diff(arm) >= 0).all()
    assert arm[-1] == arm[-50]


def test_a_hold_keeps_streaming_for_as_long_as_it_lasts():
    rig = Rig()
    rig.drive(0.8)
    ticks = rig.run(8.0)
    assert all(values is not None for t in ticks for values in t.commands.values())
    assert not column(ticks, 'base')[60:].any()


def test_a_hold_ends_with_the_next_chunk_without_a_jump():
    rig = Rig()
    rig.drive(2.0, arm_speed=0.3)
    held = rig.tick()
    assert held.state.action is Action.HOLD
    place = held.commands['arm'][0]
    assert rig.send(rows(arm=(place + 0.1, 0.0))).accepted
    arm = np.concatenate([[place], column(rig.run(0.7), 'arm')])
    assert np.abs(np.diff(arm)).max() <= 1.0 * TICK + 1e-9
    assert arm[-1] == pytest.approx(place + 0.1)


def test_recovery_needs_the_same_start_offset_check():
    rig = Rig()
    rig.drive(2.0)
    report = rig.send(rows(arm=(0.31, 0.0)))
    assert (report.accepted, report.reason) == (False, 'start_offset')
    assert rig.tick().state.action is Action.HOLD
    assert rig.send(rows(arm=(0.29, 0.0))).accepted
    assert rig.tick().state.action in (Action.FOLLOW, Action.LIMIT)


@pytest.mark.parametrize('name', ['arm', 'base'])
def test_on_stale_stop_latches_when_the_plan_ends_and_names_the_component(name):
    rig = Rig(**{f'{name}.on_stale': 'stop'})
    rig.drive(0.8)
    tick = rig.run(0.1)[-1]
    assert tick.state.action is Action.STOP
    assert tick.state.message == 'plan_exhausted'
    assert tick.state.components == (name,)
    assert rig.send().reason == 'stopped'
    assert rig.dispatcher.reset(rig.now).success


def test_on_stale_stop_does_not_latch_before_the_first_chunk_nor_when_the_plan_is_dropped():
    rig = Rig(arm__on_stale='stop')
    assert rig.run(1.0)[-1].state.action is Action.NONE
    rig.drive(0.1)
    rig.send(rows(0))
    assert {t.state.action for t in rig.run(1.0)} == {Action.HOLD}


def test_remaining_counts_down_to_zero_and_stays_there():
    rig = Rig()
    rig.send()
    remaining = [t.state.remaining for t in rig.run(1.0)]
    assert remaining[0] == pytest.approx(8 * PERIOD - TICK)
    assert np.diff(remaining[:39]) == pytest.approx(-TICK)
    assert remaining[-1] == 0.0


# --- feedback stalls --------------------------------------------------------------------------


def test_feedback_that_stalls_stops_the_robot_and_the_stop_stays():
    rig = Rig()
    rig.drive()
    rig.feeding = False
    ticks = rig.run(0.7)
    moving = [t for t in ticks if t.state.action is not Action.STOP]
    assert len(moving) == pytest.approx(0.5 / TICK, abs=1)
    assert ticks[-1].state.message == 'feedback_stale'
    assert ticks[-1].state.components == ('arm', 'hand')
    rig.feeding = True
    tick = rig.tick()
    assert tick.state.action is Action.STOP
    assert not tick.state.enabled


def test_feedback_stale_for_one_component_stops_all_and_names_that_one():
    rig = Rig()
    rig.drive(0.3)
    rig.feeding = False
    for _ in range(30):
        rig.dispatcher.on_feedback('arm', rig.measured['arm'], rig.now)
        tick = rig.tick()
    assert tick.state.action is Action.STOP
    assert tick.state.components == ('hand',)
    assert column(rig.run(1.0), 'base')[20] == 0.0


@pytest.mark.parametrize('bad', [[0.0], [0.0, 0.0, 0.0], [np.nan, 0.0]])
def test_feedback_that_becomes_nonsense_is_as_good_as_none(bad):
    rig = Rig()
    rig.drive(0.3)
    rig.feeding = False
    for _ in range(30):
        assert not rig.dispatcher.on_feedback('arm', np.array(bad), rig.now)
        rig.dispatcher.on_feedback('hand', rig.measured['hand'], rig.now)
        tick = rig.tick()
    assert (tick.state.action, tick.state.components) == (Action.STOP, ('arm',))


def test_feedback_is_as_old_as_what_waited_to_be_taken():
    rig = Rig()
    rig.drive(0.3)
    rig.feeding = False
    for _ in range(5):
        for name, values in rig.measured.items():
            rig.dispatcher.on_feedback(name, values, rig.now, age=0.45)
        tick = rig.tick()
        assert tick.state.action is not Action.STOP  # what was heard before is newer
    ticks = rig.run(0.7)
    moving = [t for t in ticks if t.state.action is not Action.STOP]
    assert len(moving) == pytest.approx((0.5 - 5 * TICK) / TICK, abs=1)


def test_feedback_of_the_base_is_not_needed():
    rig = Rig()
    assert 'base' not in rig.measured
    assert rig.drive(3.0).state.action is Action.HOLD


def test_a_reset_is_refused_while_its_reason_is_still_there():
    rig = Rig()
    rig.drive()
    rig.feeding = False
    rig.run(1.0)
    answer = rig.dispatcher.reset(rig.now)
    assert not answer.success
    assert answer.message == 'still no fresh feedback of arm, hand'
    rig.feeding = True
    rig.feed()
    assert rig.dispatcher.reset(rig.now).success
    assert rig.dispatcher.enable(True, rig.now).success


def test_a_stop_of_a_person_may_be_reset_without_feedback_but_enable_still_needs_it():
    rig = Rig()
    rig.dispatcher.stop(rig.now)
    rig.now += 5.0
    assert rig.dispatcher.reset(rig.now).success
    assert not rig.dispatcher.enable(True, rig.now).success


def test_a_chunk_between_two_ticks_is_refused_when_feedback_is_stale():
    rig = Rig()
    rig.now += 0.6
    report = rig.send()
    assert (report.reason, report.detail) == ('start_offset', 'no fresh feedback of arm, hand')


def test_a_longer_feedback_timeout_holds_from_now_on():
    rig = Rig()
    rig.dispatcher.set_config(config(feedback_timeout=2.0))
    rig.feeding = False
    assert rig.run(1.9)[-1].state.action is not Action.STOP
    assert rig.run(0.2)[-1].state.action is Action.STOP


# --- the policy is broken ---------------------------------------------------------------------


def test_more_rejections_in_a_row_than_tolerated_latch_a_stop():
    rig = Rig(consecutive_violation_threshold=3)
    rig.drive()
    for _ in range(3):
        assert rig.send(NAN_ROWS).reason == 'not_finite'
        assert rig.tick().state.action is not Action.STOP
    rig.send(NAN_ROWS)
    tick = rig.tick()
    assert tick.state.action is Action.STOP
    assert tick.state.components == ('arm',)
    assert tick.state.message.startswith('4 chunks rejected in a row, not_finite: arm/j1')
    assert rig.send().reason == 'stopped'


def test_an_accepted_chunk_starts_the_count_anew():
    rig = Rig(consecutive_violation_threshold=1)
    for _ in range(5):
        assert rig.send(NAN_ROWS).reason == 'not_finite'
        rig.tick()
        assert rig.send().accepted
        assert rig.tick().state.action is not Action.STOP


def test_a_threshold_of_zero_stops_at_the_first_bad_chunk():
    rig = Rig(consecutive_violation_threshold=0)
    rig.send(NAN_ROWS)
    assert rig.tick().state.action is Action.STOP


def test_late_chunks_say_nothing_about_the_policy_and_never_stop():
    rig = Rig(consecutive_violation_threshold=0, max_chunk_age=0.78)
    rig.drive(1.5)
    reasons = {rig.send(age=age).reason for age in (0.79, 0.75, 2.0)}
    assert reasons == {'too_old', 'expired', 'out_of_order'}
    assert rig.tick().state.action is Action.HOLD


def test_bad_chunks_while_disabled_do_not_count_towards_a_stop():
    rig = Rig(enabled=False, consecutive_violation_threshold=0)
    error = ChunkError('bad_names', "left_arm: found ['a'], expected ['joint1']")
    for _ in range(5):
        rig.dispatcher.refuse(error, sequence_id=1, num_rows=8, now=rig.now)
    assert rig.tick().state.action is Action.NONE
    assert rig.dispatcher.enable(True, rig.now).success


def test_chunks_that_cannot_be_read_count_like_bad_ones():
    rig = Rig(consecutive_violation_threshold=2)
    error = ChunkError('bad_frame', "found 'map', expected 'base_link'", 'base')
    for _ in range(3):
        report = rig.dispatcher.refuse(error, sequence_id=9, num_rows=8, now=rig.now)
    assert (report.reason, report.sequence_id, report.num_rows) == ('bad_frame', 9, 8)
    tick = rig.tick()
    assert tick.state.components == ('base',)
    assert tick.state.rejected == {'bad_frame': 3}


def test_enable_after_a_reset_starts_with_a_clean_count():
    rig = Rig(consecutive_violation_threshold=1)
    for _ in range(2):
        rig.send(NAN_ROWS)
    rig.dispatcher.reset(rig.now)
    rig.dispatcher.enable(True, rig.now)
    rig.send(NAN_ROWS)
    assert rig.tick().state.action is Action.NONE
    assert rig.send().accepted


def test_a_wish_to_hold_is_no_good_chunk():
    rig = Rig(consecutive_violation_threshold=2)
    for _ in range(3):
        rig.send(NAN_ROWS)
        assert rig.send(np.zeros((0, 5))).accepted
    assert rig.tick().state.action is Action.STOP


# --- stopping distance ------------------------------------------------------------------------


@pytest.mark.parametrize('speed', [0.1, 0.3, 0.5])
def test_after_the_last_chunk_the_base_stops_within_the_plan_and_its_braking_time(speed):
    rig = Rig()
    rig.send(rows(base=(speed, 0.0)))
    base = column(rig.run(3.0), 'base')
    last = np.flatnonzero(base)[-1]
    assert base.max() == pytest.approx(speed)
    assert last * TICK <= 8 * PERIOD + speed / 1.0 + 2 * TICK
