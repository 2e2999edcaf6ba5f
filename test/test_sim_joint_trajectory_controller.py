"""The joint_trajectory_controller model: what it accepts and what it commands."""

import re
import subprocess
import sys

import numpy as np
from project_files import ROOT
import pytest

from faster_core.errors import ConfigError
from faster_core.sim.controllers import FLAVOURS, JointTrajectoryController, Point

JOINTS = ('a', 'b')
NOW = 5000.0
PERIOD = 0.005


def make(flavour='jazzy', position=(0.0, 0.0), joints=JOINTS, **options):
    return JointTrajectoryController(joints, flavour, position, period=PERIOD, **options)


def line(*rows, start=0.1, step=0.1, velocities=None):
    """Points of two joints, both at the row's value."""
    return [
        Point(
            [r, r],
            None if velocities is None else [velocities[k]] * 2,
            None,
            start + k * step,
        )
        for k, r in enumerate(rows)
    ]


def run(controller, start, cycles):
    """Set-points [cycles] of the first joint, one per period from `start`."""
    return np.array([controller.update(start + k * PERIOD)[0][0] for k in range(cycles)])


GOOD = {
    'positions only': (JOINTS, line(1, 2), 0.0),
    'velocities, the last one zero': (JOINTS, line(1, 2, velocities=[1, 0]), 0.0),
    'joints in another order': (('b', 'a'), line(1, 2), 0.0),
    'a last velocity below float epsilon': (JOINTS, line(1, velocities=[1e-8]), 0.0),
    'a stamp in the future': (JOINTS, line(1, 2), NOW + 1),
    'a stamp in the past, an end in the future': (JOINTS, line(1, 2), NOW - 0.15),
    'an end right now': (JOINTS, line(1, 2), NOW - 0.2),
    'a first point due now': (JOINTS, line(1, 2, start=0.0), 0.0),
    'a first point in the past': (JOINTS, line(1, 2, start=-1.0), 0.0),
    'an empty velocity field': (JOINTS, [Point([1, 1], [], [], 0.1)], 0.0),
    # Upstream does not look at these; a sender must.
    'a position that is not a number': (JOINTS, line(float('nan')), 0.0),
    'a last velocity that is not a number': (JOINTS, line(1, velocities=[float('nan')]), 0.0),
    'a position beyond any limit': (JOINTS, line(1e6), 0.0),
    'a joint named twice': (('a', 'a'), line(1, 2), 0.0),
}
BAD = {
    'no joints': ((), line(1), 0.0, 'expected all 2 joints, found 0'),
    'one of two joints': (('a',), [Point([1.0])], 0.0, 'expected all 2 joints, found 1'),
    'too many joints': (('a', 'b', 'a'), line(1), 0.0, 'expected all 2 joints, found 3'),
    'an unknown joint': (('a', 'c'), line(1), 0.0, "'c' is none of a, b"),
    'no points': (JOINTS, [], 0.0, 'points: empty'),
    'equal times': (JOINTS, line(1, 2, step=0.0), 0.0, 'increase strictly'),
    'falling times': (JOINTS, line(1, 2, step=-0.05), 0.0, 'increase strictly'),
    'an end in the past': (JOINTS, line(1, 2), NOW - 0.3, 'ended 0.100 s ago'),
    'too few positions': (JOINTS, [Point([1.0])], 0.0, 'positions: expected 2 .* found 1'),
    'no positions': (JOINTS, [Point(None, [0, 0])], 0.0, 'positions: expected 2 .* found 0'),
    'too many velocities': (JOINTS, [Point([1, 1], [0] * 3)], 0.0, 'velocities: .* found 3'),
    'one acceleration': (JOINTS, [Point([1, 1], None, [0])], 0.0, 'accelerations: .* found 1'),
    'an effort': (JOINTS, [Point([1, 1], effort=[1, 1])], 0.0, 'effort'),
    'a bad second point': (JOINTS, [*line(1), Point([1], None, None, 1)], 0.0, 'at point 1'),
}


@pytest.mark.parametrize('flavour', FLAVOURS)
@pytest.mark.parametrize('case', GOOD)
def test_accepts(flavour, case):
    names, points, stamp = GOOD[case]
    assert make(flavour).accept(names, points, stamp, NOW) == ''


@pytest.mark.parametrize('flavour', FLAVOURS)
@pytest.mark.parametrize('case', BAD)
def test_rejects_and_changes_nothing(flavour, case):
    names, points, stamp, reason = BAD[case]
    controller = make(flavour)
    assert controller.accept(JOINTS, line(1, 2), 0.0, NOW) == ''
    run(controller, NOW, 10)
    found = controller.accept(names, points, stamp, NOW)
    assert re.search(reason, found), found
    twin = make(flavour)
    twin.accept(JOINTS, line(1, 2), 0.0, NOW)
    run(twin, NOW, 10)
    np.testing.assert_array_equal(
        run(controller, NOW + 10 * PERIOD, 60), run(twin, NOW + 10 * PERIOD, 60)
    )


@pytest.mark.parametrize(
    ('flavour', 'accepted'), [('humble', True), ('jazzy', False), ('lyrical', False)]
)
def test_only_humble_accepts_a_moving_end_by_default(flavour, accepted):
    points = line(1, 2, velocities=[1, 1])
    reason = make(flavour).accept(JOINTS, points, 0.0, NOW)
    assert (reason == '') == accepted
    if not accepted:
        assert 'expected zero at the last point, found 1 of a' in reason
    for allow in (True, False):
        controller = make(flavour, allow_nonzero_velocity_at_trajectory_end=allow)
        assert (controller.accept(JOINTS, points, 0.0, NOW) == '') == allow


def test_humble_names_the_stamp_first_and_later_ones_the_joint():
    for flavour, word in (('humble', 'header.stamp'), ('jazzy', 'joint_names')):
        reason = make(flavour).accept(('a', 'x'), line(1), NOW - 9, NOW)
        assert reason.startswith(word), reason


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_partial_goals_hold_the_other_joints_where_allowed(flavour):
    controller = make(flavour, (0.5, 0.7), allow_partial_joints_goal=True)
    assert controller.accept(('b',), [Point([1.7], time_from_start=0.1)], 0.0, NOW) == ''
    for k in range(30):
        positions, _ = controller.update(NOW + k * PERIOD)
    np.testing.assert_allclose(positions, [0.5, 1.7])


def test_wrong_configurations_are_refused():
    with pytest.raises(ConfigError, match="humble, jazzy, lyrical, found 'noetic'"):
        make('noetic')
    with pytest.raises(ConfigError, match='one position per distinct joint'):
        make(position=(0.0,))
    with pytest.raises(ConfigError, match='distinct'):
        make(joints=('a', 'a'))


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_it_holds_its_first_position_until_told(flavour):
    controller = make(flavour, (0.3, 0.3))
    np.testing.assert_array_equal(run(controller, NOW, 5), [0.3] * 5)
    assert controller.holding


@pytest.mark.parametrize(('flavour', 'ahead'), [('humble', 0), ('jazzy', 1), ('lyrical', 1)])
def test_between_points_it_is_a_cubic_through_positions_and_velocities(flavour, ahead):
    controller = make(flavour)
    controller.accept(JOINTS, line(0, 1, start=0.0, step=1.0, velocities=[0, 0]), 0.0, NOW)
    found = run(controller, NOW, 150)
    t = (np.arange(150) + ahead) * PERIOD
    np.testing.assert_allclose(found, 3 * t**2 - 2 * t**3, atol=1e-9)


def test_between_points_without_velocities_it_is_a_straight_line():
    controller = make('humble')
    controller.accept(JOINTS, line(1, 2), 0.0, NOW)
    np.testing.assert_allclose(run(controller, NOW, 41), np.arange(41) * 0.05, atol=1e-9)


def test_with_accelerations_it_is_a_quintic():
    zeros = [0.0, 0.0]
    points = [Point([k, k], zeros, zeros, float(k)) for k in (0, 1)]
    controller = make('humble')
    controller.accept(JOINTS, points, 0.0, NOW)
    t = np.arange(200) * PERIOD
    minimum_jerk = 10 * t**3 - 15 * t**4 + 6 * t**5
    np.testing.assert_allclose(run(controller, NOW, 200), minimum_jerk, atol=1e-9)


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_velocities_are_the_derivative_and_zero_after_the_end(flavour):
    controller = make(flavour)
    controller.accept(JOINTS, line(1, 0.5, 2, velocities=[2, 1, 0]), 0.0, NOW)
    states = [controller.update(NOW + k * PERIOD) for k in range(80)]
    positions = np.array([s[0][0] for s in states])
    velocities = np.array([s[1][0] for s in states])
    middle = (velocities[1:] + velocities[:-1]) / 2 * PERIOD
    np.testing.assert_allclose(np.diff(positions)[1:], middle[1:], atol=2e-3)
    assert positions[-1] == 2 and velocities[-1] == 0


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_a_stamp_decides_when_points_are_due(flavour):
    controller = make(flavour)
    controller.accept(JOINTS, line(1, 2), NOW + 0.5, NOW)
    found = run(controller, NOW, 200)
    ahead = 0 if flavour == 'humble' else 1
    assert found[120 - ahead] == pytest.approx(1.0, abs=1e-6)
    assert found[140 - ahead] == pytest.approx(2.0, abs=1e-6)
    assert found[199] == 2.0


def moving(flavour, **options):
    """A controller half-way along a straight line at 1 rad/s, its next cycle, its last set-point.

    The new trajectory, accepted right before that cycle, is the same line with the same times.
    """
    controller = make(flavour, **options)
    controller.accept(JOINTS, line(*np.arange(1, 11) * 0.1), 0.0, NOW)
    before = run(controller, NOW, 100)
    now = NOW + 100 * PERIOD
    again = [Point([0.6 + k * 0.1] * 2, time_from_start=0.1 + k * 0.1) for k in range(5)]
    assert controller.accept(JOINTS, again, 0.0, now) == ''
    return controller, now, before[-1]


def test_humble_repeats_its_last_command_when_a_trajectory_is_replaced():
    controller, now, last = moving('humble')
    steps = np.diff([last, *run(controller, now, 3)])
    assert steps[0] == pytest.approx(0.0, abs=1e-9)
    assert steps[1] == pytest.approx(PERIOD, rel=0.06)


def test_jazzy_makes_a_step_of_two_periods_when_a_trajectory_is_replaced():
    # State meant for one period later, paired with the time of the last cycle: the line to the
    # first point is entered two periods after its start.
    controller, now, last = moving('jazzy')
    steps = np.diff([last, *run(controller, now, 3)])
    assert steps[0] == pytest.approx(2 * PERIOD, rel=0.06)
    assert steps[1] == pytest.approx(PERIOD, rel=0.06)


def test_lyrical_joins_at_the_last_cycle_and_so_repeats_its_last_command():
    # The joint is the last cycle's time (`traj_time_` before it is advanced), sampled now.
    controller, now, last = moving('lyrical')
    steps = np.diff([last, *run(controller, now, 5)])
    assert steps[0] == pytest.approx(0.0, abs=0.06 * PERIOD)
    np.testing.assert_allclose(steps[1:], PERIOD, rtol=0.06)


def test_lyrical_without_replacement_is_as_jazzy():
    controller, now, last = moving('lyrical', allow_trajectory_replacement=False)
    twin, _, _ = moving('jazzy')
    np.testing.assert_array_equal(run(controller, now, 60), run(twin, now, 60))
    assert controller.update(now + 1)[0][0] > last


@pytest.mark.parametrize('flavour', ['humble', 'jazzy'])
def test_without_the_flag_a_replacement_starts_at_the_measured_state(flavour):
    controller = make(flavour, from_desired=False)
    behind = 0.02
    controller.accept(JOINTS, line(*np.arange(1, 11) * 0.1), 0.0, NOW)
    last = 0.0
    for k in range(101):
        now = NOW + k * PERIOD
        if k == 100:
            controller.accept(JOINTS, line(0.6, 0.7), 0.0, now)
        positions, _ = controller.update(now, ([last - behind] * 2, [1.0, 1.0]))
        step, last = positions[0] - last, positions[0]
    assert step < 0.0, 'the tracking error shows as a step back'


def test_lyrical_keeps_joints_that_are_left_out_on_their_old_trajectory():
    controller = make('lyrical', allow_partial_joints_goal=True)
    controller.accept(JOINTS, line(*np.arange(1, 11) * 0.1), 0.0, NOW)
    run(controller, NOW, 100)
    now = NOW + 100 * PERIOD
    controller.accept(('a',), [Point([0.3], time_from_start=0.2)], 0.0, now)
    for k in range(120):
        positions, _ = controller.update(now + k * PERIOD)
        if k == 39:  # 0.2 s on, the look-ahead included
            np.testing.assert_allclose(positions, [0.3, 0.695], atol=1e-9)
    np.testing.assert_allclose(positions, [0.3, 1.0])


def test_lyrical_follows_the_old_trajectory_until_a_later_stamp():
    controller = make('lyrical')
    controller.accept(JOINTS, line(*np.arange(1, 11) * 0.1), 0.0, NOW)
    run(controller, NOW, 40)
    now = NOW + 40 * PERIOD
    controller.accept(JOINTS, line(0.0, start=0.1), now + 0.4, now)
    found = run(controller, now, 200)
    old = (np.arange(200) + 40) * PERIOD  # one period late, as above
    np.testing.assert_allclose(found[:79], old[:79], atol=1e-9)
    assert found[99] == pytest.approx(0.0, abs=1e-6) and found[-1] == 0.0


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_after_the_command_time_out_the_measured_position_is_held(flavour):
    controller = make(flavour, cmd_timeout=0.2)
    controller.accept(JOINTS, line(1), 0.0, NOW)
    sagged = ([0.9, 0.9], [0.0, 0.0])
    held = []
    for k in range(80):
        positions, _ = controller.update(NOW + k * PERIOD, sagged if k > 25 else None)
        held.append(positions[0])
    # The end at 0.1 s and 0.2 s of time-out: the cycle after 0.3 s.
    assert held[60] == 1.0 and held[63] == 0.9 and held[-1] == 0.9
    assert controller.holding
    assert controller.accept(JOINTS, line(1.5), 0.0, NOW + 1) == ''
    assert run(controller, NOW + 1, 30)[-1] == 1.5 and not controller.holding


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_without_a_time_out_the_end_is_held_for_good(flavour):
    controller = make(flavour)
    controller.accept(JOINTS, line(1), 0.0, NOW)
    run(controller, NOW, 30)
    assert controller.update(NOW + 3600)[0][0] == 1.0


def test_the_controllers_need_neither_mujoco_nor_ros():
    code = (
        'import sys, faster_core.sim.controllers\n'
        "print([m for m in ('mujoco', 'rclpy', 'torch', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == '[]', done.stderr
