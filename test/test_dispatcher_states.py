"""Enable, disable, stop and reset: what each needs, answers, and does to the commands."""

from execution_helpers import column, config, PERIOD, Rig, rows, TICK
import numpy as np
import pytest

from faster_core.execution.state import Action

POSITIONS = ('arm', 'hand')


def silent(tick):
    return all(values is None for values in tick.commands.values())


# --- before anything moves --------------------------------------------------------------------


def test_watchdog_is_silent_before_first_command():
    rig = Rig(enabled=False)
    assert all(silent(t) and t.state.action is Action.NONE for t in rig.run(0.5))
    assert rig.dispatcher.enable(True, rig.now).success
    ticks = rig.run(3.0)
    assert all(silent(t) and t.state.action is Action.NONE for t in ticks)
    assert ticks[-1].state.enabled
    assert ticks[-1].state.message == 'waiting for the first chunk'


def test_it_starts_disarmed_and_refuses_chunks_until_enabled():
    rig = Rig(enabled=False)
    assert rig.send().reason == 'not_enabled'
    assert not rig.tick().state.enabled
    rig.dispatcher.enable(True, rig.now)
    assert rig.send().accepted


def test_enable_needs_fresh_feedback_of_every_position_component():
    rig = Rig(enabled=False)
    rig.now += 1.0
    answer = rig.dispatcher.enable(True, rig.now)
    assert not answer.success
    assert answer.message == 'no fresh feedback of arm, hand'
    rig.dispatcher.on_feedback('arm', rig.measured['arm'], rig.now)
    assert rig.dispatcher.enable(True, rig.now).message == 'no fresh feedback of hand'
    rig.feed()
    assert rig.dispatcher.enable(True, rig.now).success


@pytest.mark.parametrize('bad', [[0.0], [0.0, 0.0, 0.0], [np.nan, 0.0], []])
def test_feedback_of_wrong_size_or_nan_does_not_allow_enable(bad):
    rig = Rig(enabled=False)
    rig.now += 1.0
    assert not rig.dispatcher.on_feedback('arm', np.array(bad), rig.now)
    rig.dispatcher.on_feedback('hand', rig.measured['hand'], rig.now)
    assert rig.dispatcher.enable(True, rig.now).message == 'no fresh feedback of arm'


def test_answers_name_the_state_found():
    rig = Rig(enabled=False)
    d = rig.dispatcher
    assert d.enable(False, rig.now).message == 'disabled (was disabled)'
    assert d.reset(rig.now).message == 'not stopped: nothing to reset'
    assert d.enable(True, rig.now).message == 'enabled (was disabled)'
    assert d.enable(True, rig.now).message == 'already enabled'
    assert d.enable(False, rig.now).message == 'disabled (was enabled)'
    assert d.stop(rig.now, 'hand on the button').message == 'stopped (hand on the button)'
    assert d.stop(rig.now, 'again').message == 'already stopped (hand on the button)'
    assert d.reset(rig.now).message.startswith('reset (was stopped: hand on the button)')


def test_enabling_twice_does_not_interrupt_the_motion():
    rig = Rig()
    before = rig.drive().commands['base'][0]
    assert rig.dispatcher.enable(True, rig.now).success
    tick = rig.tick()
    assert tick.state.action is Action.FOLLOW
    assert tick.commands['base'][0] == pytest.approx(before)


# --- auto enable ------------------------------------------------------------------------------


def test_without_require_enable_it_arms_at_the_first_tick_with_feedback():
    rig = Rig(enabled=False, require_enable=False)
    rig.feeding = False
    rig.now += 1.0
    assert not rig.tick().state.enabled
    rig.feeding = True
    assert rig.tick().state.enabled
    assert rig.send().accepted


@pytest.mark.parametrize(
    'how', ['disable', 'stop and reset', 'set back', 'stop first', 'set back first']
)
def test_auto_enable_happens_once_and_never_against_a_person(how):
    rig = Rig(enabled=False, require_enable=False)
    if not how.endswith('first'):
        assert rig.tick().state.enabled
    if how == 'disable':
        rig.dispatcher.enable(False, rig.now)
    elif how.startswith('set back'):
        rig.now -= 10.0
    else:
        rig.dispatcher.stop(rig.now)
        rig.dispatcher.reset(rig.now)
    assert not any(t.state.enabled for t in rig.run(1.0))


# --- disable ----------------------------------------------------------------------------------


def test_disable_while_moving_brakes_within_limits_and_then_falls_silent():
    rig = Rig()
    rig.drive(arm_speed=0.5)
    speed, arm = 0.4, rig.measured['arm'][0]
    rig.dispatcher.enable(False, rig.now)
    ticks = rig.run(2.0)
    base = column(ticks, 'base')
    sent = base[~np.isnan(base)]
    assert np.abs(np.diff(np.concatenate([[speed], sent]))).max() <= 1.0 * TICK + 1e-9
    assert (sent == 0).sum() > 10
    places = column(ticks, 'arm')
    places = np.concatenate([[arm], places[~np.isnan(places)]])
    assert (np.diff(places) >= 0).all()
    assert places[-1] - arm < 0.5**2 / (2 * 4.0) + 1e-9
    assert silent(ticks[-1])
    assert not ticks[-1].state.enabled


def test_a_chunk_after_disable_is_refused_and_does_not_prolong_the_motion():
    rig, twin = Rig(), Rig()
    for r in (rig, twin):
        r.drive()
        r.dispatcher.enable(False, r.now)
    for _ in range(100):
        assert rig.send(rows(base=(0.4, 0.0))).reason == 'not_enabled'
        ours, theirs = rig.tick().commands, twin.tick().commands
        for name, values in ours.items():
            assert (values is None) == (theirs[name] is None)
            assert values is None or values.tolist() == theirs[name].tolist()


def test_enable_while_decelerating_goes_on_decelerating_until_the_next_chunk():
    rig = Rig()
    rig.drive(arm_speed=0.5)
    rig.dispatcher.enable(False, rig.now)
    rig.tick()
    assert rig.dispatcher.enable(True, rig.now).success
    base = column(rig.run(0.1), 'base')
    assert (np.diff(base) < 0).all()
    assert rig.send(rows(arm=rig.measured['arm'], base=(0.4, 0.0))).accepted
    ticks = rig.run(0.6)
    after = np.concatenate([base[-1:], column(ticks, 'base')])
    assert np.abs(np.diff(after)).max() <= 1.0 * TICK + 1e-9
    assert after[-1] == pytest.approx(0.4)
    assert np.abs(np.diff(column(ticks, 'arm'))).max() <= 1.0 * TICK + 1e-9


def test_after_enabling_again_the_arm_starts_where_it_was_moved_to_by_hand():
    rig = Rig()
    rig.drive()
    rig.dispatcher.enable(False, rig.now)
    assert silent(rig.run(2.0)[-1])
    rig.measured['arm'] = np.array([0.7, -0.7])
    rig.tick()
    rig.dispatcher.enable(True, rig.now)
    assert silent(rig.tick())
    assert rig.send(rows(arm=(0.75, -0.7))).accepted
    assert rig.tick().commands['arm'] == pytest.approx([0.7, -0.7], abs=1.0 * TICK)


def test_old_motion_is_forgotten_by_disable_and_enable():
    rig = Rig()
    rig.drive(0.1)
    rig.dispatcher.enable(False, rig.now)
    rig.dispatcher.enable(True, rig.now)
    assert rig.dispatcher.plan is None
    tick = rig.run(0.5)[-1]
    assert tick.state.action is Action.NONE
    assert tick.commands['base'].tolist() == [0.0, 0.0]


# --- stop -------------------------------------------------------------------------------------


def test_stop_decelerates_within_max_acceleration_and_then_holds():
    rig = Rig()
    last = rig.drive(0.6, arm_speed=0.5).commands
    rig.dispatcher.stop(rig.now, 'button')
    ticks = rig.run(0.9)
    assert {t.state.action for t in ticks} == {Action.STOP}
    assert {t.state.message for t in ticks} == {'button'}
    base = np.concatenate([last['base'][:1], column(ticks, 'base')])
    assert np.diff(base).min() >= -1.0 * TICK - 1e-9
    assert base[-1] == 0.0
    arm = np.concatenate([last['arm'][:1], column(ticks, 'arm')])
    speeds = np.diff(arm) / TICK
    assert np.abs(np.diff(speeds)).max() <= 4.0 * TICK + 1e-6
    assert (speeds >= 0).all()
    assert speeds[-1] == 0.0


def test_a_stop_holds_the_reference_not_the_measured_place():
    rig = Rig()
    rig.drive(1.5)
    held = rig.tick().commands['arm']
    rig.measured['arm'] = held - 0.1  # it sags under a load
    rig.feed()
    rig.dispatcher.stop(rig.now)
    rig.now += TICK
    assert rig.dispatcher.tick(rig.now).commands['arm'] == pytest.approx(held)


def test_a_stopped_robot_that_is_outside_of_its_range_stays_there():
    rig = Rig()
    rig.measured['arm'] = np.array([1.2, 0.0])
    rig.feed()
    assert rig.send(rows(arm=(1.0, 0.0))).accepted
    rig.tick()
    rig.dispatcher.stop(rig.now)
    ticks = rig.run(0.9)
    assert column(ticks, 'arm')[-1] == pytest.approx(1.2, abs=0.01)


def test_enable_during_a_stop_is_refused_and_says_what_is_needed():
    rig = Rig()
    rig.drive()
    rig.dispatcher.stop(rig.now, 'button')
    for _ in range(60):
        answer = rig.dispatcher.enable(True, rig.now)
        assert not answer.success
        assert answer.message == 'stopped (button), expected a reset first'
        assert rig.send().reason == 'stopped'
        tick = rig.tick()
        assert tick.state.action is Action.STOP
        assert not tick.state.enabled


def test_disable_does_not_lift_a_stop():
    rig = Rig()
    rig.dispatcher.stop(rig.now, 'button')
    rig.dispatcher.enable(False, rig.now)
    assert rig.tick().state.action is Action.STOP
    assert not rig.dispatcher.enable(True, rig.now).success


def test_reset_lifts_the_stop_but_does_not_enable():
    rig = Rig()
    rig.drive()
    rig.dispatcher.stop(rig.now)
    rig.tick()
    assert rig.dispatcher.reset(rig.now).success
    tick = rig.tick()
    assert (tick.state.action, tick.state.enabled) == (Action.NONE, False)
    assert rig.send().reason == 'not_enabled'
    assert rig.dispatcher.enable(True, rig.now).success


def test_reset_in_the_middle_of_braking_goes_on_braking():
    rig = Rig()
    rig.drive()
    rig.dispatcher.stop(rig.now)
    rig.tick()
    rig.dispatcher.reset(rig.now)
    base = column(rig.run(0.5), 'base')
    assert (np.diff(base) <= 0).all()
    assert base[-1] == 0.0


def test_a_stop_without_any_motion_before_sends_zeros_to_the_base_and_nothing_to_the_arms():
    rig = Rig(enabled=False)
    rig.dispatcher.stop(rig.now)
    tick = rig.tick()
    assert tick.commands['base'].tolist() == [0.0, 0.0]
    assert all(tick.commands[name] is None for name in POSITIONS)


@pytest.mark.parametrize('end', ['stop', 'disable'])
def test_ceases_zeros_after_stop_pub_timeout(end):
    rig = Rig(base__stop_pub_timeout=0.6, arm__stop_pub_timeout=2.0)
    rig.drive(1.2)  # the plan has ended and the base stands
    rig.run(1.0)
    rig.dispatcher.stop(rig.now) if end == 'stop' else rig.dispatcher.enable(False, rig.now)
    ticks = rig.run(3.0)
    base, arm = column(ticks, 'base'), column(ticks, 'arm')
    assert np.count_nonzero(~np.isnan(base)) == pytest.approx(0.6 / TICK, abs=1)
    assert np.count_nonzero(~np.isnan(arm)) == pytest.approx(2.0 / TICK, abs=1)
    assert np.isnan(base[-1])
    assert not np.diff(np.isnan(base).astype(int)).min() < 0  # silent once is silent


@pytest.mark.parametrize(('timeout', 'zeros'), [(0.1, 6), (0.001, 1)])
@pytest.mark.parametrize('speed', [0.4, 0.393])
def test_zeros_are_counted_from_standstill_so_that_the_last_word_is_zero(timeout, zeros, speed):
    # A chassis that goes on with its last target would creep for ever after anything else.
    rig = Rig(base__stop_pub_timeout=timeout)
    rig.drive(speed=speed)
    rig.dispatcher.stop(rig.now)
    base = column(rig.run(1.0), 'base')
    sent = base[~np.isnan(base)]
    assert (sent == 0.0).sum() == pytest.approx(zeros, abs=1)
    assert sent[-1] == 0.0
    assert np.isnan(base[-1])


def test_a_tick_that_comes_too_late_for_the_timeout_still_says_zero():
    rig = Rig(base__max_acceleration=[50.0, 50.0])
    rig.drive()
    rig.dispatcher.stop(rig.now)
    assert rig.tick(5.0).commands['base'].tolist() == [0.0, 0.0]
    assert rig.tick(5.0).commands['base'] is None


@pytest.mark.parametrize('end', ['stop', 'disable'])
def test_r1_lite_chassis_zeros_until_deactivated(end):
    rig = Rig(base__stop_pub_timeout=0.0)
    rig.drive()
    rig.dispatcher.stop(rig.now) if end == 'stop' else rig.dispatcher.enable(False, rig.now)
    base = column(rig.run(15.0), 'base')
    assert not np.isnan(base).any()
    assert (base[50:] == 0.0).all()


def test_a_state_never_enabled_never_moves_whatever_arrives():
    rig = Rig(enabled=False)
    for k in range(50):
        rig.send(rows(base=(0.4, 0.0)), age=0.01 * k)
        rig.dispatcher.reset(rig.now)
        assert silent(rig.tick(PERIOD / 5))


def test_enabled_again_while_commands_still_go_out_the_set_point_does_not_jump_to_the_feedback():
    rig = Rig(stop_pub_timeout=1.0)
    rig.send(rows(arm=(0.2, 0.0)))
    held = rig.run(0.6)[-1].commands['arm']
    rig.dispatcher.enable(False, rig.now)
    rig.run(0.3)
    rig.measured['arm'] = held - 0.03  # feedback lags, or the arm sags
    rig.feed()
    rig.dispatcher.enable(True, rig.now)
    rig.send(rows(arm=(0.2, 0.0)))
    assert np.abs(rig.tick().commands['arm'] - held).max() < 0.02


def _moved_by_hand(**changes):
    """Return a rig that fell silent and whose arm was moved since."""
    rig = Rig(**changes)
    rig.send(rows(arm=(0.2, 0.0)))
    rig.run(0.6)
    rig.dispatcher.enable(False, rig.now)
    assert silent(rig.run(2.0)[-1])
    rig.measured['arm'] = np.array([-0.9, -0.7])
    rig.tick()
    return rig


def _enabled_and(then):
    def act(rig):
        assert rig.dispatcher.enable(True, rig.now).success
        rig.tick()
        then(rig)

    return act


def _hostile(rig):
    for _ in range(4):
        rig.tick()
        assert rig.send(rows(arm=(0.2, 0.0))).reason == 'start_offset'


def _starve(rig):
    rig.feeding = False
    rig.run(0.6)


@pytest.mark.parametrize(
    'act',
    [
        lambda rig: rig.dispatcher.stop(rig.now),
        lambda rig: rig.dispatcher.set_config(config(stop_pub_timeout=0.0)),
        _enabled_and(lambda rig: rig.dispatcher.enable(False, rig.now)),
        _enabled_and(lambda rig: rig.dispatcher.stop(rig.now)),
        _enabled_and(_hostile),
        _enabled_and(_starve),
        _enabled_and(lambda rig: rig.tick(-1.0)),
    ],
    ids=['stop', 'timeout', 'disable', 'enable_stop', 'rejected', 'stale', 'clock'],
)
def test_after_silence_no_position_is_commanded_before_the_next_chunk(act):
    rig = _moved_by_hand()
    act(rig)
    for tick in rig.run(0.5):
        assert tick.commands['arm'] is None
        assert tick.goals['hand'] is None


def test_after_a_take_over_a_stop_commands_no_position():
    rig = Rig()
    rig.send(rows(arm=(0.2, 0.0)))
    rig.run(0.6)
    rig.dispatcher.yield_to('teleop', rig.now)
    rig.tick()
    rig.dispatcher.stop(rig.now)
    ticks = rig.run(0.2)
    assert all(t.commands['arm'] is None for t in ticks)
    assert all(not t.commands['base'].any() for t in ticks)


def test_a_set_point_farther_from_the_robot_than_a_chunk_may_start_begins_anew_there():
    rig = Rig(stop_pub_timeout=0.0)
    rig.send(rows(arm=(0.2, 0.0)))
    rig.run(0.6)
    rig.dispatcher.enable(False, rig.now)
    rig.run(1.0)
    rig.measured['arm'] = elsewhere = np.array([-0.6, 0.0])
    rig.feed()
    assert rig.dispatcher.enable(True, rig.now).success
    assert rig.send(rows(arm=tuple(elsewhere))).accepted
    assert np.abs(rig.tick().commands['arm'] - elsewhere).max() < 0.02


def test_a_clock_set_back_a_little_does_not_move_the_set_point_to_lagging_feedback():
    rig = Rig(stop_pub_timeout=5.0)
    rig.send(rows(arm=(0.2, 0.0)))
    held = rig.run(0.6)[-1].commands['arm']
    rig.feeding = False
    rig.tick(-0.08)
    rig.feeding = True
    rig.measured['arm'] = held - 0.03
    rig.feed()
    assert rig.dispatcher.enable(True, rig.now).success
    assert rig.send(rows(arm=(0.2, 0.0))).accepted
    assert np.abs(rig.tick().commands['arm'] - held).max() < 0.01


def test_before_its_first_row_is_due_a_gripper_gets_no_goal():
    rig = Rig()
    rig.send(rows(hand=(0.01,)))
    goals = [rig.tick().goals['hand'] for _ in range(8)]
    due = round(PERIOD / TICK) - 1
    assert all(goal is None for goal in goals[:due])
    assert all(goal == pytest.approx([0.01]) for goal in goals[due:])


def test_a_new_chunk_does_not_send_a_gripper_back_to_where_its_ramp_is():
    rig = Rig()
    rig.send(rows(hand=(0.1,)))
    rig.run(0.16)
    before = rig.measured['hand'][0]
    assert 0.05 < before < 0.095
    assert rig.send(rows(hand=(0.1,))).accepted
    ticks = rig.run(0.1)
    assert {float(t.goals['hand'][0]) for t in ticks} == {0.1}
    # Nor does it pause.
    assert column(ticks, 'hand')[0] == pytest.approx(before + 0.2 * TICK)


def test_a_gripper_goal_stands_when_the_plan_is_no_longer_followed():
    rig = Rig()
    rig.send(rows(hand=(0.01,)))
    assert rig.run(0.2)[-1].goals['hand'] == pytest.approx(0.01)
    rig.dispatcher.stop(rig.now)
    assert {float(t.goals['hand'][0]) for t in rig.run(0.5)} == {0.01}


def test_permission_taken_brakes_and_falls_silent_like_a_disable():
    rig = Rig()
    rig.drive(speed=0.4)
    rig.dispatcher.disarm('the remote control is gone', rig.now)
    ticks = rig.run(1.5)
    base = column(ticks, 'base')
    assert 0.0 < base[0] < 0.4
    assert 0.0 in base
    assert 'remote control' in ticks[0].state.message
    rig.dispatcher.disarm('again', rig.now)
    assert silent(rig.tick())


def test_found_elsewhere_after_its_feedback_was_stale_the_set_point_starts_there():
    rig = Rig(stop_pub_timeout=5.0)
    rig.send(rows(arm=(0.2, 0.0)))
    held = rig.run(0.6)[-1].commands['arm']
    rig.feeding = False
    assert rig.run(0.7)[-1].state.message == 'feedback_stale'
    rig.feeding = True
    rig.measured['arm'] = elsewhere = held - 0.1
    rig.feed()
    assert rig.dispatcher.reset(rig.now).success
    assert rig.dispatcher.enable(True, rig.now).success
    rig.send(rows(arm=(0.1, 0.0)))
    assert np.abs(rig.tick().commands['arm'] - elsewhere).max() < 0.02
