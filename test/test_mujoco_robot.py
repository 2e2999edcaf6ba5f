"""The simulated robot on the wire: the vendor's topics, cameras and commands."""

import itertools
import time

import numpy as np
from project_files import ROOT
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import cv2
from rclpy.node import NodeNameNonExistentError
from rclpy.time import Time
from robot_wire import connected, PATIENT, SENSOR_QOS, twist
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool

from faster_core.sim import R1LiteSim

pytestmark = pytest.mark.ros
# Interfaces page, 11.3.
IMAGES = {
    '/hdas/camera_head/left_raw/image_raw_color/compressed': (96, 96),
    '/hdas/camera_wrist_left/color/image_raw/compressed': (64, 48),
    '/hdas/camera_wrist_right/color/image_raw/compressed': (64, 48),
}
# topic -> (positions, velocities)
FEEDBACK = {
    '/hdas/feedback_arm_left': (6, 6),
    '/hdas/feedback_gripper_left': (1, 1),
    '/hdas/feedback_arm_right': (6, 6),
    '/hdas/feedback_gripper_right': (1, 1),
    '/hdas/feedback_torso': (4, 4),
    '/hdas/feedback_chassis': (0, 6),
}
COMMANDS = {
    '/motion_target/target_joint_state_arm_left': 'sensor_msgs/msg/JointState',
    '/motion_target/target_position_gripper_left': 'sensor_msgs/msg/JointState',
    '/motion_target/target_joint_state_arm_right': 'sensor_msgs/msg/JointState',
    '/motion_target/target_position_gripper_right': 'sensor_msgs/msg/JointState',
    '/motion_target/target_speed_torso': 'geometry_msgs/msg/TwistStamped',
    '/motion_target/target_speed_chassis': 'geometry_msgs/msg/TwistStamped',
    '/motion_target/brake_mode': 'std_msgs/msg/Bool',
}

# Sent for the real chassis; the simulated one has no limit of its own.
UNHEARD = {'/motion_target/chassis_acc_limit'}


@pytest.fixture(scope='module')
def shared():
    with connected(wrist_size=[64, 48], seed=3, task='pick_blue') as both:
        yield both


@pytest.fixture
def robot(shared):
    """The shared robot at the start of an episode."""
    node, wire = shared
    wire.session.reset_episode(3, 'pick_blue')
    return node


@pytest.fixture
def wire(shared):
    return shared[1]


def base_speed(wire):
    return np.array(wire.feedback('/hdas/feedback_chassis').velocity[:3])


# --- topics -----------------------------------------------------------------------------------


def test_topics_and_types_are_exactly_the_vendors(robot, wire):
    def of_robot(listing):
        try:
            found = dict(listing('mujoco_robot', '/'))
        except NodeNameNonExistentError:
            return {}  # its endpoints were discovered, its name was not yet
        others = ('/rosout', '/parameter_events', '/robot_description')
        return {t: k[0] for t, k in found.items() if '/mujoco_robot/' not in t and t not in others}

    node, session = wire.node, wire.session
    expected = dict.fromkeys(IMAGES, 'sensor_msgs/msg/CompressedImage')
    expected |= dict.fromkeys(FEEDBACK, 'sensor_msgs/msg/JointState')
    published = {}

    def complete():
        nonlocal published
        published = of_robot(node.get_publisher_names_and_types_by_node)
        return published == expected

    assert session.spin_until(complete, PATIENT), published
    assert of_robot(node.get_subscriber_names_and_types_by_node) == COMMANDS


def test_the_shipped_parameter_file_speaks_to_these_topics():
    text = (ROOT / 'config/robots/r1_lite.yaml').read_text(encoding='utf-8')
    nodes = yaml.safe_load(text)['/**']
    policy = nodes['policy_node']['ros__parameters']
    dispatcher = nodes['action_dispatcher']['ros__parameters']
    read = {value for name, value in policy.items() if name.endswith('.topic')}
    # Of the machine only: its remote control. Of ours: the guard.
    lacking = ('permit.topic', 'guard.topic')
    used = {v for name, v in dispatcher.items() if name.endswith('topic') and name not in lacking}
    assert read == {*IMAGES, *FEEDBACK}
    assert {t for t in used if t.startswith('/motion_target/')} == {*COMMANDS, *UNHEARD}
    assert used <= {*COMMANDS, *FEEDBACK, *UNHEARD}


def test_feedback_is_by_index_with_the_vendors_sizes_and_placeholder_names(robot, wire):
    for topic, (positions, velocities) in FEEDBACK.items():
        msg = wire.feedback(topic)
        assert (len(msg.position), len(msg.velocity)) == (positions, velocities), topic
        assert list(msg.name) == [f'joint{i}' for i in range(1, velocities + 1)]
        assert msg.header.stamp.sec > 0


def test_feedback_is_the_state_of_the_simulator(robot, wire):
    msg = wire.feedback('/hdas/feedback_arm_right')
    position, _ = robot.robot.sim.feedback('right_arm')
    np.testing.assert_allclose(msg.position, position, atol=0.05)


def test_a_gripper_reports_its_stroke_in_0_to_100(robot, wire):
    for side in ('left', 'right'):
        (stroke,) = wire.feedback(f'/hdas/feedback_gripper_{side}').position
        metres = robot.robot.sim.feedback(f'{side}_gripper')[0][0]
        assert 50.0 < stroke <= 101.0  # open at the start
        assert stroke == pytest.approx(1000 * metres, abs=3.0)


# --- cameras ----------------------------------------------------------------------------------


def test_cameras_send_jpegs_of_the_configured_size(robot, wire):
    for topic, (width, height) in IMAGES.items():
        (msg,) = wire.collect(CompressedImage, topic)
        assert 'jpeg' in msg.format
        image = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (height, width, 3), topic


def test_a_picture_shows_the_scene_in_rgb_and_not_in_bgr(robot, wire):
    topic = next(iter(IMAGES))
    msg = wire.collect(CompressedImage, topic, count=4)[-1]  # the ones after the reset
    rgb = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    twin = R1LiteSim()
    try:
        twin.show(robot.robot.sim.pose())
        expected = twin.render('head', (96, 96)).astype(float)
    finally:
        twin.close()
    right = np.abs(rgb - expected).mean()
    swapped = np.abs(rgb[:, :, ::-1] - expected).mean()
    assert right < 6.0 and swapped > 1.5 * right


def test_cameras_follow_their_rate_in_the_robots_time_and_share_one_stamp(robot, wire):
    head, left = list(IMAGES)[:2]
    lefts = []
    subscription = wire.node.create_subscription(CompressedImage, left, lefts.append, SENSOR_QOS)
    before = robot.robot.elapsed
    heads = wire.collect(CompressedImage, head, count=25)
    simulated = robot.robot.elapsed - before
    wire.node.destroy_subscription(subscription)
    stamps = [Time.from_msg(m.header.stamp).nanoseconds for m in heads]
    assert all(b > a for a, b in itertools.pairwise(stamps))
    # Simulated time: the wall clock of a loaded machine says little.
    assert 8.0 < 25 / simulated < 18.0
    common = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in heads} & {
        (m.header.stamp.sec, m.header.stamp.nanosec) for m in lefts
    }
    assert len(common) >= 5


# --- commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize('side', ['left', 'right'])
def test_an_arm_follows_its_target(robot, wire, side):
    start = np.array(wire.feedback(f'/hdas/feedback_arm_{side}').position)
    target = start.copy()
    target[0] += 0.2
    msg = JointState(position=target.tolist())
    topic = f'/motion_target/target_joint_state_arm_{side}'

    def arrived():
        return abs(robot.robot.sim.feedback(f'{side}_arm')[0][0] - target[0]) < 0.05

    assert wire.stream_until(topic, msg, arrived)
    other = 'right' if side == 'left' else 'left'
    assert not np.allclose(robot.robot.sim.feedback(f'{other}_arm')[0], target, atol=0.05)


def test_a_gripper_closes_at_zero_and_opens_at_100(robot, wire):
    topic, feedback = (
        '/motion_target/target_position_gripper_left',
        lambda: robot.robot.sim.feedback('left_gripper')[0][0],
    )
    assert wire.stream_until(topic, JointState(position=[0.0]), lambda: feedback() < 0.01)
    assert wire.stream_until(topic, JointState(position=[100.0]), lambda: feedback() > 0.09)


def test_the_torso_goes_down_and_forgets_its_speed_after_half_a_second(robot, wire):
    topic = '/motion_target/target_speed_torso'
    sim = robot.robot.sim

    def speed():
        return np.abs(sim.feedback('torso')[1]).max()

    assert wire.stream_until(topic, twist(vz=-0.05), lambda: speed() > 0.02)
    sent = time.monotonic()
    assert wire.session.spin_until(lambda: speed() < 0.005, PATIENT)
    assert time.monotonic() - sent > 0.3


def test_the_chassis_keeps_its_last_target_for_ever(robot, wire):
    wire.send('/motion_target/target_speed_chassis', twist(vx=0.1, wz=0.1))
    assert wire.session.spin_until(lambda: base_speed(wire)[0] > 0.08, PATIENT)
    wire.session.spin(1.5)
    vx, vy, wz = base_speed(wire)
    assert vx == pytest.approx(0.1, abs=0.03)
    assert vy == pytest.approx(0.0, abs=0.03)
    assert wz == pytest.approx(0.1, abs=0.03)


def test_the_brake_stops_the_chassis_and_holds_it_against_commands(robot, wire):
    chassis, brake = '/motion_target/target_speed_chassis', '/motion_target/brake_mode'
    wire.send(chassis, twist(vx=0.1))
    assert wire.session.spin_until(lambda: base_speed(wire)[0] > 0.08, PATIENT)
    wire.send(brake, Bool(data=True))
    assert wire.session.spin_until(lambda: abs(base_speed(wire)[0]) < 0.01, PATIENT)
    assert not wire.stream_until(
        chassis, twist(vx=0.1), lambda: abs(base_speed(wire)[0]) > 0.03, timeout=1.0
    )
    wire.send(brake, Bool(data=False))
    assert wire.stream_until(chassis, twist(vx=0.1), lambda: base_speed(wire)[0] > 0.08)


def test_wrong_sizes_are_ignored_with_one_warning(robot, wire, monkeypatch):
    warnings = []
    monkeypatch.setattr(robot.get_logger(), 'warning', warnings.append)
    arm = robot.robot.sim._arm_ctrl['left']
    before = robot.robot.sim.data.ctrl[arm].copy()
    topic = '/motion_target/target_joint_state_arm_left'
    for i in range(5):
        wire.send(topic, JointState(position=[0.1 * i] * 7))
        wire.session.spin(0.1)
    wire.send(topic, JointState(position=[float('nan')] * 6))
    assert wire.session.spin_until(lambda: len(warnings) == 2, PATIENT), warnings
    assert 'left_arm: expected 6 finite values' in warnings[0]
    np.testing.assert_array_equal(robot.robot.sim.data.ctrl[arm], before)
