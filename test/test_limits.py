"""Velocity and acceleration limits, as properties over random targets and uneven ticks."""

import dataclasses

from execution_helpers import config, TICK
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from faster_core.execution.limits import PositionLimiter, STANDING, VelocityLimiter

PROPERTY = settings(max_examples=50, deadline=None)
TINY = 1e-9
ticks = st.lists(st.floats(1e-4, 3 * TICK), min_size=1, max_size=60)
seeds = st.integers(0, 2**32 - 1)
accelerations = st.sampled_from([0.5, 4.0, 40.0, np.inf])


def arm(**changes):
    return dataclasses.replace(config().components['arm'], **changes)


def base(**changes):
    return dataclasses.replace(config().components['base'], **changes)


def limited(acceleration, **changes):
    return arm(max_acceleration=np.full(2, acceleration), **changes)


def unbounded(acceleration):
    return limited(acceleration, lower=np.full(2, -np.inf), upper=np.full(2, np.inf))


def random_walk(seed, count, reach):
    """Return [count, 2] targets: jumps, stretches of standing still and ramps, mixed."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.0, 0.01, reach], size=(count, 1)) * rng.uniform(-1, 1, (count, 2))
    return np.clip(np.cumsum(steps, axis=0), -reach, reach)


def follow(limiter, targets, dts):
    """Step through targets, the first one approached from itself; yields what each tick did."""
    before = targets[0]
    for target, dt in zip(targets, dts, strict=True):
        position, velocity = limiter.position.copy(), limiter.velocity.copy()
        limiter.step(before, target, dt)
        yield position, velocity, dt
        before = target


@PROPERTY
@given(seeds, ticks, st.sampled_from([0.5, 4.0, 40.0]))
def test_a_limit_on_speed_that_is_lowered_on_the_way_is_reached_by_braking(seed, dts, most):
    limiter = PositionLimiter(unbounded(most), np.zeros(2))
    rng = np.random.default_rng(seed)
    for _, before, dt in follow(limiter, random_walk(seed, len(dts), 3.0), dts):
        assert (np.abs(limiter.velocity - before) <= most * dt + STANDING).all()
        allowed = np.maximum(limiter.config.max_velocity, np.abs(before) - most * dt)
        assert (np.abs(limiter.velocity) <= allowed + TINY).all()
        if rng.random() < 0.3:
            limiter.config = dataclasses.replace(
                limiter.config, max_velocity=rng.uniform(0.01, 2.0, 2)
            )


@PROPERTY
@given(seeds, ticks, accelerations)
def test_a_set_point_never_moves_faster_than_its_limit(seed, dts, acceleration):
    limiter = PositionLimiter(limited(acceleration), np.zeros(2))
    for position, _, dt in follow(limiter, random_walk(seed, len(dts), 3.0), dts):
        way = np.abs(limiter.position - position)
        assert (way <= limiter.config.max_velocity * dt + TINY).all()


@PROPERTY
@given(seeds, ticks, st.sampled_from([0.5, 4.0, 40.0]))
def test_its_velocity_changes_by_at_most_the_acceleration(seed, dts, acceleration):
    limiter = PositionLimiter(unbounded(acceleration), np.zeros(2))
    for _, velocity, dt in follow(limiter, random_walk(seed, len(dts), 3.0), dts):
        assert (np.abs(limiter.velocity - velocity) <= acceleration * dt + 2e-6).all()


@PROPERTY
@given(seeds, ticks, accelerations, st.floats(-1.0, 1.0))
def test_from_inside_it_never_leaves_the_range(seed, dts, acceleration, start):
    limiter = PositionLimiter(limited(acceleration), np.full(2, start))
    for _ in follow(limiter, random_walk(seed, len(dts), 3.0), dts):
        assert (np.abs(limiter.position) <= 1.0).all()


@PROPERTY
@given(seeds, ticks, accelerations)
def test_its_velocity_is_how_fast_it_really_moved(seed, dts, acceleration):
    limiter = PositionLimiter(limited(acceleration), np.zeros(2))
    for position, _, dt in follow(limiter, random_walk(seed, len(dts), 3.0), dts):
        assert limiter.velocity == pytest.approx((limiter.position - position) / dt, abs=2e-6)


@PROPERTY
@given(st.floats(-2.0, 2.0), st.floats(0.5, 40.0))
def test_a_jump_of_the_target_is_reached_without_overshoot(goal, acceleration):
    limiter = PositionLimiter(unbounded(acceleration), np.zeros(2))
    target = np.full(2, goal)
    for _ in range(round((abs(goal) + 2.0 / acceleration + 4.0) / TICK)):
        limiter.step(target, target, TICK)
        assert (np.abs(limiter.position) <= abs(goal) + 1e-6).all()
    assert limiter.position == pytest.approx(target, abs=1e-6)
    assert limiter.at_rest


@PROPERTY
@given(st.floats(-0.8, 0.8), st.floats(4.0, 40.0))
def test_a_target_at_constant_speed_is_caught_up_with_and_then_followed_exactly(
    speed, acceleration
):
    limiter = PositionLimiter(unbounded(acceleration), np.zeros(2))
    for k in range(500):
        before, target = np.full(2, speed * TICK * k), np.full(2, speed * TICK * (k + 1))
        was_limited = limiter.step(before, target, TICK)
    assert limiter.position == pytest.approx(target, abs=1e-6)
    assert not was_limited


def test_without_an_acceleration_limit_only_the_speed_is_bounded():
    limiter = PositionLimiter(limited(np.inf), np.zeros(2))
    limiter.step(np.zeros(2), np.array([0.5, -0.5]), TICK)
    assert limiter.velocity == pytest.approx([1.0, -2.0])


@pytest.mark.parametrize('start', [-1.4, 1.4])
def test_a_start_outside_of_the_range_is_led_back_at_the_limited_speed(start):
    limiter = PositionLimiter(limited(4.0), np.full(2, start))
    places = [start]
    for _ in range(200):
        assert limiter.step(np.full(2, start), np.full(2, start), TICK)
        places.append(limiter.position[0])
    assert np.abs(np.diff(places)).max() <= 1.0 * TICK + TINY
    assert places[-1] == pytest.approx(np.sign(start), abs=1e-6)


def test_being_kept_from_the_target_is_reported_and_being_there_is_not():
    limiter = PositionLimiter(limited(np.inf), np.zeros(2))
    within = np.array([0.9 * TICK, -0.9 * TICK])
    assert not limiter.step(np.zeros(2), within, TICK)
    assert limiter.step(within, np.array([0.5, 0.0]), TICK)


def test_a_gripper_on_its_way_is_no_limit_but_a_gripper_outside_of_its_range_is():
    limiter = PositionLimiter(config().components['hand'], np.zeros(1), switches=True)
    assert not limiter.step(np.zeros(1), np.array([0.1]), TICK)
    assert limiter.position == pytest.approx([0.2 * TICK])
    assert limiter.step(np.array([0.1]), np.array([0.105]), TICK)


# --- coming to rest ---------------------------------------------------------------------------


@PROPERTY
@given(seeds, ticks, ticks, accelerations)
def test_settling_never_moves_back_never_speeds_up_and_ends_at_rest(seed, dts, more, acceleration):
    limiter = PositionLimiter(unbounded(acceleration), np.zeros(2))
    for _ in follow(limiter, random_walk(seed, len(dts), 3.0), dts):
        pass
    start, direction = limiter.position.copy(), np.sign(limiter.velocity)
    rest = limiter.resting_point()
    for dt in more + [TICK] * round(2.1 / min(acceleration, 4.0) / TICK + 200):
        position, velocity = limiter.position.copy(), limiter.velocity.copy()
        limiter.settle(dt)
        assert ((limiter.position - position) * direction >= 0).all()
        assert (np.abs(limiter.velocity) <= np.abs(velocity) + 1e-6).all()
        assert (np.abs(limiter.velocity - velocity) <= acceleration * dt + 2e-6).all()
    assert limiter.at_rest
    assert (np.abs(limiter.position - start) <= np.abs(rest - start) + 1e-6).all()


def test_settling_stops_where_braking_in_ticks_must_end():
    limiter = PositionLimiter(unbounded(4.0), np.zeros(2))
    limiter.velocity = np.array([1.0, -0.5])
    assert limiter.resting_point() == pytest.approx([0.125, -0.03125])
    while not limiter.at_rest:
        limiter.settle(0.001)
    assert limiter.position == pytest.approx([0.125, -0.03125], abs=1e-3)


def test_a_lower_acceleration_while_settling_stops_later_but_does_not_turn_back():
    limiter = PositionLimiter(unbounded(8.0), np.zeros(2))
    limiter.velocity = np.full(2, 1.0)
    limiter.settle(TICK)
    limiter.config = unbounded(1.0)
    places = []
    for _ in range(100):
        limiter.settle(TICK)
        places.append(limiter.position[0])
    assert (np.diff(places) >= 0).all()
    assert limiter.at_rest


def test_settling_ends_at_the_end_of_the_range():
    limiter = PositionLimiter(limited(0.5), np.full(2, 0.99))
    limiter.velocity = np.full(2, 1.0)
    for _ in range(100):
        limiter.settle(TICK)
        assert (limiter.position <= 1.0).all()
    assert limiter.at_rest


def test_settling_outside_of_the_range_stands_still_and_is_not_led_back():
    # A stopped robot that was measured outside of its range would start to move otherwise.
    limiter = PositionLimiter(limited(4.0), np.full(2, 1.2))
    limiter.settle(TICK)
    assert limiter.position.tolist() == [1.2, 1.2]


# --- velocities -------------------------------------------------------------------------------


@PROPERTY
@given(seeds, ticks, st.sampled_from([0.5, 4.0]))
def test_a_velocity_is_continuous_and_bounded(seed, dts, acceleration):
    limiter = VelocityLimiter(base(max_acceleration=np.full(2, acceleration)))
    for target, dt in zip(random_walk(seed, len(dts), 3.0), dts, strict=True):
        before = limiter.velocity
        limiter.step(target, target, dt)
        assert (np.abs(limiter.velocity - before) <= acceleration * dt + TINY).all()
        assert (np.abs(limiter.velocity) <= limiter.config.max_velocity).all()


def test_a_velocity_within_limits_is_reached_and_then_not_reported():
    limiter, target = VelocityLimiter(base()), np.array([0.3, -0.6])
    reports = [limiter.step(target, target, TICK) for _ in range(16)]
    assert reports == [True] * 14 + [False] * 2  # 0.3 m/s at 1 m/s² in ticks of 0.02 m/s
    assert limiter.velocity == pytest.approx(target)


def test_a_velocity_beyond_its_limit_is_cut_and_reported_for_as_long_as_it_lasts():
    limiter, target = VelocityLimiter(base()), np.array([0.52, 0.0])
    reports = [limiter.step(target, target, TICK) for _ in range(100)]
    assert all(reports)
    assert limiter.velocity == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize('acceleration', [0.5, np.inf])
def test_a_velocity_settles_to_exactly_zero_and_stays(acceleration):
    limiter = VelocityLimiter(base(max_acceleration=np.full(2, acceleration)))
    limiter.velocity = np.array([0.5, -0.31])
    for _ in range(51):
        limiter.settle(TICK)
    assert limiter.velocity.tolist() == [0.0, 0.0]
    assert limiter.at_rest
    assert limiter.resting_point().tolist() == [0.0, 0.0]


def test_a_velocity_does_not_stop_faster_than_its_acceleration_allows():
    limiter = VelocityLimiter(base())
    limiter.velocity = np.array([0.5, -1.0])
    limiter.settle(TICK)
    assert limiter.velocity == pytest.approx([0.48, -0.96])
