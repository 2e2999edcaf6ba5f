"""Plans as trajectories: in the future, ending at rest, within limits between points too."""

import dataclasses

from execution_helpers import chunk, config, PERIOD, Rail, Rig, rows, START, TICK, TOY
from hypothesis import example, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.execution import motion as motion_module
from faster_core.execution.dispatcher import Dispatcher, DispatcherConfig
from faster_core.execution.limits import PositionLimiter
from faster_core.execution.plan import Plan
from faster_core.execution.spline import peak_acceleration, peak_speed, Trajectory
from faster_core.execution.state import Action
from faster_core.execution.trajectory import brake, follow, follow_all
from faster_core.execution.warm_up import warm_up

ARM = slice(0, 2)


def limiter(position=(0.0, 0.0), velocity=(0.0, 0.0), **changes):
    made = PositionLimiter(config(**changes).components['arm'], np.array(position))
    made.velocity = np.array(velocity)
    return made


def plan(values, start=START, period=PERIOD):
    values = np.asarray(values, dtype=float)
    return Plan(
        times=start + period * np.arange(len(values)),
        values=np.concatenate([values, np.zeros((len(values), 3))], axis=1),
        first_row=0,
        switching=np.zeros(5, dtype=bool),
        sequence_id=1,
    )


def spline(made, start):
    """Return the cubic a controller would execute from where the set-point was."""
    return CubicHermiteSpline(
        np.concatenate([[0.0], made.times]),
        np.concatenate([start.position[None], made.positions]),
        np.concatenate([start.velocity[None], made.velocities]),
    )


def sane(made, lead):
    assert (np.diff(made.times) > 0.99e-6).all()  # also in nanoseconds
    assert made.times[0] >= min(lead, 5e-4)
    assert (made.velocities[-1] == 0.0).all()
    assert np.isfinite(made.positions).all()
    assert np.isfinite(made.velocities).all()


@given(
    steps=st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), min_size=2, max_size=20),
    late=st.floats(0.0, 0.9),
    place=st.tuples(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)),
    speed=st.tuples(st.floats(-1.0, 1.0), st.floats(-2.0, 2.0)),
    period=st.floats(0.02, 0.2),
)
@settings(max_examples=800, deadline=None)
def test_any_plan_becomes_a_trajectory_within_the_limits_between_its_points_too(
    steps, late, place, speed, period
):
    values = np.cumsum(np.array(steps), axis=0)
    start = limiter(position=place, velocity=speed)
    limits = start.config
    # As fast as a limiter lets it be there: it can just brake.
    room = np.where(start.velocity > 0, limits.upper - place, place - limits.lower)
    fastest = np.sqrt(2 * limits.max_acceleration * room)
    start.velocity = np.clip(start.velocity, -fastest, fastest)
    now = START + late * period * (len(values) - 1)
    made = follow(start, plan(values, period=period), ARM, now=now, lead=period, tick=TICK)
    sane(made, period)
    curve = spline(made, start)
    t = np.linspace(0.0, made.times[-1], 2000)
    assert (np.abs(curve(t, 1)) <= limits.max_velocity * 1.02 + 1e-9).all()
    assert (curve(t) >= limits.lower - 1e-3).all()
    assert (curve(t) <= limits.upper + 1e-3).all()
    assert made.within_limits
    ends = np.concatenate([curve.x[:-1], curve.x[1:] - 1e-9])  # linear between
    assert (np.abs(curve(ends, 2)) <= limits.max_acceleration * 1.011).all()


@given(
    stop=st.floats(0.0, 0.3),
    apart=st.tuples(*[st.floats(-2e-3, 2e-3)] * 3),
    sign=st.tuples(*[st.sampled_from([-1.0, 0.0, 1.0])] * 3),
    room=st.tuples(*[st.sampled_from([0.0, 1e-5, 1e-3, 1.0])] * 3),
    rate=st.sampled_from([50.0, 200.0, 1000.0]),
)
@example(  # two that stop within a tenth of a microsecond, a third 2 ms sooner
    stop=0.25,
    apart=(0.0, 1.192092896e-07, -0.001953125),
    sign=(-1.0, -1.0, -1.0),
    room=(0.0, 0.0, 0.0),
    rate=50.0,
)
@settings(max_examples=600, deadline=None)
def test_joints_that_stop_within_a_moment_brake_within_their_limits(stop, apart, sign, room, rate):
    # Stops at almost one time, before the end of their range or just at it.
    stops = np.maximum(stop + np.array(apart), 0.0)
    speed = 4.0 * stops * np.array(sign)
    resting = speed * np.abs(speed) / 8.0
    start = limiter()
    start.config = dataclasses.replace(
        start.config,
        max_acceleration=np.full(3, 4.0),
        max_velocity=np.full(3, 2.0),
        lower=np.minimum(resting, 0.0) - np.array(room),
        upper=np.maximum(resting, 0.0) + np.array(room),
    )
    start.position, start.velocity = np.zeros(3), speed
    made = brake(start, lead=PERIOD, tick=1.0 / rate)
    sane(made, 0.0)
    assert made.within_limits
    curve = spline(made, start)
    ends = np.concatenate([curve.x[:-1], curve.x[1:] - 1e-9])
    assert (np.abs(curve(ends, 2)) <= 4.0 * 1.011).all()
    # Gently enough for a tick, or for a millisecond, and no farther.
    gently = 4.0 * np.maximum(1.0 / rate, stops) * np.maximum(1.0 / rate, 1e-3)
    assert (np.abs(made.positions[-1] - resting) <= gently + 1e-9).all()


@pytest.mark.parametrize('others', [(), (0.42,)])
def test_what_hardly_moves_gets_no_point_of_its_own(others):
    # 2 mrad/s at 4 rad/s²: a controller that is a little behind would have to rush there.
    start = limiter(velocity=(2e-3, 0.0), arm__max_acceleration=[4.0, 4.0])
    if others:
        start.velocity[1] = others[0]
    made = brake(start, lead=PERIOD, tick=1e-3)
    assert made.times == pytest.approx([0.105] if others else [PERIOD])
    assert made.positions[-1, 0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize('apart', [0.0, 3e-18, 5e-7])
def test_stops_at_almost_one_time_without_room_are_one_point(apart):
    start = limiter(arm__max_acceleration=[3.0, 7.0])
    speed = np.array([3.0, 7.0]) * [0.019, 0.019 - apart]
    ends = speed**2 / 2.0 / [3.0, 7.0]
    start.config = dataclasses.replace(start.config, upper=ends)
    start.velocity = speed
    made = brake(start, lead=PERIOD, tick=TICK)
    sane(made, 0.0)
    assert len(made.times) == 1
    assert made.within_limits


def test_from_outside_of_the_range_a_set_point_moves_no_farther_out():
    start = limiter(position=(1.01, -1.02))
    for k in range(50):
        inwards = np.array([0.9 + 0.01 * k, -0.9 - 0.01 * k])
        start.step(inwards, inwards + 0.01 * np.array([1.0, -1.0]), TICK)
        assert start.position[0] <= 1.01
        assert start.position[1] >= -1.02


def test_a_stop_within_a_tick_takes_the_tick():
    start = limiter(velocity=(0.04, 0.0))
    made = brake(start, lead=PERIOD, tick=TICK)
    assert made.times == pytest.approx([TICK])
    assert made.positions[-1, 0] == pytest.approx(0.04 * TICK / 2.0)


@given(
    speed=st.floats(-1.0, 1.0),
    upper=st.floats(-0.5, 0.5),
    period=st.floats(0.02, 0.2),
    rate=st.sampled_from([50.0, 200.0, 1000.0]),
)
@settings(max_examples=150, deadline=None)
def test_a_set_point_that_a_narrowed_range_left_outside_is_led_back(speed, upper, period, rate):
    away = 0.5 * period * np.arange(10)[:, None] * np.ones(2)
    start = limiter(velocity=(speed, 0.0), arm__position_limits=[-1.0, upper, -1.0, 1.0])
    made = follow(start, plan(away, period=period), ARM, now=START, lead=period, tick=1.0 / rate)
    sane(made, 0.0)
    assert made.positions[-1, 0] <= max(upper, 0.0) + speed**2 / 8.0 + 0.05
    if made.times[-1] > 1.0 + abs(speed):
        assert made.positions[-1, 0] <= upper + 1e-6


def test_the_points_are_the_rows_where_nothing_limits():
    smooth = 0.1 * np.sin(0.5 * np.arange(20))[:, None] * np.ones(2)
    start = limiter(arm__max_acceleration=[1e4, 1e4])
    made = follow(start, plan(smooth), ARM, now=START, lead=1.5 * PERIOD, tick=TICK)
    rows_later = np.arange(20) >= 2
    assert made.times[: rows_later.sum()] == pytest.approx(
        (np.arange(20) * PERIOD)[rows_later], abs=1e-6
    )
    assert made.positions[: rows_later.sum()] == pytest.approx(smooth[rows_later], abs=2e-3)


def test_velocities_are_those_of_the_path_and_zero_where_the_direction_changes():
    there_and_back = np.array([0, 0.05, 0.1, 0.15, 0.1, 0.05, 0.0, 0.0])[:, None] * np.ones(2)
    start = limiter(arm__max_acceleration=[1e4, 1e4])
    made = follow(start, plan(there_and_back), ARM, now=START, lead=PERIOD, tick=TICK)
    assert made.velocities[1] == pytest.approx([0.5, 0.5], abs=0.02)
    assert made.velocities[2] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_turn_at_the_limit_is_no_faster_than_the_limit():
    # Ticks at 0.3 rad/s there and back: 5 rad/s² between them, and between points no more.
    there_and_back = 0.3 * PERIOD * np.array([0, 1, 2, 3, 2, 1, 0, 0])[:, None] * np.ones(2)
    start = limiter(arm__max_acceleration=[5.0, 5.0])
    made = follow(start, plan(there_and_back), ARM, now=START, lead=PERIOD, tick=TICK)
    curve = spline(made, start)
    t = np.linspace(0.0, made.times[-1], 5000)
    assert 4.0 < np.abs(curve(t, 2)).max() <= 5.05


def test_the_first_point_is_a_lead_away():
    made = follow(limiter(), plan(np.zeros((8, 2))), ARM, now=START + 0.05, lead=PERIOD, tick=TICK)
    assert made.times[0] >= PERIOD


def test_a_plan_that_ends_in_motion_gets_the_way_to_brake():
    running = 0.05 * np.arange(8)[:, None] * np.array([1.0, 0.0])
    start = limiter()
    made = follow(start, plan(running), ARM, now=START, lead=PERIOD, tick=TICK)
    assert made.times[-1] > 7 * PERIOD
    assert made.velocities[-1] == pytest.approx([0.0, 0.0])
    # x + v² / 2a beyond the last row.
    assert made.positions[-1, 0] == pytest.approx(0.35 + 0.5**2 / 8.0, abs=0.01)


def test_braking_takes_v_over_a_and_ends_at_x_plus_v_squared_over_2a():
    made = brake(limiter(velocity=(0.8, -1.6)), lead=PERIOD, tick=TICK)
    assert made.times == pytest.approx([0.2])
    assert made.positions[0] == pytest.approx([0.8**2 / 8, -(1.6**2) / 16])
    sane(made, 0.0)


def test_each_dimension_brakes_at_its_own_rate():
    start = limiter(velocity=(0.8, -0.4))
    made = brake(start, lead=PERIOD, tick=TICK)
    assert made.times == pytest.approx([0.05, 0.2])
    t = np.linspace(0.0, 0.2, 100)
    deceleration = np.abs(spline(made, start)(t, 2))
    assert (deceleration <= start.config.max_acceleration + 1e-6).all()
    # A parabola: what the limiter does tick by tick, without its rounding to ticks.
    assert made.positions[-1] == pytest.approx([0.08, -0.01])


def test_what_stands_is_told_to_stand():
    made = brake(limiter(position=(0.3, 0.1)), lead=PERIOD, tick=TICK)
    assert made.times == pytest.approx([PERIOD])
    assert made.positions[0] == pytest.approx([0.3, 0.1])


def test_braking_does_not_leave_the_range():
    made = brake(limiter(position=(0.99, 0.0), velocity=(1.0, 0.0)), lead=PERIOD, tick=TICK)
    assert made.positions[-1, 0] == pytest.approx(1.0)


def test_the_peaks_of_a_cubic_are_found_between_its_points():
    times, values, slopes = np.array([0.0, 1.0]), np.array([[0.0], [1.0]]), np.zeros((2, 1))
    assert peak_speed(times, values, slopes) == pytest.approx(1.5)
    assert peak_acceleration(times, values, slopes) == pytest.approx(6.0)


def test_several_components_together_get_what_each_gets_alone():
    rng = np.random.default_rng(3)
    limiters = [limiter((0.1, -0.2), (0.3, 0.0)), limiter((0.0, 0.4), (0.0, -0.5))]
    values = np.cumsum(rng.uniform(-0.05, 0.05, (8, 4)), axis=0)
    both = dataclasses.replace(
        plan(values[:, :2]), values=np.concatenate([values, np.zeros((8, 1))], axis=1)
    )
    columns, options = [slice(0, 2), slice(2, 4)], {'now': START, 'lead': PERIOD, 'tick': TICK}
    together = follow_all(limiters, both, columns, **options)
    for one, own, made in zip(limiters, columns, together, strict=True):
        alone = follow(one, both, own, **options)
        assert made.within_limits and alone.within_limits
        sane(made, PERIOD)
        times = np.linspace(0.0, alone.times[-1], 50)
        there = [spline(m, one)(np.minimum(times, m.times[-1])) for m in (made, alone)]
        assert there[0] == pytest.approx(there[1], abs=5e-3)


def test_what_is_left_of_a_trajectory_has_no_point_at_once_but_always_its_last():
    way = Trajectory(
        times=np.array([0.01, 0.02, 0.03]),
        positions=np.array([[1.0], [2.0], [3.0]]),
        velocities=np.array([[1.0], [1.0], [0.0]]),
    )
    left = way.after(0.008)
    assert left.times == pytest.approx([0.012, 0.022])
    assert left.positions.ravel().tolist() == [2.0, 3.0]
    last = way.after(0.5)
    assert (last.positions.ravel().tolist(), last.velocities.ravel().tolist()) == ([3.0], [0.0])
    assert last.times[0] > 0.0


# --- when the dispatcher sends one -----------------------------------------------------------


class Controller:
    """Follows the trajectories of a rail as one of ros2_control does, from its last command."""

    def __init__(self, rail):
        self.rail, self.worst = rail, 0.0
        self.path, self.begin = None, 0.0

    def at(self, now):
        if self.path is None:
            return np.zeros(2), np.zeros(2)
        t = min(now - self.begin, self.path.x[-1])
        return self.path(t), self.path(t, 1)

    def take(self, ticks, passed=0.0):
        """Follow what a tick sent, which comes `passed` seconds after its time."""
        for tick in ticks:
            if (way := tick.trajectories.get('arm')) is None:
                continue
            way, now = way.after(passed), self.rail.now + passed
            start = self.at(now)
            self.path = CubicHermiteSpline(
                np.concatenate([[0.0], way.times]),
                np.concatenate([start[0][None], way.positions]),
                np.concatenate([start[1][None], way.velocities]),
            )
            self.begin = now
            harder = np.abs(self.path(np.linspace(0.0, way.times[-1], 2000), 2)).max(axis=0)
            limit = config().components['arm'].max_acceleration
            self.worst = max(self.worst, float((harder / limit).max()))


@pytest.mark.parametrize('end', ['stop', 'drop', 'disable'])
@pytest.mark.parametrize('moment', np.arange(0.11, 0.61, 0.07))
def test_a_controller_brakes_within_the_limits_from_where_it_is(end, moment):
    rig = Rail()
    controller = Controller(rig)
    rig.send(rows(arm=0.06 * np.arange(8)[:, None] * np.array([1.0, -1.5])))
    for _ in range(round(moment / TICK)):
        controller.take([rig.tick()])
    if end == 'stop':
        rig.dispatcher.stop(rig.now)
    elif end == 'disable':
        rig.dispatcher.enable(False, rig.now)
    else:
        rig.send(np.zeros((0, 5)))
    assert np.abs(controller.at(rig.now)[1]).max() > 0.1
    controller.take([rig.tick()])
    assert controller.worst <= 1.02


def test_a_controller_keeps_the_limits_when_one_plan_follows_another():
    rig = Rail()
    controller, rng = Controller(rig), np.random.default_rng(5)
    for _ in range(40):
        place = controller.at(rig.now)[0]
        target = np.clip(place + rng.uniform(-0.3, 0.3, 2), -0.8, 0.8)
        way = np.linspace(place, target, 9)[1:]
        rig.send(rows(arm=way))
        for _ in range(int(rng.integers(4, 20))):
            controller.take([rig.tick()])
    assert controller.worst <= 1.02


def test_a_trajectory_that_takes_a_while_begins_where_the_controller_is_by_then():
    rig = Rail()
    rig.dispatcher.sending_time = 0.03
    controller, rng = Controller(rig), np.random.default_rng(6)
    for _ in range(20):
        place = controller.at(rig.now)[0]
        way = np.linspace(place, np.clip(place + rng.uniform(-0.3, 0.3, 2), -0.8, 0.8), 9)[1:]
        rig.send(rows(arm=way))
        tick = rig.tick()
        assert tick.trajectories['arm'].times[0] == pytest.approx(0.03)
        controller.take([tick], passed=0.03)
        for _ in range(int(rng.integers(6, 20))):
            controller.take([rig.tick()])
    assert controller.worst <= 1.03


@pytest.mark.parametrize('ticks', [1, 2])
def test_a_stop_before_a_new_trajectory_has_begun_brakes_on_the_one_before(ticks):
    rig = Rail()
    rig.dispatcher.sending_time = 0.05
    controller = Controller(rig)
    way = 0.06 * np.arange(8)[:, None] * np.array([1.0, -1.5])
    rig.send(rows(arm=way))
    controller.take([rig.tick()], passed=0.05)
    for _ in range(12):
        controller.take([rig.tick()])
    place = controller.at(rig.now)[0]
    on = place + np.array([0.06, -0.09]) * np.arange(1, 9)[:, None]
    assert rig.send(rows(arm=on)).accepted
    controller.take([rig.tick()])  # its way begins 0.05 s later
    for _ in range(ticks - 1):
        rig.tick()
    rig.dispatcher.stop(rig.now)
    assert np.abs(controller.at(rig.now)[1]).max() > 0.1
    controller.take([rig.tick()])
    # One cubic until it begins, where there were several; from its beginning it were 1.7 and more.
    assert controller.worst <= 1.35


@pytest.mark.parametrize('end', [False, True])
@pytest.mark.parametrize('late', [0.03, 0.06, 0.1])
def test_a_trajectory_that_could_not_be_sent_in_time_is_made_anew(end, late):
    worst = {}
    for put_off in (True, False):
        rig = Rail()
        rig.dispatcher.sending_time = rig.dispatcher.stopping_time = 0.01
        controller = Controller(rig)
        rig.send(rows(arm=0.06 * np.arange(8)[:, None] * np.array([1.0, -1.5])))
        controller.take([rig.tick()], passed=0.01)
        for _ in range(14):
            controller.take([rig.tick()])
        if end:
            rig.dispatcher.stop(rig.now)
        else:
            back = controller.at(rig.now)[0] * np.linspace(0.9, 0.2, 8)[:, None]
            assert rig.send(rows(arm=back), stamp=rig.now).accepted
        tick = rig.tick()
        assert tick.begins_in == 0.01
        if put_off:
            tick = rig.dispatcher.put_off(tick, ['arm'], late + 0.01)
            assert tick.begins_in == late + 0.01
        # Where it begins is up to 0.01 s away.
        controller.take([tick], passed=late + 0.01 * put_off)
        worst[put_off] = controller.worst
        for _ in range(30):
            controller.take([rig.tick()])
        assert rig.dispatcher.tick(rig.now).begins_in == np.inf
    assert worst[True] <= 1.03
    assert worst[False] > 1.5


def test_a_trajectory_made_anew_is_followed_where_the_next_one_begins():
    rig = Rail()
    rig.dispatcher.sending_time = rig.dispatcher.stopping_time = 0.01
    controller, rng = Controller(rig), np.random.default_rng(8)
    for k in range(20):
        place = controller.at(rig.now)[0]
        way = np.linspace(place, np.clip(place + rng.uniform(-0.3, 0.3, 2), -0.8, 0.8), 9)[1:]
        rig.send(rows(arm=way))
        tick, late = rig.tick(), 0.01
        for late in (0.02, 0.05)[: k % 3]:
            tick = rig.dispatcher.put_off(tick, ['arm'], late)
        controller.take([tick], passed=late)
        for _ in range(int(rng.integers(8, 20))):
            controller.take([rig.tick()])
    assert controller.worst <= 1.03


@pytest.mark.parametrize('back', [3.0, 0.0])
def test_where_the_controller_is_does_not_depend_on_a_clock_that_is_wrong(back):
    worst = {}
    for passed in (4 * TICK, None):
        rig = Rail()
        controller = Controller(rig)
        rig.send(rows(arm=0.06 * np.arange(8)[:, None] * np.array([1.0, -1.5])))
        for _ in range(14):
            controller.take([rig.tick()])
        rig.now += 3 * TICK
        # Set back; or it still says what it said before, as that of a busy simulation.
        rig.dispatcher.stop(rig.now - 3 * TICK)
        tick = rig.dispatcher.tick(rig.now - 3 * TICK - back, 4 * TICK, passed=passed)
        rig.now += TICK
        controller.take([tick])
        worst[passed] = controller.worst
    assert worst[4 * TICK] <= 1.02
    assert worst[None] > 1.5


def test_with_bounded_jerk_nothing_is_put_off():
    rig = Rail(arm__max_jerk=[40.0, 80.0])
    rig.dispatcher.sending_time = 0.03
    rig.send(rows(arm=0.03 * np.arange(8)[:, None] * np.ones(2)))
    assert rig.tick().begins_in == np.inf


def test_with_bounded_jerk_it_begins_at_the_set_point_at_once():
    made = []
    for sending_time in (0.0, 0.03):
        rig = Rail(arm__max_jerk=[40.0, 80.0])
        rig.dispatcher.sending_time = sending_time
        rig.send(rows(arm=0.03 * np.arange(8)[:, None] * np.ones(2)))
        rig.run(0.3)
        rig.send(rows(arm=0.03 * np.arange(8)[:, None] * np.ones(2)), stamp=rig.now)
        made.append(rig.tick().trajectories['arm'])
    assert np.array_equal(made[0].times, made[1].times)
    assert np.array_equal(made[0].positions, made[1].positions)


def test_warming_up_takes_what_a_first_chunk_does(monkeypatch):
    tried, at_once = [], motion_module.follow_all

    def noted(limiters, plan, *args, **options):
        tried.append((len(limiters), len(plan.times)))
        return at_once(limiters, plan, *args, **options)

    monkeypatch.setattr(motion_module, 'follow_all', noted)
    rig = Rail()
    made = warm_up(TOY, config(), ['arm'])
    rig.send(rows(arm=np.zeros((TOY.action_horizon, 2))))
    rig.tick()
    assert tried[0] == tried[1]
    sane(made['arm'], PERIOD)


def test_a_chunk_is_sent_as_a_trajectory_once():
    rig = Rail()
    assert rig.send(rows(arm=0.05 * np.arange(8)[:, None] * np.ones(2))).accepted
    ticks = rig.run(0.3)
    assert [bool(t.trajectories) for t in ticks] == [True] + [False] * (len(ticks) - 1)
    sane(ticks[0].trajectories['arm'], PERIOD)


@pytest.mark.parametrize('end', [False, True])
@pytest.mark.parametrize('stall', [0.1, 0.3])
def test_with_bounded_jerk_a_late_tick_leaves_nothing_out(stall, end):
    rig = Rail(arm__max_jerk=[40.0, 80.0])
    controller = Controller(rig)
    way = 0.04 * np.arange(1, 9)[:, None] * np.ones(2)
    assert rig.send(rows(arm=way)).accepted
    for _ in range(15):
        controller.take([rig.tick()])
    rig.now += stall
    place, speed = controller.at(rig.now)
    rig.measured['arm'] = place
    rig.feed()
    if end:
        rig.dispatcher.stop(rig.now)
    else:
        assert rig.send(rows(arm=place + way), stamp=rig.now).accepted
    made = rig.dispatcher.tick(rig.now, stall, passed=stall).trajectories['arm']
    assert np.abs((made.positions[0] - place) / made.times[0] - speed).max() < 0.3


def test_a_chunk_without_rows_moves_nothing_before_the_first_one_after_an_enable():
    rig = Rail()
    assert rig.send(rows(arm=0.05 * np.arange(8)[:, None] * np.ones(2))).accepted
    rig.run(0.3)
    rig.dispatcher.enable(False, rig.now)
    rig.run(3.0)
    rig.measured['arm'] = np.array([-0.4, 0.6])  # somebody moved it by hand
    rig.tick()
    assert rig.dispatcher.enable(True, rig.now).success
    assert rig.send(np.zeros((0, 5))).accepted
    ticks = rig.run(0.2)
    assert not any(t.trajectories for t in ticks)
    assert all(t.commands['arm'] is None for t in ticks)
    assert ticks[-1].state.message == 'waiting for the first chunk'


def test_a_plan_that_runs_out_needs_no_further_trajectory():
    rig = Rail()
    rig.send(rows(arm=0.05 * np.arange(8)[:, None] * np.ones(2)))
    ticks = rig.run(2.0)
    assert sum(bool(t.trajectories) for t in ticks) == 1


@pytest.mark.parametrize(
    'end',
    [
        lambda rig: rig.dispatcher.stop(rig.now),
        lambda rig: rig.dispatcher.enable(False, rig.now),
        lambda rig: rig.send(np.zeros((0, 5))),
    ],
    ids=['stop', 'disable', 'drop'],
)
def test_an_end_replaces_it_by_a_way_to_rest(end):
    rig = Rail()
    rig.send(rows(arm=0.06 * np.arange(8)[:, None] * np.array([1.0, 0.0])))
    moving = rig.run(0.4)[-1].commands['arm']
    end(rig)
    tick = rig.tick()
    made = tick.trajectories['arm']
    sane(made, 0.0)
    assert 0.0 < made.positions[-1, 0] - moving[0] < 0.2
    assert not any(t.trajectories for t in rig.run(1.0))


def test_set_points_rest_where_the_trajectory_ends():
    rig = Rail()
    rig.send(rows(arm=0.06 * np.arange(8)[:, None] * np.array([1.0, 0.0])))
    rig.run(0.4)
    rig.dispatcher.stop(rig.now)
    made = rig.tick().trajectories['arm']
    assert rig.run(0.5)[-1].commands['arm'] == pytest.approx(made.positions[-1], abs=0.02)


def test_a_second_reason_to_stop_does_not_swallow_the_way_to_rest():
    rig = Rail()
    rig.send(rows(arm=0.06 * np.arange(8)[:, None] * np.array([1.0, 0.0])))
    rig.run(0.4)
    rig.dispatcher.enable(False, rig.now)
    rig.dispatcher.stop(rig.now)
    assert 'arm' in rig.tick().trajectories


def test_nothing_is_sent_before_the_first_chunk():
    rig = Rail()
    assert not any(t.trajectories for t in rig.run(0.2))
    rig.dispatcher.stop(rig.now)
    assert not rig.tick().trajectories


def test_a_trajectory_needs_an_acceleration_to_brake_with():
    with pytest.raises(ConfigError, match=r'hand\.max_acceleration: missing'):
        Dispatcher(TOY, config(), trajectories=['hand'])
    dispatcher = Dispatcher(TOY, config(), trajectories=['arm'])
    with pytest.raises(ConfigError, match=r'arm\.max_acceleration'):
        dispatcher.set_config(config(arm__max_acceleration=None))


# --- goals, take-over, coarse first ----------------------------------------------------------


def test_a_goal_is_the_row_due_now_and_the_command_the_way_there():
    rig = Rig()
    rig.send(rows(hand=(0.1,)))
    tick = rig.run(0.3)[-1]
    assert tick.goals['hand'] == pytest.approx([0.1])
    assert 0.05 < tick.commands['hand'][0] < 0.1
    assert 'base' not in tick.goals


def test_a_take_over_silences_everything_at_once_and_asks_for_an_enable():
    rig = Rail()
    rig.drive()
    rig.dispatcher.yield_to('/cmd_vel_teleop', rig.now)
    tick = rig.tick()
    assert all(v is None for v in tick.commands.values())
    assert not tick.state.enabled
    assert '/cmd_vel_teleop' in tick.state.message
    assert rig.send().reason == 'not_enabled'
    assert rig.dispatcher.enable(True, rig.now).success
    rig.send()
    assert rig.tick().commands['base'] is not None


def test_a_take_over_ends_a_running_trajectory_unless_the_other_one_commands_that_controller():
    for shared in (False, True):
        rig = Rail()
        rig.drive(arm_speed=0.5)
        rig.dispatcher.yield_to('teleop', rig.now, taken=['arm'] if shared else [])
        ways = [t.trajectories for t in rig.run(1.0) if t.trajectories]
        assert [list(w) for w in ways] == ([] if shared else [['arm']])
        assert shared or ways[0]['arm'].velocities[-1].tolist() == [0.0, 0.0]
        assert shared or ways[0]['arm'].times[-1] < 0.5


def test_a_take_over_of_one_controller_ends_the_trajectory_at_the_other():
    names = ('left', 'right')
    both = Embodiment.from_text(
        'name: two\naction_frequency: 10.0\naction_horizon: 8\ncameras: [head]\nstate:\n'
        + ''.join(f'  - {{component: {n}, kind: joint_position, names: [j]}}\n' for n in names)
        + 'action:\n'
        + ''.join(f'  - {{component: {n}, kind: joint_position, names: [j]}}\n' for n in names)
        + 'tokenizer_groups: [[left], [right]]\n'
    )
    limits = {'max_velocity': [2.0], 'max_acceleration': [8.0], 'max_start_offset': 0.3}
    parameters = {'components': list(names), 'dispatch_rate': 50.0}
    parameters |= {f'{n}.{key}': value for n in names for key, value in limits.items()}
    rules = DispatcherConfig.from_parameters(parameters, both)
    dispatcher = Dispatcher(both, rules, trajectories=names)
    for name in names:
        dispatcher.on_feedback(name, np.zeros(1), START)
    dispatcher.enable(True, START)
    values = 0.05 * np.arange(8)[:, None] * np.ones(2)
    assert dispatcher.on_chunk(chunk(values, embodiment_checksum=both.checksum), START).accepted
    for k in range(1, 16):
        dispatcher.tick(START + TICK * k)
    now = START + TICK * 16
    dispatcher.yield_to('a goal of MoveIt', now, taken=['left'])
    assert list(dispatcher.tick(now).trajectories) == ['right']
    dispatcher.yield_to('a goal of MoveIt', now + TICK, taken=['left'])
    assert not dispatcher.tick(now + TICK).trajectories


def test_who_is_enabled_again_sends_its_trajectories_to_all():
    rig = Rail()
    rig.drive(arm_speed=0.5)
    rig.tick()
    rig.dispatcher.yield_to('teleop', rig.now, taken=['arm'])
    assert rig.dispatcher.enable(True, rig.now).success
    assert not rig.tick().trajectories  # it may still be the other one's
    rig.dispatcher.yield_to('teleop', rig.now, taken=['arm'])
    assert rig.dispatcher.enable(True, rig.now).success
    assert rig.send().accepted
    assert 'arm' in rig.tick().trajectories


def test_limits_that_no_trajectory_keeps_are_told_as_long_as_it_is_followed():
    rig = Rail()
    rig.drive(arm_speed=0.5)
    ahead = float(rig.tick().commands['arm'][0])
    rig.dispatcher.set_config(config(arm__position_limits=[-1.0, ahead - 0.1, -1.0, 1.0]))
    first, *later = rig.run(0.2)
    assert not first.trajectories['arm'].within_limits
    for tick in (first, *later):
        assert tick.state.action is Action.LIMIT
        assert 'arm' in tick.state.components
        assert 'the trajectory exceeds limits' in tick.state.message
    rig.dispatcher.stop(rig.now)
    assert 'the trajectory' not in rig.tick().state.message


def test_a_stop_in_the_tick_of_a_take_over_ends_the_trajectory():
    rig = Rail()
    rig.drive(arm_speed=0.5)
    rig.dispatcher.stop(rig.now, 'estop')
    rig.dispatcher.yield_to('teleop', rig.now, taken=['arm'])
    way = rig.tick().trajectories['arm']
    assert way.times[-1] > 0.5 / 10.0  # braked, not brought to a halt at once


def test_a_chunk_in_the_tick_of_a_take_over_of_that_controller_sends_no_trajectory():
    rig = Rail()
    rig.drive(arm_speed=0.5)
    assert rig.send().accepted
    rig.dispatcher.yield_to('teleop', rig.now, taken=['arm'])
    assert not rig.tick().trajectories


def test_a_limit_lowered_at_run_time_reaches_a_running_trajectory():
    rig = Rail()
    rig.drive(arm_speed=0.5)
    rig.dispatcher.set_config(config(arm__max_velocity=[0.1, 0.1]))
    way = rig.tick().trajectories['arm']
    late = way.times > 0.2
    assert np.abs(way.velocities[late]).max() < 0.12


def test_enabled_again_a_trajectory_starts_where_the_robot_is_measured():
    rig = Rail()
    rig.drive(arm_speed=0.3)
    rig.dispatcher.enable(False, rig.now)
    rig.run(0.6)
    rig.measured['arm'] = elsewhere = rig.measured['arm'] - 0.1  # through the controller's action
    rig.feed()
    rig.dispatcher.enable(True, rig.now)
    rig.send(rows(arm=tuple(elsewhere)))
    way = rig.tick().trajectories['arm']
    assert np.abs(way.positions - elsewhere).max() < 1e-6


def test_a_take_over_does_not_clear_a_stop():
    rig = Rail()
    rig.drive()
    rig.dispatcher.stop(rig.now)
    rig.dispatcher.yield_to('teleop', rig.now)
    assert all(v is None for v in rig.tick().commands.values())
    assert not rig.dispatcher.enable(True, rig.now).success


def test_more_levels_of_the_same_observation_replace_the_coarse_chunk():
    rig = Rig()
    stamp = rig.now
    send = rig.dispatcher.on_chunk
    coarse = {'stamp': stamp, 'sequence_id': 1, 'num_levels': 1}
    assert send(chunk(**coarse), rig.now).accepted
    rig.tick()
    assert send(chunk(**coarse | {'sequence_id': 2}), rig.now).reason == 'out_of_order'
    assert send(chunk(**coarse | {'sequence_id': 3, 'num_levels': 2}), rig.now).accepted
    assert send(chunk(**coarse | {'sequence_id': 4, 'num_levels': None}), rig.now).accepted
    assert send(chunk(**coarse | {'sequence_id': 5, 'num_levels': 3}), rig.now).reason == (
        'out_of_order'
    )
