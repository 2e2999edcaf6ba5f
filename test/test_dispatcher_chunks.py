"""Accepted chunks: rows at their times, splices, limits, grippers, the chunk without rows."""

from execution_helpers import chunk, column, config, PERIOD, Rig, rows, START, TICK, TOY
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from faster_core.execution.state import Action


def ramp(slope, *, start=0.0):
    """Return [8, 2] arm rows in which j1 is start + slope * (k + 1) periods."""
    arm = np.zeros((8, 2))
    arm[:, 0] = start + slope * PERIOD * np.arange(1, 9)
    return arm


# --- time alignment ---------------------------------------------------------------------------


@pytest.mark.parametrize('age', [0.0, 0.12, 0.237, 0.4])
def test_a_chunk_is_executed_at_its_own_times_however_late_it_comes(age):
    rig = Rig(arm__max_acceleration=[1000.0, 1000.0])
    rig.run(0.5)
    stamp = rig.now - age
    report = rig.send(rows(arm=ramp(0.4)), age=age)
    assert report.accepted
    assert report.rows_dropped == np.count_nonzero(
        chunk(stamp=stamp).row_times < rig.now + PERIOD - 1e-9
    )
    rig.run(0.32)
    tick = rig.tick()
    assert tick.commands['arm'][0] == pytest.approx(0.4 * (rig.now - stamp), abs=2e-3)
    assert tick.state.remaining == pytest.approx(stamp + 8 * PERIOD - rig.now)


def test_a_chunk_with_one_row_is_moved_to_and_held():
    rig = Rig(arm__max_acceleration=[1000.0, 1000.0])
    assert rig.send(rows(1, arm=(0.05, 0.0), base=(0.02, 0.0))).accepted
    ticks = rig.run(1.0)
    assert ticks[4].commands['arm'][0] == pytest.approx(0.05)
    assert ticks[-1].state.action is Action.HOLD
    assert ticks[-1].commands['arm'][0] == pytest.approx(0.05, abs=1e-3)
    assert ticks[-1].commands['base'].tolist() == [0.0, 0.0]


def test_a_chunk_whose_rows_are_all_equal_stands_still():
    rig = Rig()
    rig.send()
    ticks = rig.run(0.7)
    assert {t.state.action for t in ticks} == {Action.FOLLOW}
    assert not column(ticks, 'arm').any()
    assert (column(ticks, 'hand') == 0.05).all()


def test_the_report_counts_rows_of_the_previous_chunk_that_fell_due():
    rig = Rig()
    assert rig.send().rows_executed_of_previous == 0
    rig.run(0.3)
    report = rig.send()
    assert report.rows_executed_of_previous == 3
    assert (report.num_rows, report.sequence_id, report.reason) == (8, 2, '')
    rig.run(2.0)
    assert rig.send().rows_executed_of_previous == 8


def test_float32_rows_as_policies_give_them_are_fine():
    rig = Rig()
    assert rig.send(rows(arm=ramp(0.5)).astype(np.float32)).accepted
    assert rig.run(0.5)[-1].commands['arm'].dtype == np.float64


def test_the_chunk_may_be_written_to_after_it_was_handed_in():
    rig = Rig()
    values = rows(base=(0.3, 0.0))
    rig.send(values)
    values[:] = np.nan
    assert rig.run(0.5)[-1].commands['base'][0] == pytest.approx(0.3)


# --- splices ----------------------------------------------------------------------------------


def test_a_new_chunk_continues_without_a_step_in_place_or_velocity():
    rig = Rig(blend_steps=3)
    rig.send(rows(arm=ramp(0.4), base=(0.3, 0.0)))
    ticks = rig.run(0.4)
    rig.send(rows(arm=ramp(0.4, start=0.16 - 0.4 * 0.1 + 0.01), base=(0.25, 0.0)), age=0.1)
    ticks += rig.run(0.5)
    speeds = np.diff(column(ticks, 'arm')) / TICK
    assert np.abs(np.diff(speeds)).max() <= 4.0 * TICK + 1e-6
    assert np.abs(np.diff(column(ticks, 'base'))).max() <= 1.0 * TICK + 1e-9


def test_a_plan_in_motion_is_followed_until_the_first_new_row():
    rig, twin = Rig(), Rig()
    for r in (rig, twin):
        r.send(rows(arm=ramp(0.4)))
        r.run(0.3)
    rig.send(rows(arm=ramp(-0.4, start=0.12)))
    for _ in range(4):
        a, b = rig.tick().commands['arm'], twin.tick().commands['arm']
        assert a[0] == pytest.approx(b[0] if a[0] >= b[0] else a[0])
    assert rig.run(0.3)[-1].commands['arm'][0] < twin.run(0.3)[-1].commands['arm'][0] - 0.1


@pytest.mark.parametrize('after_tick', [0.0, 0.007, 0.019])
def test_a_chunk_that_repeats_the_plan_changes_no_command_wherever_between_ticks_it_comes(
    after_tick,
):
    rig, twin = Rig(), Rig()
    for r in (rig, twin):
        r.send(rows(arm=ramp(0.4), base=(0.3, 0.0)))
        r.run(0.4)
    rig.now += after_tick
    again = rows(arm=ramp(0.4, start=0.4 * 0.1), base=(0.3, 0.0))
    assert rig.send(again, stamp=START + 0.1).accepted
    rig.now -= after_tick
    for _ in range(15):
        ours, theirs = rig.tick().commands, twin.tick().commands
        assert ours['arm'] == pytest.approx(theirs['arm'], abs=1e-9)
        assert ours['base'] == pytest.approx(theirs['base'], abs=1e-9)


@pytest.mark.parametrize('blend_steps', [0, 3])
def test_two_chunks_in_one_tick_leave_the_newer_one_and_no_jump(blend_steps):
    rig = Rig(blend_steps=blend_steps)
    rig.send(rows(arm=ramp(0.4)))
    last = rig.run(0.3)[-1].commands['arm'][0]
    assert rig.send(rows(arm=(0.3, 0.0), base=(0.5, 0.0)), age=0.05).accepted
    assert rig.send(rows(arm=(0.2, 0.0), base=(-0.3, 0.0)), age=0.02).accepted
    ticks = rig.run(0.7)
    assert ticks[0].state.sequence_id == 3
    arm = np.concatenate([[last], column(ticks, 'arm')])
    assert np.abs(np.diff(arm)).max() <= 1.0 * TICK + 1e-9
    assert arm[-1] == pytest.approx(0.2, abs=1e-3)
    assert column(ticks, 'base')[-1] == pytest.approx(-0.3)


def test_two_chunks_before_the_very_first_tick_are_fine():
    rig = Rig()
    assert rig.send(rows(arm=(0.2, 0.0)), age=0.05).accepted
    assert rig.send(rows(arm=(0.1, 0.0)), age=0.02).accepted
    arm = column(rig.run(0.7), 'arm')
    assert np.abs(np.diff(np.concatenate([[0.0], arm]))).max() <= 1.0 * TICK + 1e-9
    assert arm[-1] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize('early', [-TICK, 0.0, TICK, 5 * TICK])
def test_a_chunk_at_the_end_of_the_plan_continues_or_recovers_without_a_jump(early):
    rig = Rig(blend_steps=3)
    rig.send(rows(arm=ramp(0.3), base=(0.3, 0.0)))
    ticks = rig.run(0.8 - early)
    place = rig.measured['arm'][0]
    assert rig.send(rows(arm=ramp(0.3, start=place), base=(0.3, 0.0))).accepted
    ticks += rig.run(0.7)
    assert np.abs(np.diff(column(ticks, 'arm'))).max() <= 1.0 * TICK + 1e-9
    assert np.abs(np.diff(column(ticks, 'base'))).max() <= 1.0 * TICK + 1e-9
    assert ticks[-1].commands['base'][0] == pytest.approx(0.3)
    assert Action.STOP not in {t.state.action for t in ticks}


def test_chunks_out_of_order_change_nothing():
    rig = Rig()
    rig.send(rows(base=(0.3, 0.0)))
    rig.run(0.3)
    assert rig.send(rows(base=(-0.3, 0.0)), age=0.4).reason == 'out_of_order'
    assert rig.run(0.2)[-1].commands['base'][0] == pytest.approx(0.3)


# --- the chunk without rows -------------------------------------------------------------------


def test_zero_row_chunk_drops_the_plan_and_holds():
    rig = Rig()
    last = rig.drive(0.4, arm_speed=0.5).commands
    report = rig.send(rows(0))
    assert (report.accepted, report.num_rows) == (True, 0)
    assert rig.dispatcher.plan is None
    ticks = rig.run(1.0)
    assert {t.state.action for t in ticks} == {Action.HOLD}
    assert ticks[0].state.message == 'the plan was dropped'
    assert ticks[0].state.enabled
    base = np.concatenate([last['base'][:1], column(ticks, 'base')])
    assert np.diff(base).min() >= -1.0 * TICK - 1e-9
    assert base[-1] == 0.0
    assert (np.diff(column(ticks, 'arm')) >= 0).all()
    assert ticks[-1].commands['arm'][0] - last['arm'][0] < 0.5**2 / 8.0 + 1e-9


def test_zero_row_chunk_also_forgets_what_was_observed_before_it():
    rig = Rig()
    rig.drive(0.4)
    rig.send(rows(0))
    assert rig.send(rows(base=(0.4, 0.0)), age=0.01).reason == 'out_of_order'
    rig.tick()
    assert rig.send(rows(arm=rig.measured['arm'])).accepted


@pytest.mark.parametrize('age', [0.3, 5.0, -5.0])
def test_zero_row_chunk_is_obeyed_however_old_and_does_not_block_later_ones(age):
    rig = Rig()
    rig.drive(0.4)
    assert rig.send(rows(0), age=age).accepted
    assert rig.tick().state.action is Action.HOLD
    assert rig.send().accepted


def test_zero_row_chunk_before_the_first_command_sends_nothing():
    rig = Rig()
    assert rig.send(rows(0)).accepted
    tick = rig.tick()
    assert tick.state.action is Action.NONE
    assert all(values is None for values in tick.commands.values())


@pytest.mark.parametrize('how', ['disabled', 'stopped'])
def test_zero_row_chunk_is_no_violation_when_nothing_moves(how):
    rig = Rig()
    rig.drive(0.4)
    if how == 'disabled':
        rig.dispatcher.enable(False, rig.now)
    else:
        rig.dispatcher.stop(rig.now, 'a reason')
    before = rig.tick().state
    assert rig.send(rows(0)).accepted
    after = rig.tick().state
    assert after.num_chunks_rejected == before.num_chunks_rejected
    assert (after.action, after.enabled, after.message) == (
        before.action,
        before.enabled,
        before.message,
    )


# --- limits -----------------------------------------------------------------------------------


def test_excess_within_the_tolerance_is_clipped_and_reported_as_limit():
    rig = Rig()
    rig.measured['arm'] = np.array([0.9, 0.0])
    rig.feed()
    assert rig.send(rows(arm=(1.1, 0.0))).accepted
    tick = rig.run(0.7)[-1]
    assert tick.commands['arm'][0] == pytest.approx(1.0)
    assert tick.state.action is Action.LIMIT
    assert tick.state.components == ('arm',)
    assert tick.state.message == 'limits reached: arm'


def test_speed_excess_within_the_tolerance_is_clipped_and_reported_as_limit():
    rig = Rig()
    rig.send(rows(base=(0.54, 0.0)))
    tick = rig.run(0.7)[-1]
    assert tick.commands['base'][0] == pytest.approx(0.5)
    assert (tick.state.action, tick.state.components) == (Action.LIMIT, ('base',))


def test_limits_lowered_at_run_time_hold_from_the_next_tick():
    rig = Rig()
    speed = rig.drive(0.6, speed=0.5).commands['base'][0]
    rig.dispatcher.set_config(config(base__max_velocity=[0.2, 1.0]))
    ticks = rig.run(0.2)
    base = np.concatenate([[speed], column(ticks, 'base')])
    assert np.diff(base) == pytest.approx(-1.0 * TICK)
    assert ticks[-1].state.action is Action.LIMIT
    assert rig.send(rows(base=(0.5, 0.0))).reason == 'step_velocity'


# --- grippers ---------------------------------------------------------------------------------


def test_a_gripper_switches_when_its_row_falls_due_and_runs_at_its_speed():
    rig = Rig(blend_steps=5)
    rig.send(rows(hand=[[0.05]] * 3 + [[0.1]] * 5))
    ticks = rig.run(0.7)
    hand = column(ticks, 'hand')
    due = np.array([START + TICK * (k + 1) for k in range(len(hand))]) >= START + 0.4 - 1e-9
    assert (hand[~due] == 0.05).all()
    assert hand[due][0] == pytest.approx(0.05 + 0.2 * TICK)
    assert hand[-1] == pytest.approx(0.1)
    assert np.diff(hand).max() <= 0.2 * TICK + 1e-9
    assert {t.state.action for t in ticks} == {Action.FOLLOW}


def test_a_gripper_that_was_closing_stays_where_it_is_when_stopped():
    rig = Rig()
    rig.send(rows(hand=(0.0,)))
    rig.run(0.2)
    held = rig.measured['hand'][0]
    assert 0.0 < held < 0.05
    rig.dispatcher.stop(rig.now)
    assert (column(rig.run(0.9), 'hand') == held).all()


# --- anything the policy may say --------------------------------------------------------------

walks = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=30, deadline=None)
@given(walks, st.integers(0, 5), st.sampled_from([4.0, 40.0]))
def test_whatever_chunks_come_the_commands_stay_within_limits(rng, blend_steps, acceleration):
    rig = Rig(blend_steps=blend_steps, arm__max_acceleration=[acceleration] * 2)
    rig.tick()
    last, speed, accepted = {'arm': np.zeros(2), 'hand': np.array([0.05])}, np.zeros(2), 0
    for _ in range(40):
        if rng.random() < 0.3:
            arm = rig.measured['arm'] + np.cumsum(rng.uniform(-0.1, 0.1, (8, 2)), axis=0)
            values = rows(
                arm=arm, hand=rng.uniform(0, 0.1, (8, 1)), base=rng.uniform(-0.55, 0.55, (8, 2))
            )
            accepted += rig.send(values, age=rng.uniform(0.0, 0.4)).accepted
        dt = rng.choice([TICK, 0.001, 3 * TICK])
        commands = rig.tick(dt).commands
        if commands['base'] is None:
            continue
        for name in ('arm', 'hand'):
            limit = rig.dispatcher._config.components[name]
            step = np.abs(commands[name] - last[name])
            assert (step <= limit.max_velocity * dt + 1e-9).all()
            assert (commands[name] >= limit.lower).all()
            assert (commands[name] <= limit.upper).all()
            last[name] = commands[name]
        assert (np.abs(commands['base'] - speed) <= np.array([1.0, 2.0]) * dt + 1e-9).all()
        speed = commands['base']
    assert accepted == rig.tick().state.num_chunks_accepted


def test_the_toys_parts_are_what_these_tests_believe():
    assert [c.name for c in TOY.action] == ['arm', 'hand', 'base']
    assert PERIOD == pytest.approx(0.1)
