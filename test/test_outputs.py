"""Outputs: values of a component to one message, and what does not fit is refused by name."""

import dataclasses
import itertools
import types

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from builtin_interfaces.msg import Time
from robot_files import as_dispatcher, embodiment_path, Publishing, ROBOTS

from faster_core.embodiment import Component, Kind
from faster_core.errors import ConfigError
from faster_core.execution.spline import Trajectory
from faster_core.execution.state import Action, Tick
from faster_vla_ros import outputs
from faster_vla_ros.outputs import OutputConfig
from faster_vla_ros.outputs.wire import Wire

pytestmark = pytest.mark.ros

STAMP = Time(sec=12, nanosec=34)
ARM = Component(name='arm', kind=Kind.JOINT_POSITION, names=('a', 'b'))
WHEELS = Component(name='wheels', kind=Kind.JOINT_VELOCITY, names=('left', 'right'))
GRIPPER = Component(name='gripper', kind=Kind.GRIPPER_POSITION, names=('finger',))
BASE = Component(name='base', kind=Kind.TWIST, names=('vx', 'vy', 'wz'))


def encode(output, component, values, **config):
    made = outputs.create(output, component, OutputConfig(topic='t', **config))
    return made.message(np.array(values), STAMP)


def test_joint_positions_go_out_by_the_names_of_the_embodiment_with_the_time_of_the_tick():
    message = encode('joint_state_stream', ARM, [0.25, -1.5])
    assert list(message.name) == ['a', 'b']
    assert list(message.position) == [0.25, -1.5]
    assert not message.velocity
    assert message.header.stamp == STAMP


def test_names_given_are_sent_as_given():
    message = encode('joint_state_stream', ARM, [0.0, 0.0], joints=('x1', 'x2'))
    assert list(message.name) == ['x1', 'x2']


def test_joint_speeds_go_into_the_velocity_field():
    message = encode('joint_state_stream', WHEELS, [1.0, 2.0])
    assert list(message.velocity) == [1.0, 2.0]
    assert not message.position


def test_scale_and_offset_turn_si_into_the_unit_of_the_wire():
    message = encode('joint_state_stream', GRIPPER, [0.05], scale=1000.0, offset=3.0)
    assert list(message.position) == pytest.approx([53.0])


def test_a_twist_fills_the_axes_of_the_component_and_leaves_the_others_zero():
    message = encode('twist_stamped', BASE, [0.1, 0.2, 0.3], frame_id='base_footprint')
    linear, angular = message.twist.linear, message.twist.angular
    assert (linear.x, linear.y, linear.z) == (0.1, 0.2, 0.0)
    assert (angular.x, angular.y, angular.z) == (0.0, 0.0, 0.3)
    assert message.header.frame_id == 'base_footprint'
    assert message.header.stamp == STAMP


def test_a_plain_twist_says_the_same():
    message = encode('twist', BASE, [0.1, 0.2, 0.3])
    assert (message.linear.x, message.linear.y, message.angular.z) == (0.1, 0.2, 0.3)


def test_joint_speeds_become_a_twist_by_the_axes_given():
    message = encode('twist', WHEELS, [0.1, 0.2], axes=('vz', 'wy'))
    assert (message.linear.z, message.angular.y) == (0.1, 0.2)


def test_an_array_keeps_the_order_of_the_embodiment():
    assert list(encode('float64_array', ARM, [2.0, 1.0], scale=2.0).data) == [4.0, 2.0]


def test_none_sends_nothing():
    assert outputs.create('none', ARM, OutputConfig(topic='')) is None
    assert outputs.keys('none', 'arm') == ()


@pytest.mark.parametrize(
    ('output', 'component', 'config', 'words'),
    [
        ('servo', ARM, {}, ('arm.output', 'joint_state_stream', 'none')),
        ('grip', GRIPPER, {}, ('gripper.output', 'twist_stamped')),
        ('joint_state_stream', BASE, {}, ('base.output', 'twist', 'joint_position')),
        ('twist', ARM, {}, ('arm.output', 'joint_position')),
        ('twist_stamped', GRIPPER, {}, ('gripper.output', 'gripper_position')),
        ('joint_state_stream', ARM, {'joints': ('x',)}, ('arm.joints', '2 names')),
        ('twist', BASE, {'axes': ('vx', 'vy')}, ('base.axes', '3 different axes')),
        ('twist', BASE, {'axes': ('vy', 'vx', 'wz')}, ('base.axes', "['vx', 'vy', 'wz']")),
        ('twist', WHEELS, {}, ('wheels.axes', 'left')),
        ('twist', WHEELS, {'axes': ('vx', 'vx')}, ('wheels.axes', '2 different axes')),
    ],
)
def test_what_does_not_fit_is_refused_by_name(output, component, config, words):
    with pytest.raises(ConfigError) as error:
        outputs.create(output, component, OutputConfig(topic='t', **config))
    assert not [word for word in words if word not in str(error.value)]


@pytest.mark.parametrize('components', [6, 'base', ['base']])
def test_components_of_a_robot_file_must_be_the_embodiments(components):
    file, embodiment = 'r1_lite.yaml', embodiment_path('r1_lite')
    with pytest.raises(ConfigError, match=r'components: found .*, the embodiment r1_lite has'):
        as_dispatcher(file, embodiment, components=components)


class _Robot:
    action = (ARM, BASE)


def _wire(**names):
    node = Publishing()
    components = {c.name: c for c in _Robot.action}
    made = {
        name: (
            outputs.create(output, components[name], OutputConfig(topic=name)),
            OutputConfig(topic=name),
        )
        for name, output in names.items()
    }
    return node, Wire(node, _Robot, made)


def tick(**commands):
    """Return a tick that commands these values."""
    return Tick(commands=commands, state=types.SimpleNamespace(action=Action.FOLLOW, enabled=True))


def test_the_wire_sends_what_is_commanded_and_is_silent_about_the_rest():
    node, wire = _wire(arm='joint_state_stream', base='twist')
    wire.send(tick(arm=None, base=np.array([0.1, 0.0, 0.0])), STAMP)
    assert [topic for topic, _ in node.log] == ['base']


def test_a_component_without_output_is_not_sent():
    node, wire = _wire(base='twist')
    wire.send(tick(arm=np.zeros(2), base=np.zeros(3)), STAMP)
    assert [topic for topic, _ in node.log] == ['base']


def test_nothing_is_published_when_one_message_cannot_be_encoded():
    node, wire = _wire(arm='joint_state_stream', base='twist')
    with pytest.raises(ValueError):
        wire.send(tick(arm=np.zeros(2), base=np.zeros(2)), STAMP)  # one value is missing
    assert not node.log


def test_times_of_a_trajectory_count_from_when_it_is_sent():
    node, wire = _wire(arm='joint_trajectory')
    way = Trajectory(
        times=np.array([0.01, 0.03, 0.05]), positions=np.ones((3, 2)), velocities=np.zeros((3, 2))
    )
    moved = dataclasses.replace(tick(arm=np.zeros(2)), trajectories={'arm': way})
    wire.send(moved, STAMP, lambda: 0.02)
    ((_, message),) = node.log
    times = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points]
    assert times == pytest.approx([0.01, 0.03])


def test_trajectories_that_are_later_than_they_begin_are_put_off_until_they_are_not():
    node, wire = _wire(arm='joint_trajectory', base='twist')
    clock = iter([0.01, 0.04, 0.06, 0.065])
    asked = []

    def way(begins_in):
        times = begins_in + np.array([0.0, 0.02, 0.04])
        return Trajectory(times=times, positions=np.ones((3, 2)), velocities=np.zeros((3, 2)))

    def put_off(tick, names, late):
        asked.append((list(names), late))
        begins_in = late + 0.02
        return dataclasses.replace(tick, trajectories={'arm': way(begins_in)}, begins_in=begins_in)

    moved = tick(arm=np.zeros(2), base=np.zeros(3))
    moved = dataclasses.replace(moved, trajectories={'arm': way(0.0)}, begins_in=0.0)
    wire.send(moved, STAMP, lambda: next(clock), put_off)
    assert asked == [(['arm'], 0.01), (['arm'], 0.04)]  # 0.06 is when it begins
    assert [topic for topic, _ in node.log] == ['base', 'arm']
    times = [p.time_from_start.nanosec * 1e-9 for p in node.log[-1][1].points]
    assert times == pytest.approx([0.02, 0.04])


@pytest.mark.parametrize('slow', [0.04, 0.1])
def test_a_trajectory_that_is_never_in_time_is_sent_in_the_end_but_not_after_a_standstill(slow):
    node, wire = _wire(arm='joint_trajectory')
    way = Trajectory(times=np.array([0.5]), positions=np.ones((1, 2)), velocities=np.zeros((1, 2)))
    moved = dataclasses.replace(tick(arm=np.zeros(2)), trajectories={'arm': way}, begins_in=0.0)
    clock = itertools.count(1)
    not_sent = wire.send(moved, STAMP, lambda: slow * next(clock))
    assert (len(node.log), not_sent) == ((1, []) if slow < 0.05 else (0, ['arm']))


def test_a_trajectory_that_is_not_to_be_sent_any_more_is_not():
    node, wire = _wire(arm='joint_trajectory')
    way = Trajectory(times=np.array([0.5]), positions=np.ones((1, 2)), velocities=np.zeros((1, 2)))
    moved = dataclasses.replace(tick(arm=np.zeros(2)), trajectories={'arm': way}, begins_in=0.0)

    def put_off(tick, names, late):
        return dataclasses.replace(tick, trajectories={}, begins_in=np.inf)

    assert wire.send(moved, STAMP, lambda: 0.01, put_off) == []
    assert not node.log


def test_zeros_go_to_velocities_and_never_to_positions():
    node, wire = _wire(arm='joint_state_stream', base='twist')
    wire.send_zeros(STAMP)
    ((topic, message),) = node.log
    assert topic == 'base'
    assert message.linear.x == message.linear.y == message.angular.z == 0.0


@pytest.mark.parametrize('guarded', [True, False])
def test_speeds_that_no_guard_can_hear_are_refused_where_one_is_asked_for(tmp_path, guarded):
    text = embodiment_path('r1_lite').read_text('utf-8')
    embodiment = tmp_path / 'wheels.yaml'
    twist = 'base, kind: twist, names: [vx, vy, wz]'
    assert twist in text
    embodiment.write_text(text.replace(twist, 'base, kind: joint_velocity, names: [a, b, c]'))
    nodes = yaml.safe_load((ROBOTS / 'r1_lite.yaml').read_text('utf-8'))
    given = nodes['/**']['action_dispatcher']['ros__parameters']
    del given['base.axes']
    given |= {'base.output': 'joint_state_stream', 'guard.topic': 'guard/state' if guarded else ''}
    file = tmp_path / 'mine.yaml'
    file.write_text(yaml.safe_dump(nodes))
    if not guarded:
        assert as_dispatcher(file, embodiment).driving == ('/motion_target/target_speed_torso',)
        return
    with pytest.raises(ConfigError, match=r'base.output: .* float64_array, none with guard.topic'):
        as_dispatcher(file, embodiment)
