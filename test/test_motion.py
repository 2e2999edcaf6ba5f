"""All set-points together: which moves, which holds, and what a new enable takes over."""

from execution_helpers import config, HOME, TICK, TOY
import numpy as np
import pytest

from faster_core.execution.motion import Motion

GO = np.array([0.5, -0.5, 0.1, 0.5, -1.0])


def motion(**changes):
    return Motion(TOY, config(**changes), HOME)


def moving(count=10, **changes):
    m = motion(**changes)
    for _ in range(count):
        m.follow(GO, GO, TICK)
    return m


def test_it_starts_at_rest_where_the_robot_is():
    m = motion()
    assert m.set_point().tolist() == [0.0, 0.0, 0.05, 0.0, 0.0]
    assert all(m.at_rest(name) for name in ('arm', 'hand', 'base'))


def test_components_read_their_own_columns():
    m = moving(400)
    assert m.command('arm') == pytest.approx(GO[:2], abs=1e-6)
    assert m.command('hand') == pytest.approx(GO[2:3])
    assert m.command('base') == pytest.approx(GO[3:])
    assert m.set_point() == pytest.approx(GO, abs=1e-6)


def test_follow_names_exactly_the_components_that_a_limit_keeps_back():
    m = motion()
    target = m.set_point()
    assert m.follow(target, target, TICK) == ()
    target = np.array([0.0, 0.0, 0.05, 0.4, 0.0])
    assert m.follow(target, target, TICK) == ('base',)
    target = np.array([0.8, 0.0, 0.05, m.command('base')[0], 0.0])
    assert m.follow(target, target, TICK) == ('arm',)


def test_a_command_is_a_copy():
    m = moving()
    for name in ('arm', 'hand', 'base'):
        before = m.command(name)
        m.command(name)[:] = 7.0
        assert m.command(name).tolist() == before.tolist()


def test_the_measurement_it_started_from_may_change_afterwards():
    measured = {name: values.copy() for name, values in HOME.items()}
    m = Motion(TOY, config(), measured)
    measured['arm'][:] = 9.0
    assert m.command('arm').tolist() == [0.0, 0.0]


def test_settle_brakes_every_component_within_its_acceleration():
    m = moving()
    speed, arm = m.command('base'), m.command('arm')
    m.settle(TICK)
    assert m.command('base') == pytest.approx(speed - np.sign(speed) * [0.02, 0.04])
    assert (np.sign(m.command('arm') - arm) == [1, -1]).all()
    for _ in range(100):
        m.settle(TICK)
    assert all(m.at_rest(name) for name in ('arm', 'hand', 'base'))
    assert m.command('base').tolist() == [0.0, 0.0]


def test_rest_says_where_positions_will_stop_and_zero_for_velocities():
    m = moving()
    rest, now = m.rest(), m.set_point()
    assert rest[0] > now[0]
    assert rest[3:].tolist() == [0.0, 0.0]
    for _ in range(100):
        m.settle(TICK)
    assert m.set_point()[:3] == pytest.approx(rest[:3], abs=1.0 * TICK)


def test_a_restart_takes_positions_at_rest_from_the_robot():
    m = motion()
    m.restart({'arm': np.array([0.4, 0.4]), 'hand': np.array([0.01])})
    assert m.set_point().tolist() == [0.4, 0.4, 0.01, 0.0, 0.0]


def test_a_restart_takes_what_still_moved_as_standing_and_leaves_the_rest():
    m = moving()
    before = m.set_point()
    m.restart({'arm': np.array([0.9, 0.9])})
    assert m.set_point().tolist() == [0.9, 0.9, *before[2:]]
    assert m.at_rest('arm')


def test_a_lower_limit_on_speed_is_reached_by_braking():
    m = moving()
    before = m.set_point()
    m.set_config(config(base__max_velocity=[0.1, 0.1], arm__max_velocity=[0.1, 0.1]))
    assert m.set_point().tolist() == before.tolist()
    m.follow(GO, GO, TICK)
    # 10 ticks of 4 and 8 rad/s² before, one back.
    assert m.command('arm') - before[:2] == pytest.approx([9 * 0.08 * TICK, -9 * 0.16 * TICK])
    assert np.abs(m.command('base') - before[3:]) == pytest.approx([0.02, 0.04])
    for _ in range(20):
        before = m.set_point()
        m.follow(GO, GO, TICK)
    assert m.command('arm') - before[:2] == pytest.approx([0.1 * TICK, -0.1 * TICK])
