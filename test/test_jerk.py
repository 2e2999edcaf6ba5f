"""Limits on the jerk: bounded in every tick, targets reached, ranges kept, rest found."""

import dataclasses

from execution_helpers import config, PERIOD, Rig, rows, TICK
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

pytest.importorskip('ruckig')

import ruckig

from faster_core.errors import ConfigError
from faster_core.execution.jerk import JerkPositionLimiter, JerkVelocityLimiter
from faster_core.execution.plan import Plan
from faster_core.execution.spline import peak_acceleration
from faster_core.execution.trajectory import brake, follow

JERK = {'arm__max_jerk': [40.0, 80.0], 'base__max_jerk': [10.0, 20.0]}
SLACK = 1e-6


def arm(position=(0.0, 0.0), **changes):
    made = config(**JERK | changes).components['arm']
    return JerkPositionLimiter(made, np.array(position))


def base():
    return JerkVelocityLimiter(config(**JERK).components['base'])


def walk(limiter, targets, dt=TICK):
    """Step through targets [N, d]; return positions and accelerations after each."""
    before, found = targets[0], []
    for target in targets[1:]:
        limiter.step(before, target, dt)
        before = target
        found.append((limiter.command.copy(), limiter.velocity, limiter.acceleration))
    return [np.array(x) for x in zip(*found, strict=True)]


@given(
    jumps=st.lists(st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)), min_size=1, max_size=6),
    dt=st.sampled_from([0.005, TICK, 0.05]),
)
@settings(max_examples=80, deadline=None)
def test_position_speed_acceleration_and_jerk_stay_within_their_limits(jumps, dt):
    limiter = arm()
    limits = limiter.config
    targets = np.repeat(np.array(jumps), 25, axis=0)
    places, speeds, accelerations = walk(limiter, np.concatenate([[[0.0, 0.0]], targets]), dt)
    jerks = np.diff(accelerations, axis=0, prepend=0.0) / dt
    assert (np.abs(speeds) <= limits.max_velocity + SLACK).all()
    assert (np.abs(accelerations) <= limits.max_acceleration + SLACK).all()
    assert (places >= limits.lower - SLACK).all()
    assert (places <= limits.upper + SLACK).all()
    # What is cut off at the end of the range is the one exception.
    inside = (places > limits.lower + SLACK) & (places < limits.upper - SLACK)
    assert (
        np.abs(jerks)[inside] <= (np.zeros_like(places) + limits.max_jerk)[inside] * 1.001
    ).all()


def test_a_target_that_stands_is_reached_without_swinging_over_it():
    limiter = arm()
    places, *_ = walk(limiter, np.full((120, 2), 0.5))
    assert places[-1] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert places.max() <= 0.5 + 1e-6
    assert limiter.at_rest


def test_a_target_that_moves_is_caught_and_followed():
    t = np.arange(200) * TICK
    targets = np.stack([0.4 * np.sin(t), 0.4 * np.sin(1.5 * t)], axis=1)
    places, *_ = walk(arm(), targets)
    assert np.abs(places[100:] - targets[101:]).max() < 5e-3


def test_braking_changes_the_acceleration_little_by_little_and_ends_at_the_point_told():
    limiter = arm()
    walk(limiter, np.linspace([0, 0], [0.5, 0.5], 40))
    told = limiter.resting_point()
    before = limiter.acceleration
    for _ in range(100):
        limiter.settle(TICK)
        jerk = np.abs(limiter.acceleration - before) / TICK
        assert (jerk <= limiter.config.max_jerk * 1.001).all()
        before = limiter.acceleration
    assert limiter.at_rest
    assert limiter.position == pytest.approx(told, abs=1e-6)


def test_where_the_solver_fails_it_brakes(monkeypatch):
    # At the limits of arithmetic: found by fuzzing after a limit on speed was lowered.
    state = (1.8127035557512492, -0.30212835101266156, 29.083405497689213)
    limits = {'max_velocity': 0.7551772431661125, 'max_acceleration': 40.0, 'max_jerk': 400.0}
    limiter = arm(
        arm__position_limits=[-9.0, 9.0], **{f'arm__{k}': [v] * 2 for k, v in limits.items()}
    )
    limiter.position, limiter.velocity, limiter.acceleration = (np.full(2, v) for v in state)
    goal = np.full(2, 1.97487831782565)
    with pytest.raises(ruckig.RuckigError):
        limiter._to(goal, TICK)

    def unsolved(*_):
        raise ValueError

    monkeypatch.setattr(limiter, '_beside', unsolved)
    limiter.step(goal, goal, TICK)
    assert limiter.acceleration == pytest.approx(state[2] - 400.0 * TICK)
    for _ in range(50):
        limiter.settle(TICK)
    assert limiter.at_rest


def test_a_way_that_would_take_hours_is_none():
    limiter = arm()
    limiter.velocity = np.array([0.05, -0.05])
    limiter.config = dataclasses.replace(limiter.config, max_velocity=np.full(2, 1e-6))
    for _ in range(100):
        limiter.step(np.ones(2), np.ones(2), TICK)
    assert (np.abs(limiter.velocity) <= 2e-6).all()


def test_a_trajectory_to_rest_has_the_same_way():
    limiter = arm()
    walk(limiter, np.linspace([0, 0], [0.5, 0.5], 40))
    way = brake(limiter, lead=PERIOD, tick=TICK)
    assert (np.diff(way.times) > 0).all()
    assert (way.velocities[-1] == 0).all()
    assert way.positions[-1] == pytest.approx(limiter.resting_point(), abs=1e-6)
    assert way.within_limits
    limiter.settle(way.times[0])
    assert way.positions[0] == pytest.approx(limiter.position, abs=1e-6)


@pytest.mark.parametrize('jerk', [20.0, 100.0, 1000.0, 5000.0])
def test_trajectories_keep_the_acceleration_between_their_points_too(jerk):
    rng = np.random.default_rng(3)
    for _ in range(6):
        limiter = arm(arm__max_jerk=[jerk, jerk])
        goal = rng.uniform(-0.9, 0.9, 2)
        for _ in range(int(rng.integers(0, 60))):
            limiter.step(goal, goal, TICK)
        assert brake(limiter, lead=PERIOD, tick=TICK).within_limits
        rows = np.clip(limiter.position + np.cumsum(rng.uniform(-0.02, 0.02, (16, 2)), 0), -1, 1)
        plan = Plan(
            times=0.066 * np.arange(16),
            values=rows,
            first_row=0,
            switching=np.zeros(2, dtype=bool),
            sequence_id=1,
        )
        made = follow(limiter, plan, slice(0, 2), now=0.01, lead=PERIOD, tick=TICK)
        assert made.within_limits
        times = np.concatenate([[0.0], made.times])
        places = np.concatenate([limiter.position[None], made.positions])
        speeds = np.concatenate([limiter.velocity[None], made.velocities])
        peak = peak_acceleration(times, places, speeds)
        assert (peak <= limiter.config.max_acceleration * 1.011).all()


def test_velocities_ramp_with_bounded_jerk_and_come_to_zero():
    limiter = base()
    for _ in range(60):
        limiter.step(np.zeros(2), np.array([0.5, 1.0]), TICK)
    assert limiter.velocity == pytest.approx([0.5, 1.0], abs=1e-6)
    before = limiter.acceleration
    for _ in range(80):
        limiter.settle(TICK)
        jerk = np.abs(limiter.acceleration - before) / TICK
        assert (jerk <= limiter.config.max_jerk * 1.001).all()
        before = limiter.acceleration
    assert limiter.at_rest


def test_a_dispatcher_with_jerk_limits_follows_holds_and_stops():
    rig = Rig(**JERK)
    # The arm's set-points start with a jerk: what is limited says so.
    rig.send(rows(arm=0.03 * np.arange(8)[:, None] * np.ones(2), base=(0.2, 0.0)))
    assert rig.run(0.7)[-1].commands['arm'][0] > 0.05
    rig.dispatcher.stop(rig.now)
    last = rig.run(0.9)[-2:]
    assert last[0].commands['arm'].tolist() == last[1].commands['arm'].tolist()
    assert rig.dispatcher._motion.at_rest('base')


def test_a_jerk_limit_needs_an_acceleration_limit_and_the_package(monkeypatch):
    with pytest.raises(ConfigError, match=r'hand\.max_jerk: needs max_acceleration'):
        config(hand__max_jerk=[1.0])
    with pytest.raises(ConfigError, match=r'arm\.max_jerk: expected 2 numbers'):
        config(arm__max_jerk=[1.0])
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='needs ruckig'):
        config(arm__max_jerk=[1.0, 1.0])
