"""Every simulated robot in the dialects of ros2_control and Isaac Sim, over DDS."""

import contextlib
import re

import numpy as np
from project_files import ROOT
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from robot_wire import connected, DOMAIN, make_robot, PATIENT, twist
from ros_contexts import kept_context
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from faster_core.errors import ConfigError
from faster_core.sim.robot import PartKind
from faster_vla_ros.conversions import duration_from_seconds, stamp_from_seconds

pytestmark = pytest.mark.ros
ROBOTS = {
    'fr3': {'robot': 'single_arm'},
    'ur5e': {'robot': 'single_arm', 'arm_model': 'ur5e'},
    'dual_arm': {'robot': 'dual_arm'},
    'r1_lite': {'robot': 'r1_lite'},
}
# What the shipped parameter files name.
CONTROLLERS = {
    'fr3': {'fr3_arm_controller', 'gripper_controller'},
    'ur5e': {'joint_trajectory_controller', 'gripper_controller'},
    'dual_arm': {
        'follower_left/arm_controller',
        'follower_left/gripper_controller',
        'follower_right/arm_controller',
        'follower_right/gripper_controller',
    },
    'r1_lite': {
        'left_arm_controller',
        'left_gripper_controller',
        'right_arm_controller',
        'right_gripper_controller',
        'torso_controller',
    },
}
SMALL = {'image_size': [64, 48]}


def values_of(robot, dialect, **more):
    small = {} if robot == 'r1_lite' else SMALL
    return {**ROBOTS[robot], **small, 'dialect': dialect, 'camera_rate': 5.0, **more}


@contextlib.contextmanager
def robot(name, dialect, **more):
    with connected(**values_of(name, dialect, **more)) as (node, wire):
        yield node, wire


@pytest.fixture
def fr3():
    with robot('fr3', 'ros2_control') as both:
        yield both


@pytest.fixture
def r1_lite():
    with robot('r1_lite', 'ros2_control') as both:
        yield both


def parts_with_joints(node):
    return [p for p in node.robot.sim.parts if p.kind is not PartKind.BASE]


def positions(node, part):
    return node.robot.sim.joint_feedback(part)[0]


def target_of(node, part):
    """A place a little away, as far as the part can go there."""
    offset = -0.01 if part.kind is PartKind.GRIPPER else 0.15
    return positions(node, part.name) + offset


def trajectory(joints, target, seconds=0.4, velocity=0.0, stamp=0.0):
    msg = JointTrajectory(joint_names=list(joints))
    msg.header.stamp = stamp_from_seconds(stamp)
    point = JointTrajectoryPoint(positions=list(map(float, target)))
    point.velocities = [velocity] * len(point.positions)
    point.time_from_start = duration_from_seconds(seconds)
    msg.points.append(point)
    return msg


def controller(node, part):
    return node.get_parameter(f'{part}.controller').value


def send_to(node, wire, part, target, **options):
    joints = node.get_parameter(f'{part}.joints').value
    topic = f'{controller(node, part)}/joint_trajectory'
    wire.send(topic, trajectory(joints, target, **options))


def arrives(node, wire, part, target, tolerance=0.012):
    return wire.session.spin_until(
        lambda: np.abs(positions(node, part) - target).max() < tolerance, PATIENT
    )


def shipped(folder, name):
    """(topic -> joints or None) of a shipped parameter file, both nodes."""
    files = {'fr3': 'franka_fr3', 'ur5e': 'ur5e', 'dual_arm': 'aloha'}
    path = ROOT / 'config' / 'robots' / folder / f'{files[name]}.yaml'
    found = {}
    for node in yaml.safe_load(path.read_text(encoding='utf-8'))['/**'].values():
        values = node['ros__parameters']
        for key, topic in values.items():
            if key.endswith('.topic'):
                joints = values.get(f'{key.removesuffix(".topic")}.joints', [])
                found.setdefault(topic, []).extend(joints)
    return found


def speaks_the_shipped_file(wire, folder, name):
    """Every topic of the file is one of the robot's, with the joints it names."""
    expected = shipped(folder, name)
    assert len(expected) >= 4
    found = {}

    def complete():
        for listing in (
            wire.node.get_publisher_names_and_types_by_node,
            wire.node.get_subscriber_names_and_types_by_node,
        ):
            found.update(listing('mujoco_robot', '/'))
        return all(f'/{t}' in found for t in expected)

    assert wire.session.spin_until(complete, PATIENT), set(expected) - set(found)
    (state,) = wire.collect(JointState, 'joint_states', qos=10)
    assert set(state.name) == {j for joints in expected.values() for j in joints}


# --- every robot moves ------------------------------------------------------------------------


@pytest.mark.parametrize('name', ROBOTS)
def test_under_ros2_control_every_part_goes_where_its_trajectory_ends(name):
    with robot(name, 'ros2_control') as (node, wire):
        parts = parts_with_joints(node)
        assert {controller(node, p.name) for p in parts} == CONTROLLERS[name]
        targets = {p.name: target_of(node, p) for p in parts}
        for part in parts:
            send_to(node, wire, part.name, targets[part.name])
        for part in parts:
            tolerance = 0.002 if part.kind is PartKind.GRIPPER else 0.012
            assert arrives(node, wire, part.name, targets[part.name], tolerance), part.name
        if name != 'r1_lite':
            speaks_the_shipped_file(wire, 'gazebo', name)
        (state,) = wire.collect(JointState, 'joint_states', qos=10)
        assert list(state.name) == [j for p in parts for j in p.joints]
        measured = np.concatenate([positions(node, p.name) for p in parts])
        np.testing.assert_allclose(state.position, measured, atol=0.01)
        assert len(state.velocity) == len(measured)


@pytest.mark.parametrize('name', ['fr3', 'dual_arm', 'r1_lite'])
def test_in_isaacs_dialect_joints_go_where_a_joint_command_names_them(name):
    with robot(name, 'isaac') as (node, wire):
        parts = parts_with_joints(node)
        targets = {p.name: target_of(node, p) for p in parts}
        names = [j for p in parts for j in p.joints]
        values = np.concatenate([targets[p.name] for p in parts])
        order = np.random.default_rng(0).permutation(len(names))
        chosen = [i for i in order if names[i] != names[0]]
        msg = JointState(name=[names[i] for i in chosen], position=values[chosen].tolist())
        first = positions(node, parts[0].name)[0]
        targets[parts[0].name][0] = first  # not named: stays
        wire.send('joint_command', msg)
        for part in parts:
            tolerance = 0.002 if part.kind is PartKind.GRIPPER else 0.012
            assert arrives(node, wire, part.name, targets[part.name], tolerance), part.name
        if name != 'r1_lite':
            speaks_the_shipped_file(wire, 'isaac', name)
        # Without names: all joints in their order.
        wire.send('joint_command', JointState(position=values.tolist()))
        targets[parts[0].name][0] = values[0]
        assert arrives(node, wire, parts[0].name, targets[parts[0].name])


def test_a_joint_command_with_an_unknown_joint_moves_nothing():
    with robot('fr3', 'isaac') as (node, wire):
        before = node.robot.sim.data.ctrl.copy()
        bad = JointState(name=['fr3_joint1', 'fr3_joint9'], position=[0.5, 0.5])
        wire.send('joint_command', bad)
        wire.send('joint_command', JointState(name=['fr3_joint1'], position=[]))
        wire.send('joint_command', JointState(name=['fr3_joint1'], position=[float('nan')]))
        wire.session.spin(0.5)
        np.testing.assert_array_equal(node.robot.sim.data.ctrl, before)
        wire.send('joint_command', JointState(name=['fr3_joint2'], position=[-0.6]))
        assert arrives(node, wire, 'arm', [0.0, -0.6, *before[2:7]])


# --- cameras and names --------------------------------------------------------------------------


def test_cameras_send_raw_rgb_of_the_configured_size(fr3):
    node, wire = fr3
    assert node.robot.sim.cameras == ('scene', 'wrist')
    for camera in node.robot.sim.cameras:
        (msg,) = wire.collect(Image, f'{camera}/image_raw')
        assert (msg.width, msg.height, msg.encoding, msg.step) == (64, 48, 'rgb8', 192)
        image = np.frombuffer(msg.data, np.uint8).reshape(48, 64, 3)
        assert image.std() > 10.0
        assert msg.header.stamp.sec > 0 and msg.header.frame_id == f'{camera}_optical_frame'


def test_topics_joints_and_controllers_can_be_renamed_and_follow_the_namespace():
    joints = [f'left_fr3_joint{i}' for i in range(1, 8)]
    more = {'arm__joints': joints, 'arm__controller': 'jtc', 'scene__topic': 'cam/rgb'}
    with robot('fr3', 'ros2_control', namespace='cell_1', **more) as (node, wire):
        target = positions(node, 'arm') + 0.1
        wire.send('/cell_1/jtc/joint_trajectory', trajectory(joints, target))
        assert arrives(node, wire, 'arm', target)
        (state,) = wire.collect(JointState, '/cell_1/joint_states', qos=10)
        assert list(state.name) == [*joints, 'fr3_finger_joint1']
        wire.collect(Image, '/cell_1/cam/rgb')


# --- ros2_control: what a controller takes ------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'names': ['fr3_joint1']}, 'joint_names: expected all 7 joints, found 1'),
        ({'names': [*[f'fr3_joint{i}' for i in range(1, 7)], 'elbow']}, "'elbow' is none of"),
        ({'velocity': 0.1}, 'velocities: expected zero at the last point, found 0.1'),
        ({'stamp': 1000.0}, 'header.stamp: the trajectory ended'),
        ({'values': 6}, 'positions: expected 7 values at point 0, found 6'),
    ],
    ids=['partial', 'unknown', 'moving end', 'past', 'size'],
)
def test_a_rejection_is_logged_published_and_moves_nothing(fr3, monkeypatch, change, reason):
    node, wire = fr3
    errors = []
    monkeypatch.setattr(node.get_logger(), 'error', errors.append)
    wire.session.reset_episode(0, '')
    before = positions(node, 'arm')
    names = change.pop('names', [f'fr3_joint{i}' for i in range(1, 8)])
    target = np.append(before, 0.0)[: change.pop('values', 7)] + 0.3
    wire.send('fr3_arm_controller/joint_trajectory', trajectory(names, target, **change))
    assert wire.session.spin_until(lambda: errors, PATIENT)
    assert errors[0].startswith('fr3_arm_controller/joint_trajectory rejected: ')
    assert reason in errors[0]
    wire.session.spin(0.3)
    (report,) = wire.collect(DiagnosticArray, '/diagnostics', qos=10)
    status = next(s for s in report.status if s.name == 'mujoco_robot: fr3_arm_controller')
    assert reason in status.message and status.level == status.WARN
    assert int({v.key: v.value for v in status.values}['rejected']) >= 1
    np.testing.assert_allclose(positions(node, 'arm'), before, atol=0.01)


def test_humble_takes_the_moving_end_that_jazzy_rejects_in_simulated_time_too():
    with robot('fr3', 'ros2_control', controller_flavour='humble', publish_clock=True) as both:
        node, wire = both
        target = positions(node, 'arm') + 0.1
        send_to(node, wire, 'arm', target, velocity=0.1)
        assert arrives(node, wire, 'arm', target)


def test_the_one_spoken_to_last_moves_the_joints_without_a_jump(fr3):
    node, wire = fr3
    wire.session.reset_episode(0, '')
    start = positions(node, 'arm')
    send_to(node, wire, 'arm', start + 0.1)
    assert arrives(node, wire, 'arm', start + 0.1)
    wire.send('fr3_arm_controller/commands', Float64MultiArray(data=(start - 0.1).tolist()))
    assert arrives(node, wire, 'arm', start - 0.1)
    # The trajectory controller takes over where the joints are told to be, not where it was.
    seen = []
    send_to(node, wire, 'arm', start - 0.2, seconds=1.0)
    wire.session.spin_until(
        lambda: seen.append(positions(node, 'arm')[0]) or abs(seen[-1] - start[0] + 0.2) < 0.012,
        PATIENT,
    )
    assert max(seen) < start[0] - 0.08
    wire.send('gripper_controller/commands', Float64MultiArray(data=[0.01]))
    assert arrives(node, wire, 'gripper', 0.01, 0.002)


def test_an_episode_begins_at_home_whatever_was_commanded(fr3):
    node, wire = fr3
    send_to(node, wire, 'arm', positions(node, 'arm') + 0.3, seconds=3.0)
    wire.session.spin(0.3)
    wire.session.reset_episode(0, '')
    home = positions(node, 'arm')
    wire.session.spin(0.5)
    np.testing.assert_allclose(positions(node, 'arm'), home, atol=0.005)


# --- base ---------------------------------------------------------------------------------------


def test_under_ros2_control_the_base_forgets_its_speed_after_half_a_second(r1_lite):
    node, wire = r1_lite

    def speed():
        return node.robot.sim.feedback('base')[1]

    wire.send('cmd_vel', twist(vx=0.1, wz=0.1))
    assert wire.session.spin_until(lambda: speed()[0] > 0.08 and speed()[2] > 0.08, PATIENT)
    elapsed = node.robot.elapsed
    assert wire.session.spin_until(lambda: abs(speed()[0]) < 0.01, PATIENT)
    assert node.robot.elapsed - elapsed < 1.0
    assert wire.stream_until('cmd_vel', twist(vx=0.1), lambda: speed()[0] > 0.08)


def test_an_old_speed_is_ignored_and_said(r1_lite, monkeypatch):
    node, wire = r1_lite
    warnings = []
    monkeypatch.setattr(node.get_logger(), 'warning', warnings.append)
    msg = TwistStamped()
    msg.header.stamp.sec = 1000
    msg.twist.linear.x = 0.2
    wire.send('cmd_vel', msg)
    assert wire.session.spin_until(lambda: warnings, PATIENT)
    assert re.search(
        r'cmd_vel ignored: header.stamp: .* s old, cmd_vel_timeout is 0.5', warnings[0]
    )


def test_without_stamps_a_twist_is_taken():
    with robot('r1_lite', 'ros2_control', cmd_vel__stamped=False) as (node, wire):
        msg = Twist()
        msg.linear.y = 0.1
        sim = node.robot.sim
        assert wire.stream_until('cmd_vel', msg, lambda: sim.feedback('base')[1][1] > 0.08)


def test_in_isaacs_dialect_the_base_keeps_its_speed():
    with robot('r1_lite', 'isaac') as (node, wire):
        msg = Twist()
        msg.linear.x = 0.1
        wire.send('cmd_vel', msg)
        sim = node.robot.sim
        assert wire.session.spin_until(lambda: sim.feedback('base')[1][0] > 0.08, PATIENT)
        wire.session.spin(1.2)
        assert sim.feedback('base')[1][0] == pytest.approx(0.1, abs=0.02)


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'robot': 'hexapod'}, "robot: expected one of r1_lite, .* found 'hexapod'"),
        ({'robot': 'dual_arm', 'dialect': 'vendor'}, "vendor is the R1 Lite's, found robot dual"),
        ({'robot': 'single_arm', 'arm_model': 'kuka'}, 'arm_model: expected one of fr3, ur5e'),
        ({'robot': 'single_arm', 'task': 'pick_red'}, "task: unknown task 'pick_red'; .* none"),
        ({'robot': 'single_arm', 'head_size': [96, 96]}, 'unknown parameters: head_size'),
        ({'robot': 'single_arm', 'arm__joints': ['a']}, 'arm.joints: expected 7 names, found 1'),
        (
            {'robot': 'single_arm', 'gripper__joints': ['fr3_joint1']},
            'joints: expected different names',
        ),
        ({'robot': 'single_arm', 'controller_flavour': 'foxy'}, 'humble, jazzy, lyrical, found'),
        ({'dialect': 'isaac', 'cmd_vel_timeout': 0.5}, 'unknown parameters: cmd_vel_timeout'),
        ({'dialect': 'isaac', 'base_timeout': 0.5}, 'unknown parameters: base_timeout'),
        ({'robot': 'single_arm', 'image_size': [0, 48]}, 'image_size: expected width and height'),
    ],
    ids=lambda v: '-'.join(v) if isinstance(v, dict) else '',
)
def test_what_does_not_go_together_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        make_robot(kept_context(DOMAIN), **values)
