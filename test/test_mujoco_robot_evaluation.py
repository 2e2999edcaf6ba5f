"""What the simulated robot offers to evaluation, its parameters, and how its process ends."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
from project_files import ROOT
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from robot_wire import connected, DOMAIN, make_robot, PATIENT, twist
from ros_contexts import kept_context
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState, MultiDOFJointState
from std_msgs.msg import Bool, Float32

from faster_core.errors import ConfigError
from faster_core.sim.tasks import TASKS
from faster_vla_msgs.srv import ResetEpisode
from faster_vla_ros.mujoco_robot import RobotError, spin
from faster_vla_ros.robot_cameras import CameraThread
from faster_vla_ros.session import SessionError

pytestmark = pytest.mark.ros
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope='module')
def shared():
    with connected(publish_clock=True, base_timeout=0.4) as both:
        yield both


@pytest.fixture
def robot(shared):
    return shared[0]


@pytest.fixture
def wire(shared):
    return shared[1]


# --- episodes ---------------------------------------------------------------------------------


def test_reset_with_seed_and_task_gives_the_instruction_and_the_scene(robot, wire):
    assert wire.session.reset_episode(11, 'pick_blue') == TASKS['pick_blue'].instruction
    sim = robot.robot.sim
    assert (sim.seed, sim.task.name) == (11, 'pick_blue')
    first = sim.world_state()['red_block'][0]
    wire.session.reset_episode(12, 'pick_blue')
    other = sim.world_state()['red_block'][0]
    wire.session.reset_episode(11, 'pick_red')
    np.testing.assert_allclose(sim.world_state()['red_block'][0], first, atol=2e-3)
    assert np.abs(other - first).max() > 5e-3


def test_reset_without_a_task_lets_the_seed_choose(robot, wire):
    names = list(TASKS)
    for seed in (0, 1):
        assert wire.session.reset_episode(seed, '') == TASKS[names[seed]].instruction


def test_reset_with_an_unknown_task_is_refused_and_names_the_known_ones(robot, wire):
    wire.session.reset_episode(5, 'pick_red')
    with pytest.raises(SessionError, match=r'pick_nothing.*known: .*pick_red'):
        wire.session.reset_episode(6, 'pick_nothing')
    assert (robot.robot.sim.seed, robot.robot.sim.task.name) == (5, 'pick_red')


def test_the_largest_seed_a_message_holds_is_a_scene_like_any_other(robot, wire):
    request = ResetEpisode.Request(seed=2**64 - 1, task='pick_red')
    answer = wire.session.call(ResetEpisode, '/mujoco_robot/reset_episode', request)
    assert answer.success, answer.message


def test_reset_forgets_the_last_episodes_speed(robot, wire):
    wire.session.reset_episode(0, '')
    sim = robot.robot.sim
    chassis = '/motion_target/target_speed_chassis'
    assert wire.stream_until(chassis, twist(vx=0.2), lambda: sim.feedback('base')[1][0] > 0.1)
    wire.session.reset_episode(0, '')
    start = sim.feedback('base')[0].copy()
    wire.session.spin(0.5)
    np.testing.assert_allclose(sim.feedback('base')[0], start, atol=0.02)


def test_a_chassis_with_a_timeout_forgets_its_target(robot, wire):
    wire.session.reset_episode(0, '')
    sim = robot.robot.sim
    chassis = '/motion_target/target_speed_chassis'
    assert wire.stream_until(chassis, twist(vx=0.2), lambda: sim.feedback('base')[1][0] > 0.1)
    assert wire.session.spin_until(lambda: abs(sim.feedback('base')[1][0]) < 0.01, PATIENT)


def test_success_is_latched_and_taken_back_by_a_reset(robot, wire, monkeypatch):
    wire.session.reset_episode(0, '')

    def latest():  # of a listener that comes late
        return wire.collect(Bool, '/mujoco_robot/task_success', qos=LATCHED)[0].data

    assert latest() is False
    monkeypatch.setattr(robot.robot.sim, 'succeeded', lambda: True)
    assert wire.session.spin_until(latest, PATIENT)
    monkeypatch.undo()
    wire.session.reset_episode(1, '')
    assert latest() is False


def test_world_state_names_every_object_with_its_true_pose(robot, wire):
    wire.session.reset_episode(4, 'pick_red')
    (msg,) = wire.collect(MultiDOFJointState, '/mujoco_robot/world_state')
    expected = robot.robot.sim.world_state()
    assert set(msg.joint_names) == set(expected) and 'red_block' in expected
    for name, transform in zip(msg.joint_names, msg.transforms, strict=True):
        t, r = transform.translation, transform.rotation
        np.testing.assert_allclose([t.x, t.y, t.z], expected[name][0], atol=0.01)
        np.testing.assert_allclose([r.w, r.x, r.y, r.z], expected[name][1], atol=0.05)


def test_real_time_factor_is_a_fraction_of_the_clock(robot, wire):
    (msg,) = wire.collect(Float32, '/mujoco_robot/real_time_factor', qos=1)
    assert 0.0 < msg.data <= 1.1


# --- time -------------------------------------------------------------------------------------


def _seconds(stamp):
    return Time.from_msg(stamp).nanoseconds / 1e9


def test_the_clock_is_simulated_time_and_goes_on_over_a_reset(robot, wire):
    clocks = []
    subscription = wire.node.create_subscription(
        Clock, '/clock', lambda m: clocks.append(_seconds(m.clock)), 50
    )
    assert wire.session.spin_until(lambda: len(clocks) >= 20, PATIENT)
    wire.session.reset_episode(2, '')
    seen = len(clocks)
    assert wire.session.spin_until(lambda: len(clocks) >= seen + 20, PATIENT)
    wire.node.destroy_subscription(subscription)
    assert clocks == sorted(clocks)
    assert clocks[-1] <= robot.robot.elapsed + 1e-6 < 1e6


def test_with_a_clock_all_stamps_are_simulated_time(robot, wire):
    (feedback,) = wire.collect(JointState, '/hdas/feedback_arm_left')
    (image,) = wire.collect(
        CompressedImage, '/hdas/camera_head/left_raw/image_raw_color/compressed'
    )
    for msg in (feedback, image):
        assert 0.0 < _seconds(msg.header.stamp) <= robot.robot.elapsed + 1e-6


# --- parameters and failures --------------------------------------------------------------------


@pytest.fixture
def context():
    return kept_context(DOMAIN)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'task': 'fly'}, "task: unknown task 'fly'; known: pick_red"),
        ({'seed': -1}, 'seed: expected at least 0'),
        ({'camera_rate': 0.0}, 'camera_rate'),
        ({'feedback_divider': 0}, 'feedback_divider'),
        ({'head_size': [96]}, 'head_size: expected width and height'),
        ({'wrist_size': [64, -48]}, 'wrist_size'),
        ({'torso_timeout': -0.5}, 'torso_timeout'),
        ({'publish_clock': 'yes'}, 'publish_clock: expected bool'),
        ({'colour': 'red'}, 'unknown parameters: colour'),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else '',
)
def test_a_wrong_parameter_is_named(context, values, message):
    before = threading.active_count()
    with pytest.raises(ConfigError, match=message):
        make_robot(context, **values)
    assert threading.active_count() == before


def test_cameras_that_cannot_render_end_the_robot_with_the_reason(context, monkeypatch):
    monkeypatch.setattr(
        CameraThread, '_render_once', lambda *_: (_ for _ in ()).throw(RuntimeError('no EGL'))
    )
    node = make_robot(context)
    with pytest.raises(RobotError, match='no EGL'):
        spin(node, threading.Event())
    assert not node.cameras._thread.is_alive()


def test_physics_that_fails_ends_the_robot_with_status_1(context, monkeypatch):
    node = make_robot(context)
    monkeypatch.setattr(node, '_publish_slice', lambda _: 1 / 0)
    assert spin(node, threading.Event()) == 1
    assert isinstance(node.failure, ZeroDivisionError)


def _process(*arguments):
    return subprocess.Popen(
        [sys.executable, '-m', 'faster_vla_ros.mujoco_robot', '--ros-args', *arguments],
        cwd=ROOT,
        env=os.environ | {'ROS_DOMAIN_ID': str(DOMAIN)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_the_process_ends_with_status_0_when_asked_even_twice(number):
    """rclpy's own handlers made the threads publish into a dead context now and then."""
    process = _process()
    try:
        assert any('ready: seed 0' in line for line in process.stdout)
        process.send_signal(number)
        process.send_signal(number)
        said = process.communicate(timeout=PATIENT)[0]
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert 'Traceback' not in said and 'FATAL' not in said


def test_the_process_says_what_is_wrong_with_a_parameter_without_a_traceback():
    process = _process('-p', 'task:=fly')
    try:
        said = process.communicate(timeout=PATIENT)[0]
    finally:
        process.kill()
    assert process.returncode == 1
    assert 'unknown task' in said and 'Traceback' not in said
