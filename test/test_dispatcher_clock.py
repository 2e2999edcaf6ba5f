"""Time that does not behave: late ticks, clocks that stand still, jump, or are no number."""

from execution_helpers import column, config, Rig, rows, TICK, TOY
import numpy as np
import pytest

from faster_core.execution.dispatcher import Dispatcher
from faster_core.execution.state import Action


def silent(tick):
    return all(values is None for values in tick.commands.values())


# --- late ticks -------------------------------------------------------------------------------


@pytest.mark.parametrize('gap', [0.1, 0.3, 0.6])
def test_a_late_tick_moves_the_set_point_by_at_most_three_nominal_periods(gap):
    rig = Rig()
    arm = np.zeros((8, 2))
    arm[:, 0] = 0.09 * np.arange(1, 9)
    rig.send(rows(arm=arm, base=(0.4, 0.0)))
    before = rig.tick().commands
    after = rig.tick(gap).commands
    assert 0 < after['arm'][0] - before['arm'][0] <= 1.0 * 3 * TICK + 1e-9
    assert 0 < after['base'][0] - before['base'][0] <= 1.0 * 3 * TICK + 1e-9


@pytest.mark.parametrize('jerk', [None, 50.0])
@pytest.mark.parametrize('gap', [0.1, 0.3, 0.6])
def test_after_a_silence_speeds_have_braked_all_the_while_and_begin_from_there(gap, jerk):
    if jerk:
        pytest.importorskip('ruckig')
    rig = Rig(**({'base__max_jerk': [jerk, jerk]} if jerk else {}))
    rig.drive(0.5)
    before = rig.drive(0.1).commands['base'][0]
    assert before == pytest.approx(0.4)
    tick = rig.tick(gap, silence=gap)
    after = tick.commands['base'][0]
    if jerk:
        assert 0 <= after < before - 0.05
    else:  # a guard's zero may have come meanwhile
        assert after == pytest.approx(max(0.0, before - 1.0 * gap))
    assert (tick.state.action, tick.state.components) == (Action.LIMIT, ('base',))
    assert tick.state.message == f'limits reached after {gap:.2f} s of silence: base'
    following = column(rig.run(0.08), 'base')
    assert np.abs(np.diff([after, *following])).max() <= 1.0 * TICK + 1e-9
    assert following[-1] > after


def test_a_silence_is_as_long_as_the_stamps_say():
    rig = Rig()
    rig.drive(0.5)
    before = rig.drive(0.1).commands['base'][0]
    after = rig.tick(0.1, silence=0.102).commands['base'][0]
    assert after == pytest.approx(before - 0.1, abs=1e-9)


def test_after_a_silence_positions_go_on_as_after_any_late_tick():
    places = []
    for silence in (0.0, 0.2):
        rig = Rig()
        rig.drive(0.3, arm_speed=0.4)
        places.append(column([rig.tick(0.2, silence=silence), *rig.run(0.2)], 'arm'))
    assert np.array_equal(*places)


def test_a_clock_that_jumps_is_no_silence():
    rig = Rig()
    rig.drive(0.5)
    before = rig.drive(0.1).commands['base'][0]
    for gap in (0.1, 0.3):
        assert rig.tick(gap, silence=TICK).commands['base'][0] == pytest.approx(before)


def test_a_silence_beyond_the_plan_ends_at_rest():
    rig = Rig()
    rig.drive()
    tick = rig.tick(20.0, silence=20.0)
    assert tick.state.action is Action.HOLD
    assert tick.commands['base'][0] == 0.0


def test_after_a_late_tick_the_plan_is_caught_up_with_and_not_retimed():
    rig = Rig(arm__max_acceleration=[40.0, 40.0])
    arm = np.zeros((8, 2))
    arm[:, 0] = 0.05 * np.arange(1, 9)
    rig.send(rows(arm=arm))
    rig.tick()
    rig.tick(0.2)
    rig.run(0.3)
    tick = rig.tick()
    assert tick.commands['arm'][0] == pytest.approx(0.5 * (rig.now - 100.0), abs=1e-3)


@pytest.mark.parametrize('gap', [0.074, 0.1, 0.25])
@pytest.mark.parametrize('then', ['follow', 'stop'])
def test_after_a_late_tick_it_speeds_up_and_brakes_from_the_speed_that_it_came_with(gap, then):
    rig = Rig()
    arm = np.zeros((8, 2))
    arm[:, 0] = 0.06 * np.arange(1, 9)
    rig.send(rows(arm=arm))
    ticks = rig.run(0.2)
    ticks.append(rig.tick(gap))
    if then == 'stop':
        rig.dispatcher.stop(rig.now, 'button')
    ticks += rig.run(0.2)
    places = column(ticks, 'arm')
    dt = np.array([gap if i == 9 else TICK for i in range(len(places) - 1)])
    speeds = np.diff(places) / dt
    after = np.diff(speeds)[9:] / TICK  # those of the ticks after the late one
    assert np.abs(after).max() <= 4.0 + 1e-6
    assert (speeds[9:] >= -1e-9).all()
    if then == 'stop':
        assert (np.diff(speeds[9:]) <= 1e-9).all()


@pytest.mark.parametrize(
    ('periods', 'jerk'), [(3.3, None), (4.0, None), (6.0, None), (3.3, 400.0), (4.0, 400.0)]
)
def test_ticks_that_are_all_late_follow_the_plan_all_the_same(periods, jerk):
    # A simulator's clock may advance in such steps.
    if jerk:
        pytest.importorskip('ruckig')
    rig = Rig(**({'arm__max_jerk': [jerk, jerk]} if jerk else {}))
    arm = np.zeros((8, 2))
    arm[:, 0] = 0.04 * np.arange(1, 9)
    rig.send(rows(arm=arm))
    ticks = [rig.tick(periods * TICK) for _ in range(int(0.78 / (periods * TICK)))]
    place = ticks[-1].commands['arm'][0]
    assert place == pytest.approx(0.4 * (rig.now - 100.0), abs=0.06 if jerk else 0.02)


@pytest.mark.parametrize('jump', [0.25, 5.0])
def test_a_clock_that_jumps_ahead_leaves_a_trajectory_that_brakes_from_the_speed_it_had(jump):
    rig = Rig(enabled=False)
    rig.dispatcher = Dispatcher(TOY, config(), trajectories=('arm',))
    rig.feed()
    assert rig.dispatcher.enable(True, rig.now).success
    arm = np.zeros((8, 2))
    arm[:, 0] = 0.06 * np.arange(1, 9)
    rig.send(rows(arm=arm))
    place = rig.run(0.4)[-1].commands['arm'][0]
    rig.tick(jump)  # no time has passed for the controller
    rig.dispatcher.stop(rig.now, 'button')
    made = rig.tick().trajectories['arm']
    assert place + 0.6**2 / (2 * 4.0) / 2 < made.positions[-1, 0] < place + 0.15


def test_a_gap_longer_than_the_plan_ends_in_a_hold_and_gentle_braking():
    rig = Rig()
    speed = rig.drive().commands['base'][0]
    ticks = [rig.tick(20.0), *rig.run(1.0)]
    assert {t.state.action for t in ticks} == {Action.HOLD}
    base = np.concatenate([[speed], column(ticks, 'base')])
    assert np.diff(base).min() >= -1.0 * 3 * TICK - 1e-9
    assert base[-1] == 0.0


def test_a_gap_in_which_feedback_was_missing_too_is_a_stop():
    rig = Rig()
    rig.drive()
    rig.now += 20.0
    tick = rig.dispatcher.tick(rig.now)
    assert tick.state.action is Action.STOP
    assert tick.state.message == 'feedback_stale'


def test_a_chunk_after_a_gap_without_ticks_starts_where_the_arm_was_commanded_last():
    rig = Rig()
    rig.drive(0.2, arm_speed=0.4)
    last = rig.measured['arm'][0]
    rig.now += 0.3
    rig.feed()
    assert rig.send(rows(arm=(last + 0.1, 0.0))).accepted
    arm = np.concatenate([[last], column([rig.tick()], 'arm'), column(rig.run(0.5), 'arm')])
    assert np.abs(np.diff(arm)).max() <= 1.0 * 3 * TICK + 1e-9
    assert arm[-1] == pytest.approx(last + 0.1)


def test_uneven_ticks_follow_the_same_plan_as_even_ones():
    rng = np.random.default_rng(0)
    arm = np.zeros((8, 2))
    arm[:, 0] = 0.03 * np.arange(1, 9)
    rig = Rig()
    rig.send(rows(arm=arm))
    rig.run(0.2)
    for dt in rng.uniform(0.002, 0.035, 20):
        tick = rig.tick(dt)
        assert tick.commands['arm'][0] == pytest.approx(0.3 * (rig.now - 100.0), abs=0.004)


# --- a clock that stands still ----------------------------------------------------------------


def test_a_clock_that_stands_still_holds_and_brakes_the_base():
    rig = Rig()
    speed = rig.drive().commands['base'][0]
    ticks = [rig.tick(0.0) for _ in range(60)]
    actions = [t.state.action for t in ticks]
    assert actions[:9] == [Action.FOLLOW] * 9
    assert set(actions[9:]) == {Action.HOLD}
    assert ticks[-1].state.message == 'the clock stands still'
    base = column(ticks, 'base')
    assert base[8] == speed
    assert np.diff(base).min() >= -1.0 * TICK - 1e-9
    assert base[-1] == 0.0


def test_a_clock_that_goes_on_goes_on_with_the_plan_within_limits():
    rig = Rig()
    rig.drive(0.2, arm_speed=0.4)
    paused = [rig.tick(0.0) for _ in range(40)]
    ticks = rig.run(0.5)
    assert ticks[5].state.action in (Action.FOLLOW, Action.LIMIT)
    for name, change in (('base', 1.0), ('arm', 1.0)):
        values = column(paused[-1:] + ticks, name)
        assert np.abs(np.diff(values)).max() <= change * TICK + 1e-9
    assert column(ticks, 'base')[-1] == pytest.approx(0.4)


def test_a_stopped_base_brakes_also_when_the_clock_stands_still():
    rig = Rig()
    rig.drive()
    rig.dispatcher.stop(rig.now)
    base = column([rig.tick(0.0) for _ in range(60)], 'base')
    assert base[-1] == 0.0
    assert not np.isnan(base).any()


def test_two_ticks_at_the_same_time_give_the_same_command():
    rig = Rig()
    rig.drive(0.3, arm_speed=0.4)
    first, second = rig.tick(), rig.tick(0.0)
    for name, values in first.commands.items():
        assert values.tolist() == second.commands[name].tolist()


# --- a clock that is set back -----------------------------------------------------------------


def test_a_small_correction_of_the_clock_is_no_jump():
    rig = Rig()
    rig.drive(0.6)
    before = rig.tick().commands['base'][0]
    tick = rig.tick(-0.04)
    assert tick.state.enabled
    assert tick.commands['base'][0] == before
    assert rig.run(0.1)[-1].state.action is Action.FOLLOW


def test_disarms_on_clock_reset_and_brakes():
    rig = Rig()
    speed = rig.drive(0.5, arm_speed=0.3).commands['base'][0]
    arm = rig.measured['arm'][0]
    ticks = [rig.tick(-90.0), *rig.run(0.9)]
    assert not any(t.state.enabled for t in ticks)
    assert ticks[0].state.message == 'the clock was set back: enable again'
    base = np.concatenate([[speed], column(ticks, 'base')])
    assert np.diff(base).min() >= -1.0 * TICK - 1e-9
    assert base[-1] == 0.0
    assert (np.diff(np.concatenate([[arm], column(ticks, 'arm')])) >= 0).all()
    assert silent(rig.run(1.0)[-1])


def test_a_clock_reset_forgets_feedback_and_the_newest_stamp():
    rig = Rig()
    rig.drive()
    rig.feeding = False
    rig.tick(-90.0)
    assert rig.dispatcher.enable(True, rig.now).message == 'no fresh feedback of arm, hand'
    rig.feeding = True
    rig.feed()
    assert rig.dispatcher.enable(True, rig.now).success
    assert rig.send(rows(arm=rig.measured['arm'])).accepted


@pytest.mark.parametrize('call', ['tick', 'feedback', 'chunk', 'enable', 'disable', 'reset'])
def test_whoever_brings_the_earlier_time_first_it_disarms(call):
    rig = Rig()
    rig.drive()
    rig.now -= 50.0
    {
        'tick': lambda: rig.dispatcher.tick(rig.now),
        'feedback': lambda: rig.dispatcher.on_feedback('arm', np.zeros(2), rig.now),
        'chunk': lambda: rig.send(),
        'enable': lambda: rig.dispatcher.enable(True, rig.now),
        'disable': lambda: rig.dispatcher.enable(False, rig.now),
        'reset': lambda: rig.dispatcher.reset(rig.now),
    }[call]()
    assert rig.dispatcher.plan is None
    assert not rig.tick().state.enabled


@pytest.mark.parametrize('forward', [0.3, 0.05])
def test_a_clock_that_leaps_moves_nothing_faster_than_the_time_that_passed(forward):
    rig = Rig()
    rig.drive(0.3, arm_speed=0.3)
    before, now = rig.tick().commands, rig.tick().commands
    assert now['arm'][0] - before['arm'][0] == pytest.approx(0.3 * TICK)
    for k in range(4):
        rig.now += TICK + forward * (k == 0)
        rig.feed()
        later = rig.dispatcher.tick(rig.now, TICK, passed=TICK).commands
        speeds = [(b['arm'][0] - a['arm'][0]) / TICK for a, b in ((before, now), (now, later))]
        assert 0 < speeds[1] <= 1.01
        assert abs(speeds[1] - speeds[0]) <= 4.0 * TICK * 1.05
        assert abs(later['base'][0] - now['base'][0]) <= 1.0 * TICK * 1.05
        before, now = now, later
    assert speeds[1] > 0.4  # it catches up


def test_a_clock_that_comes_in_steps_holds_nothing_back():
    places = []
    for step in (1, 2):
        rig = Rig()
        rig.send(rows(arm=np.stack([0.09 * np.arange(1, 9), np.zeros(8)], axis=1)))
        for k in range(20):
            rig.now += step * TICK * (k % step == step - 1)
            rig.feed()
            tick = rig.dispatcher.tick(rig.now, TICK, passed=TICK)
        places.append(tick.commands['arm'][0])
    assert places[0] == pytest.approx(places[1], abs=0.02)
    assert places[0] > 0.25


def test_right_after_a_clock_was_set_back_a_tick_moves_by_what_passed():
    rig = Rig()
    rig.drive(0.4)
    before = rig.dispatcher.tick(rig.now, TICK, passed=TICK).commands
    rig.now -= 50.0
    after = rig.dispatcher.tick(rig.now, 0.001, passed=0.001).commands
    assert abs(after['base'][0] - before['base'][0]) <= 1.0 * 0.001 + 2e-4


def test_a_clock_reset_keeps_a_stop():
    rig = Rig()
    rig.drive()
    rig.dispatcher.stop(rig.now, 'button')
    tick = rig.tick(-90.0)
    assert (tick.state.action, tick.state.message) == (Action.STOP, 'button')


def test_after_silence_a_clock_reset_does_not_send_old_positions():
    # By now another source may have moved the robot, or a simulator was reset.
    rig = Rig()
    rig.drive()
    rig.dispatcher.enable(False, rig.now)
    assert silent(rig.run(3.0)[-1])
    rig.measured['arm'] = np.array([0.9, 0.9])
    assert all(silent(t) for t in [rig.tick(-90.0), *rig.run(2.0)])


def test_a_clock_reset_does_not_end_the_zeros_early():
    rig = Rig()
    rig.drive(2.0)
    rig.dispatcher.stop(rig.now)
    rig.run(0.3)
    base = column([rig.tick(-90.0), *rig.run(2.0)], 'base')
    assert (~np.isnan(base)).sum() == pytest.approx(0.7 / TICK, abs=2)


# --- a time that is none ----------------------------------------------------------------------


@pytest.mark.parametrize('now', [np.nan, np.inf, -np.inf])
def test_a_time_that_is_no_number_disarms_and_brakes(now):
    rig = Rig()
    speed = rig.drive().commands['base'][0]
    tick = rig.dispatcher.tick(now)
    assert not tick.state.enabled
    ticks = [tick, *(rig.dispatcher.tick(now) for _ in range(30))]
    base = np.concatenate([[speed], column(ticks, 'base')])
    assert np.diff(base).min() >= -1.0 * TICK - 1e-9
    assert base[-1] == 0.0
    assert np.isfinite(np.concatenate([t.commands['arm'] for t in ticks])).all()
    ticks = rig.run(3.0)
    assert not column(ticks, 'base')[0]
    assert silent(ticks[-1])


@pytest.mark.parametrize('now', [np.nan, np.inf, -np.inf])
def test_at_a_time_that_is_no_number_nothing_can_be_enabled_or_accepted(now):
    rig = Rig(enabled=False)
    assert not rig.dispatcher.enable(True, now).success
    rig.feed()
    rig.dispatcher.enable(True, rig.now)
    rig.now, before = now, rig.now
    assert rig.send(stamp=before).reason == 'not_enabled'
    rig.now = before
    commands = rig.tick().commands
    assert commands['arm'] is None
    assert commands['base'].tolist() == [0.0, 0.0]  # it was enabled: the base is told to stand


@pytest.mark.parametrize('now', [np.nan, np.inf, -np.inf])
def test_a_stop_works_at_any_time_and_a_normal_time_heals(now):
    rig = Rig()
    rig.drive()
    assert rig.dispatcher.stop(now, 'button').success
    assert rig.tick().state.action is Action.STOP
    assert rig.dispatcher.reset(rig.now).success
    assert rig.dispatcher.enable(True, rig.now).success
    assert rig.send(rows(arm=rig.measured['arm'])).accepted
