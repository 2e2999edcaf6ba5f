"""The simulated robot on a clock that the test turns: slices, lag, watchdogs, brake, factor."""

import numpy as np
import pytest

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.paths import embodiment_file
from faster_core.sim import R1LiteSim
from faster_core.sim.realtime import RealTimeConfig, RealTimeRobot


class FakeSim:
    """Notes what it is told."""

    def __init__(self):
        self.embodiment = Embodiment.load(embodiment_file('r1_lite'))
        self.steps, self.commands, self.resets = [], [], []

    def set_command(self, component, values):
        values = np.asarray(values, dtype=float)
        if values.shape != (self.embodiment.action_component(component).size,):
            raise ValueError('wrong size')
        self.commands.append((component, values.tolist()))

    def step(self, duration):
        self.steps.append(duration)

    def reset(self, seed, task):
        self.resets.append((seed, task))

    def speed(self, component):
        return next(v for c, v in reversed(self.commands) if c == component)


@pytest.fixture
def sim():
    return FakeSim()


def _robot(sim, now=100.0, **config):
    return RealTimeRobot(sim, now, RealTimeConfig(**config))


def _catch_up(robot, now):
    """Tick until nothing is due; returns the number of slices run."""
    before = robot.num_slices
    while robot.tick(now) <= 1e-9:
        pass
    return robot.num_slices - before


def _follow(robot, start, seconds, period=0.01):
    for k in range(1, round(seconds / period) + 1):
        _catch_up(robot, start + k * period + 1e-6)
    return start + seconds


def test_nothing_runs_before_the_first_slice_is_due(sim):
    robot = _robot(sim)
    assert robot.tick(100.004) == pytest.approx(0.006)
    assert sim.steps == []
    robot.tick(100.0101)
    assert sim.steps == [0.01]


def test_one_call_runs_at_most_one_slice_so_that_commands_get_in_between(sim):
    robot = _robot(sim)
    assert robot.tick(100.0501) < 0
    assert len(sim.steps) == 1
    assert _catch_up(robot, 100.0501) == 4
    assert robot.elapsed == pytest.approx(0.05)


def test_lag_up_to_the_limit_is_caught_up(sim):
    robot = _robot(sim, max_lag=0.1)
    assert _catch_up(robot, 100.1001) == 10


def test_longer_lag_is_given_up_instead_of_run_in_a_burst(sim):
    robot = _robot(sim, max_lag=0.1)
    assert _catch_up(robot, 105.0) <= 2
    assert _follow(robot, 105.0, 1.0) == 106.0
    assert 99 <= len(sim.steps) <= 103


def test_whoever_commands_is_called_before_every_slice_with_the_time_it_was_due_at(sim):
    called = []
    robot = RealTimeRobot(
        sim, 100.0, RealTimeConfig(slice=0.005), lambda due: called.append((due, len(sim.steps)))
    )
    _catch_up(robot, 100.0201)  # late: times are those of the slices, not of now
    np.testing.assert_allclose([due for due, _ in called], [100.005, 100.01, 100.015, 100.02])
    assert [done for _, done in called] == [0, 1, 2, 3]


def test_slices_have_the_length_asked_for(sim):
    robot = _robot(sim, slice=0.02)
    _follow(robot, 100.0, 1.0)
    assert set(sim.steps) == {0.02}
    assert len(sim.steps) == 50


def test_restart_does_not_catch_up_what_passed_meanwhile(sim):
    robot = _robot(sim)
    robot.restart(100.09)
    assert robot.tick(100.09) == pytest.approx(0.01)
    assert sim.steps == []


def test_elapsed_time_goes_on_over_a_new_episode(sim):
    robot = _robot(sim)
    now = _follow(robot, 100.0, 0.5)
    robot.reset(7, 'pick_red')
    assert sim.resets == [(7, 'pick_red')]
    _follow(robot, now, 0.5)
    assert robot.elapsed == pytest.approx(1.0)


def test_chassis_keeps_its_last_target_for_ever_as_the_vendors_does(sim):
    robot = _robot(sim)
    robot.command('base', [0.2, 0.0, 0.1], 100.0)
    _follow(robot, 100.0, 10.0)
    assert sim.speed('base') == [0.2, 0.0, 0.1]


def test_torso_forgets_a_speed_that_is_not_repeated(sim):
    robot = _robot(sim, torso_timeout=0.5)
    robot.command('torso', [0.0, 0.05, 0.0, 0.0], 100.0)
    now = _follow(robot, 100.0, 0.49)
    assert sim.speed('torso') == [0.0, 0.05, 0.0, 0.0]
    _follow(robot, now, 0.05)
    assert sim.speed('torso') == [0.0] * 4
    told = len(sim.commands)
    _follow(robot, now + 0.05, 1.0)
    assert len(sim.commands) == told  # once is enough


def test_torso_goes_on_while_its_speed_is_repeated(sim):
    robot = _robot(sim, torso_timeout=0.5)
    now = 100.0
    for _ in range(5):
        robot.command('torso', [0.0, 0.05, 0.0, 0.0], now)
        now = _follow(robot, now, 0.4)
    assert [0.0] * 4 not in [values for component, values in sim.commands]


def test_base_with_a_timeout_stops_and_positions_never_do(sim):
    robot = _robot(sim, base_timeout=0.3, torso_timeout=0.0)
    robot.command('base', [0.2, 0.0, 0.0], 100.0)
    robot.command('torso', [0.0, 0.05, 0.0, 0.0], 100.0)
    robot.command('left_arm', [0.1] * 6, 100.0)
    _follow(robot, 100.0, 2.0)
    assert sim.speed('base') == [0.0] * 3
    assert sim.speed('torso') == [0.0, 0.05, 0.0, 0.0]
    assert sim.speed('left_arm') == [0.1] * 6


def test_refused_command_does_not_keep_an_old_speed_alive(sim):
    robot = _robot(sim, torso_timeout=0.5)
    robot.command('torso', [0.0, 0.05, 0.0, 0.0], 100.0)
    now = _follow(robot, 100.0, 0.4)
    with pytest.raises(ValueError, match='wrong size'):
        robot.command('torso', [0.05], now)
    _follow(robot, now, 0.2)
    assert sim.speed('torso') == [0.0] * 4


def test_commands_of_the_last_episode_do_not_reach_into_the_next(sim):
    robot = _robot(sim, torso_timeout=0.5)
    robot.command('torso', [0.0, 0.05, 0.0, 0.0], 100.0)
    now = _follow(robot, 100.0, 0.2)
    robot.reset(1)
    told = len(sim.commands)
    _follow(robot, now, 1.0)
    assert len(sim.commands) == told


def test_brake_stops_the_base_and_ignores_its_speeds_until_released(sim):
    robot = _robot(sim)
    robot.command('base', [0.2, 0.0, 0.0], 100.0)
    robot.brake(True)
    assert sim.speed('base') == [0.0] * 3
    robot.command('base', [0.1, 0.0, 0.0], 100.1)
    robot.command('left_gripper', [0.04], 100.1)
    assert sim.speed('base') == [0.0] * 3
    assert sim.speed('left_gripper') == [0.04]
    robot.brake(False)
    # What was asked while it was braked is not made up for.
    assert sim.speed('base') == [0.0] * 3
    robot.command('base', [0.1, 0.0, 0.0], 100.2)
    assert sim.speed('base') == [0.1, 0.0, 0.0]


def test_braked_base_still_refuses_a_command_of_wrong_size(sim):
    robot = _robot(sim)
    robot.brake(True)
    with pytest.raises(ValueError, match='wrong size'):
        robot.command('base', [0.1], 100.0)


def test_real_time_factor_is_one_when_it_keeps_up(sim):
    robot = _robot(sim)
    assert robot.real_time_factor(100.0) == 1.0
    now = 100.0
    for _ in range(50):
        now = _follow(robot, now, 0.1)
        factor = robot.real_time_factor(now)
    assert factor == pytest.approx(1.0, abs=0.02)


def test_real_time_factor_tells_a_robot_at_half_speed(sim):
    robot = _robot(sim)
    now = 100.0
    for k in range(300):
        now += 0.02
        robot.tick(now)  # one slice of 10 ms in 20 ms
        if k % 10 == 0:
            factor = robot.real_time_factor(now)
    assert factor == pytest.approx(0.5, abs=0.05)


def test_real_time_factor_forgets_after_two_seconds(sim):
    robot = _robot(sim)
    now = 100.0
    for _ in range(10):
        now += 0.5
        robot.tick(now)
        factor = robot.real_time_factor(now)
    assert factor < 0.1
    robot.restart(now)
    for _ in range(30):
        now = _follow(robot, now, 0.1)
        factor = robot.real_time_factor(now)
    assert factor == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'slice': 0.0}, r'slice: expected seconds in \(0, 0\.1\], found 0'),
        ({'slice': -0.01}, 'slice: expected'),
        ({'slice': 0.2}, 'slice: expected'),
        ({'slice': float('nan')}, 'slice: expected'),
        (
            {'slice': 0.05, 'max_lag': 0.01},
            r'max_lag: at least one slice \(0\.05 s\), found 0\.01',
        ),
        ({'base_timeout': -1.0}, r'base_timeout: seconds >= 0, found -1'),
        ({'torso_timeout': -0.1}, 'torso_timeout: seconds >= 0'),
    ],
)
def test_configuration_out_of_range_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        RealTimeConfig(**config)


def test_abandoned_robot_drives_on_but_its_torso_stops():
    # The reason why the dispatcher must send zeros until it is deactivated.
    robot = _robot(R1LiteSim(), now=0.0)
    robot.command('base', [0.0, 0.1, 0.0], 0.0)
    robot.command('torso', [0.0, -0.05, 0.0, 0.0], 0.0)
    _follow(robot, 0.0, 1.0)
    torso, base = robot.sim.feedback('torso')[0], robot.sim.feedback('base')[0]
    _follow(robot, 1.0, 1.0)
    assert np.abs(robot.sim.feedback('torso')[0] - torso).max() < 5e-3
    assert robot.sim.feedback('base')[0][1] - base[1] == pytest.approx(0.1, abs=0.005)
    assert robot.sim.time == pytest.approx(robot.elapsed)
