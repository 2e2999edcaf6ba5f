"""The dispatcher as a process: every way out ends in zeros, and wrong parameters in status 1."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import DOMAIN, make_node, parameters
from project_files import ROOT
from ros_contexts import kept_context
from rosgraph_msgs.msg import Clock
import yaml

from faster_core.errors import FasterVlaError
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros.conversions import stamp_from_seconds

pytestmark = pytest.mark.ros


@pytest.fixture
def start(tmp_path):
    """Start `python -m faster_vla_ros.action_dispatcher` with the robot file's parameters."""
    processes = []

    def start(**changes):
        file = tmp_path / 'parameters.yaml'
        values = {'/**': {'action_dispatcher': {'ros__parameters': parameters(**changes)}}}
        file.write_text(yaml.safe_dump(values), encoding='utf-8')
        command = [sys.executable, '-m', 'faster_vla_ros.action_dispatcher', '--ros-args']
        process = subprocess.Popen(
            [*command, '--params-file', str(file)],
            cwd=ROOT,
            env=dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), OMP_NUM_THREADS='1'),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    'signals',
    [
        [signal.SIGTERM],
        [signal.SIGINT],
        [signal.SIGHUP, signal.SIGINT, signal.SIGINT, signal.SIGTERM],
    ],
    ids=lambda signals: '+'.join(s.name for s in signals),
)
def test_a_signal_while_the_base_moves_ends_with_zeros_on_the_wire(make_rig, start, signals):
    rig = make_rig(dispatcher=False)
    process = start()
    rig.drive(0.1)
    for number in signals:
        process.send_signal(number)
        rig.spin(0.05)
    rig.until(lambda: process.poll() is not None, 'the end of the process')
    rig.spin(0.3)
    assert process.returncode == 0, process.stdout.read()
    assert rig.base_speeds[-3:] == [0.0] * 3
    torso = rig.sent['torso'][-1][0].twist
    assert (torso.linear.x, torso.linear.z, torso.angular.y, torso.angular.z) == (0, 0, 0, 0)
    # Decelerated, not cut off; and arms hold where they are.
    assert 0.9 < rig.hardest_braking() <= 1.01
    arms = [m.position[0] for m, _ in rig.sent['left_arm']]
    assert abs(arms[-1] - arms[-2]) < 1e-3
    assert rig.state.message == 'the dispatcher ends'


def test_an_exception_while_the_base_moves_ends_with_zeros(make_rig, monkeypatch):
    rig = make_rig()
    rig.drive()

    def fail(*_, **__):
        raise RuntimeError('a bug')

    monkeypatch.setattr(rig.dispatcher.dispatcher, 'tick', fail)
    with pytest.raises(RuntimeError, match='a bug'):
        rig.spin(5.0)
    with pytest.raises(RuntimeError, match='a bug'):
        rig.dispatcher.leave()
    rig.spin(0.3)
    assert rig.base_speeds[-1] == 0.0


def test_a_dispatcher_that_never_moved_anything_leaves_zeros_for_a_latching_chassis(make_rig):
    # The one before it may have been killed.
    rig = make_rig()
    rig.until(rig.connected)
    rig.spin(0.3)
    assert not rig.sent['base']
    rig.dispatcher.leave()
    rig.until(lambda: rig.base_speeds == [0.0] * len(rig.base_speeds) != [])
    assert not rig.sent['left_arm']


def test_simulated_time_moves_nothing_before_it_begins_nor_once_it_stands_still(make_rig):
    rig = make_rig(use_sim_time=True)
    rig.until(rig.connected)
    rig.spin(0.3)
    assert 'no fresh feedback' in rig.enable().message
    clock = rig.node.create_publisher(Clock, '/clock', 10)
    start = time.monotonic()

    def now():
        return 100.0 + time.monotonic() - start

    timer = rig.node.create_timer(
        0.01, lambda: clock.publish(Clock(clock=stamp_from_seconds(now())))
    )
    rig.enable_when_ready()
    assert rig.send(rig.message(stamp=now() - 0.5)).accepted  # whose clock lags is in doubt
    rig.until(lambda: rig.base_speeds and rig.base_speeds[-1] > 0.02)
    timer.cancel()
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_HOLD)
    assert rig.state.message == 'the clock stands still'


@pytest.fixture(scope='module')
def context():
    return kept_context(DOMAIN)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'embodiment': None}, ('embodiment', 'required')),
        ({'embodiment': '/nowhere/robot.yaml'}, ('/nowhere/robot.yaml',)),
        ({'components': None}, ('components', 'required')),
        ({'components': ['left_arm', 'base']}, ('components', 'r1_lite', 'torso')),
        ({'dispatch_speed': 50.0}, ('dispatch_speed', 'unknown')),
        ({'dispatch_rate': 0.0}, ('dispatch_rate', '> 0')),
        ({'dispatch_rate': 'fast'}, ('dispatch_rate', 'float')),
        ({'autostart': False}, ('autostart', 'True')),
        ({'base__output': None}, ('base.output', 'required')),
        ({'base__output': 5}, ('base.output', 'str')),
        ({'base__output': 'servo'}, ('base.output', 'twist_stamped', 'none')),
        ({'base__output': 'joint_state_stream', 'base__axes': None}, ('base.output', 'twist')),
        ({'base__topic': None}, ('base.topic', 'required')),
        ({'base__topic': ''}, ('base.topic',)),
        ({'base__offset': 0.1}, ('base.offset', 'unknown')),
        ({'base__axes': ['vy', 'vx', 'wz']}, ('base.axes', 'vx')),
        ({'base__frame_id': 'odom'}, ('frame_id', 'odom', 'base_link')),
        ({'base__max_velocity': None}, ('base.max_velocity', 'required')),
        ({'base__max_velocity': [0.1]}, ('base.max_velocity', '3 numbers')),
        ({'base__on_stale': 'hold'}, ('base.on_stale', 'zero')),
        ({'left_arm__on_stale': 'zero'}, ('left_arm.on_stale', 'hold')),
        ({'left_arm__feedback__size': [5]}, ('left_arm.feedback.size', 'at least 6')),
        ({'left_arm__feedback__mapping': 'by_name'}, ('left_arm.feedback.joints', '6 names')),
        ({'left_gripper__scale': 0.0}, ('left_gripper.scale', 'other than 0')),
        ({'left_gripper__feedback__scale': float('nan')}, ('left_gripper.feedback.scale',)),
    ],
    ids=lambda value: ','.join(value) if isinstance(value, dict) else '',
)
def test_wrong_parameters_are_refused_by_name_and_nothing_is_advertised(context, changes, words):
    node = make_node(context, **changes)
    before = {publisher.topic_name for publisher in node.publishers}
    try:
        with pytest.raises(FasterVlaError) as error:
            node.configure()
        assert not [word for word in words if word not in str(error.value)], error.value
        assert {publisher.topic_name for publisher in node.publishers} == before
        node.leave()  # nothing to make safe, and no error
    finally:
        node.destroy_node()


WAY = {'left_arm__output': 'joint_trajectory', 'left_arm__topic': 'arm/joint_trajectory'}


@pytest.mark.parametrize('dry_run', [False, True])
@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (WAY | {'left_arm__max_acceleration': None}, r'left_arm\.max_acceleration: missing'),
        ({'base__topic': 'no name'}, 'topic name must not contain'),
        ({'qos_overrides./elsewhere.publisher.depth': 1}, 'no such publisher'),
    ],
    ids=['trajectory without acceleration', 'topic', 'quality of service'],
)
def test_a_dry_run_refuses_what_would_be_refused_in_earnest(context, changes, words, dry_run):
    node = make_node(context, dry_run=dry_run, **changes)
    try:
        with pytest.raises(Exception, match=words):
            node.configure()
    finally:
        node.destroy_node()


@pytest.mark.parametrize('dry_run', [False, True])
@pytest.mark.parametrize('topic', ['target_speed_chassis', 'brake_mode', 'chassis_acc_limit'])
def test_a_dry_run_takes_the_quality_of_service_of_commands_that_it_does_not_send(
    context, topic, dry_run
):
    name = f'qos_overrides./motion_target/{topic}.publisher.depth'
    node = make_node(context, dry_run=dry_run, **{name: 2})
    try:
        node.configure()
    finally:
        node.leave()
        node.destroy_node()


def test_defaults_are_shown_by_the_node(context):
    node = make_node(context)
    try:
        node.configure()
        assert node.get_parameter('excess_tolerance').value == 0.1
        assert node.get_parameter('base.frame_id').value == 'base_link'
    finally:
        node.leave()
        node.destroy_node()


def test_the_process_ends_with_status_1_and_names_the_wrong_parameter(start):
    process = start(base__output='servo')
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert 'base.output' in output
    assert 'twist_stamped' in output
    assert 'Traceback' not in output
