"""Limits at run time: stricter at once, never wider than configured, all or nothing."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import parameters
from rclpy.parameter import Parameter

pytestmark = pytest.mark.ros

CONFIGURED = parameters()['base.max_velocity']


@pytest.fixture
def rig(make_rig):
    return make_rig()


def change(rig, **values):
    """Change parameters at once; return the reasons of refusals."""
    parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
    result = rig.dispatcher.set_parameters_atomically(parameters)
    return '' if result.successful else result.reason


def test_a_lower_speed_holds_from_the_next_command_on(rig):
    rig.drive(0.15)
    assert not change(rig, base__max_velocity=[0.19, 0.19, 0.4])
    # Too fast by more than a tenth now: 0.2 m/s are clipped, 0.05 m/s would refuse the chunk.
    rig.move_until(lambda: rig.base_speeds[-1] <= 0.19 + 1e-9)
    count = len(rig.base_speeds)
    rig.move_until(lambda: len(rig.base_speeds) > count + 20)
    assert max(rig.base_speeds[count:]) <= 0.19 + 1e-9


def test_a_limit_may_be_raised_again_but_not_beyond_what_was_configured(rig):
    assert not change(rig, base__max_velocity=[0.1, 0.1, 0.1])
    assert not change(rig, base__max_velocity=CONFIGURED)
    more = [CONFIGURED[0], 0.3, CONFIGURED[2]]
    why = change(rig, base__max_velocity=more)
    assert f'base.max_velocity: found {more}, expected at most {CONFIGURED}' in why
    assert list(rig.dispatcher.get_parameter('base.max_velocity').value) == CONFIGURED


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('base__max_acceleration', [5.0, 5.0, 5.0], 'base.max_acceleration'),
        ('base__max_acceleration', [0.01, 0.5, 0.5], 'a stop would take up to'),
        ('left_gripper__position_limits', [0.0, 0.2], 'left_gripper.position_limits'),
        ('base__max_velocity', [0.1, 0.1], 'expected 3 numbers'),
        ('base__max_velocity', [0.1, -0.1, 0.1], r'number > 0'),
        ('dispatch_rate', 100.0, 'dispatch_rate: fixed while configured'),
        ('base__topic', '/elsewhere', 'base.topic: fixed while configured'),
        ('blend_steps', -1, 'blend_steps'),
        ('max_chunk_age', float('nan'), 'max_chunk_age'),
    ],
)
def test_what_may_not_be_changed_is_refused_by_name(rig, name, value, words):
    assert words in change(rig, **{name: value})


def test_of_several_changes_none_is_taken_when_one_is_refused(rig):
    assert change(rig, blend_steps=0, base__max_velocity=[9.0, 9.0, 9.0])
    assert rig.dispatcher.get_parameter('blend_steps').value == 3


def test_a_narrower_range_is_taken_and_the_set_point_led_back(rig):
    rig.drive()
    assert not change(rig, left_gripper__position_limits=[0.025, 0.1])
    rig.move_until(lambda: rig.sent['left_gripper'][-1][0].position[0] >= 24.9)


def test_rules_may_be_changed(rig):
    assert not change(rig, max_chunk_age=0.01)
    rig.enable_when_ready()
    assert rig.send().reason == 'too_old'
