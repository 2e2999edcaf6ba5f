"""Models of base, gripper and forwarding controllers."""

import numpy as np
import pytest

from faster_core.errors import ConfigError
from faster_core.sim.controllers import (
    BaseController,
    FLAVOURS,
    ForwardCommandController,
    GripperActionController,
    GripperGoal,
)

NAN = float('nan')


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_a_differential_drive_forgets_a_speed_after_half_a_second(flavour):
    base = BaseController('diff_drive', flavour)
    np.testing.assert_array_equal(base.update(9.9), [0, 0, 0])
    assert base.accept([0.3, 0.7, 0.2], 10.0, 10.0) == ''
    np.testing.assert_array_equal(base.update(10.0), [0.3, 0.0, 0.2])
    np.testing.assert_array_equal(base.update(10.5), [0.3, 0.0, 0.2])
    np.testing.assert_array_equal(base.update(10.51), [0, 0, 0])
    assert base.accept([0.1, 0.0, 0.0], 10.6, 10.6) == ''
    np.testing.assert_array_equal(base.update(10.6), [0.1, 0, 0])


@pytest.mark.parametrize('stamp', [None, 0.0])
def test_a_twist_and_a_zero_stamp_count_from_their_arrival(stamp):
    base = BaseController('diff_drive', 'jazzy')
    assert base.accept([0.3, 0, 0], stamp, 10.0) == ''
    assert base.update(10.5)[0] == 0.3 and base.update(10.6)[0] == 0.0


@pytest.mark.parametrize(('flavour', 'refused'), [('humble', False), ('jazzy', True)])
def test_an_old_stamp_never_moves_the_base(flavour, refused):
    base = BaseController('diff_drive', flavour)
    reason = base.accept([0.3, 0, 0], 9.4, 10.0)
    assert ('0.600 s old' in reason) == refused
    np.testing.assert_array_equal(base.update(10.0), [0, 0, 0])


def test_a_time_out_of_zero_keeps_the_last_speed_of_a_differential_drive():
    base = BaseController('diff_drive', 'jazzy', cmd_vel_timeout=0.0)
    base.accept([0.3, 0, 0], 1.0, 10.0)
    assert base.update(1000.0)[0] == 0.3


def test_a_time_out_of_zero_gives_a_mecanum_base_one_cycle():
    base = BaseController('mecanum', 'jazzy', cmd_vel_timeout=0.0)
    base.accept([0.3, 0.2, 0.1], 10.0, 10.0)
    np.testing.assert_array_equal(base.update(10.0), [0.3, 0.2, 0.1])
    np.testing.assert_array_equal(base.update(10.005), [0, 0, 0])


def test_a_mecanum_base_goes_sideways_and_times_out():
    base = BaseController('mecanum', 'humble', cmd_vel_timeout=0.5)
    assert base.accept([0.3, 0.2, 0.1], 9.4, 10.0) != ''
    np.testing.assert_array_equal(base.update(10.0), [0, 0, 0])
    base.accept([0.3, 0.2, 0.1], 10.0, 10.0)
    np.testing.assert_array_equal(base.update(10.4), [0.3, 0.2, 0.1])
    np.testing.assert_array_equal(base.update(10.6), [0, 0, 0])


def test_a_speed_that_is_not_finite_is_skipped_except_by_humbles_differential_drive():
    jazzy, humble = (BaseController('diff_drive', f) for f in ('jazzy', 'humble'))
    for base in (jazzy, humble):
        base.accept([0.3, 0, 0], 10.0, 10.0)
        base.update(10.0)
    assert 'expected finite' in jazzy.accept([NAN, 0, 0], 10.1, 10.1)
    assert humble.accept([NAN, 0, 0], 10.1, 10.1) == ''
    assert jazzy.update(10.1)[0] == 0.3 and np.isnan(humble.update(10.1)[0])
    assert jazzy.update(10.7)[0] == 0.0 and humble.update(10.7)[0] == 0.0
    mecanum = BaseController('mecanum', 'jazzy', cmd_vel_timeout=0.5)
    assert mecanum.accept([NAN, 0, 0], 10.1, 10.1) != '' and not mecanum.update(10.1).any()


def test_wrong_kinds_are_refused():
    with pytest.raises(ConfigError, match="diff_drive, mecanum, found 'tank'"):
        BaseController('tank', 'jazzy')
    with pytest.raises(ConfigError, match='seconds >= 0, found -1'):
        BaseController('mecanum', 'jazzy', cmd_vel_timeout=-1)
    with pytest.raises(ConfigError, match="parallel, classic, found 'suction'"):
        GripperActionController('suction', 0.0)


@pytest.mark.parametrize(('flavour', 'refused'), [('humble', False), ('jazzy', True)])
def test_a_forwarding_controller_keeps_the_last_array(flavour, refused):
    controller = ForwardCommandController(('a', 'b'), flavour)
    assert controller.update() is None
    assert controller.accept([1, 2]) == ''
    assert 'expected 2 values, found 3' in controller.accept([1, 2, 3])
    np.testing.assert_array_equal(controller.update(), [1, 2])
    assert (controller.accept([NAN, 2]) != '') == refused


def move(gripper, goal, *, to=None, cycles=400, speed=0.0005):
    """Let the finger follow the set-point, at most to `to`; returns where it ends."""
    position = 0.0
    assert gripper.accept([goal], 0.0) == ''
    for k in range(cycles):
        wanted = gripper.update(k * 0.005, position, 0.0 if to == position else 0.1)
        position = min(position + speed, wanted if to is None else min(to, wanted))
    return position


@pytest.mark.parametrize('kind', ['parallel', 'classic'])
def test_a_gripper_goal_succeeds_where_it_is_reached(kind):
    gripper = GripperActionController(kind, 0.0)
    assert gripper.goal is GripperGoal.NONE
    assert move(gripper, 0.08) == pytest.approx(0.08)
    assert gripper.goal is GripperGoal.SUCCEEDED
    assert gripper.result.reached_goal and not gripper.result.stalled


@pytest.mark.parametrize('allow', [False, True])
def test_a_gripper_that_holds_something_stalls(allow):
    gripper = GripperActionController('parallel', 0.0, allow_stalling=allow)
    assert move(gripper, 0.08, to=0.04) == pytest.approx(0.04)
    assert gripper.goal is (GripperGoal.SUCCEEDED if allow else GripperGoal.ABORTED)
    assert gripper.result.stalled and gripper.result.position == pytest.approx(0.04)
    assert gripper.command == 0.08, 'it keeps squeezing'


def test_a_new_goal_takes_over_and_a_wrong_one_does_not():
    gripper = GripperActionController('parallel', 0.0)
    gripper.accept([0.08], 0.0)
    first = gripper.goal_id
    assert 'expected 1 value, found 2' in gripper.accept([0.1, 0.2], 0.1)
    assert gripper.goal_id == first and gripper.update(0.1, 0.0, 0.0) == 0.08
    assert gripper.accept([0.02], 0.2) == '' and gripper.goal_id == first + 1
    assert gripper.update(0.2, 0.0, 0.0) == 0.02


def test_a_cancelled_goal_holds_the_measured_position():
    gripper = GripperActionController('classic', 0.0)
    gripper.accept([0.08], 0.0)
    gripper.cancel(0.03)
    assert gripper.goal is GripperGoal.CANCELED and gripper.update(0.1, 0.031, 0.0) == 0.03
    gripper.cancel(0.05)
    assert gripper.update(0.1, 0.05, 0.0) == 0.03, 'nothing left to cancel'
