"""The guard: zeros when the dispatcher is killed while the base moves, and only then."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import COMMANDS, DOMAIN, EARS, parameters, Rig
from geometry_msgs.msg import Twist, TwistStamped
from project_files import ROOT
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_contexts import kept_context
from std_msgs.msg import Float64MultiArray
import yaml

from faster_core.errors import ConfigError
from faster_vla_ros.guard import Guard

pytestmark = pytest.mark.ros

TIMEOUT = 0.1
# What the issue allows from the kill to the zero at an independent observer (s).
ALLOWED = 0.25


def make_guard(**values):
    return Guard(
        context=kept_context(DOMAIN),
        use_global_arguments=False,
        parameter_overrides=[Parameter(k, value=v) for k, v in values.items()],
    )


class Robot:
    """A base that keeps its last target, and who commands it, beside a guard in this process."""

    def __init__(self, kind=TwistStamped, name='twist_stamped'):
        context = kept_context(DOMAIN)
        self.node = Node('base', context=context, use_global_arguments=False)
        self.guard = make_guard(topics=['speed'], types=[name], timeout=TIMEOUT, duration=0.4)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.guard)
        self.heard = []
        self.node.create_subscription(kind, 'speed', self.heard.append, EARS)
        self.commands = self.node.create_publisher(kind, 'speed', 1)
        self.until(lambda: self.commands.get_subscription_count() == 2)
        self.until(lambda: self.node.count_publishers('speed') == 2)

    def until(self, condition, patience=20.0):
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end
            self.executor.spin_once(timeout_sec=0.01)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def command(self, message, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.commands.publish(message)
            self.spin(0.02)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.guard.destroy_node()


@pytest.fixture
def make_robot():
    robots = []

    def make(*args):
        robots.append(Robot(*args))
        return robots[-1]

    yield make
    for robot in robots:
        robot.close()


def stamped(speed=0.2, frame='base_link'):
    message = TwistStamped()
    message.header.frame_id, message.twist.linear.x = frame, speed
    return message


def test_silence_after_a_command_that_moves_brings_zeros(make_robot):
    robot = make_robot()
    robot.command(stamped(frame='chassis'), 0.3)
    robot.spin(0.3)
    last = robot.heard[-1]
    assert last.twist.linear.x == 0.0
    assert last.header.frame_id == 'chassis'
    assert last.header.stamp.sec > 0


def test_zeros_end_after_their_duration(make_robot):
    robot = make_robot()
    robot.command(stamped(), 0.2)
    robot.spin(1.0)
    count = len(robot.heard)
    robot.spin(0.5)
    assert len(robot.heard) == count


def test_commands_that_go_on_are_left_alone(make_robot):
    robot = make_robot()
    robot.command(stamped(), 0.6)
    assert all(m.twist.linear.x == 0.2 for m in robot.heard)


def test_silence_after_a_zero_needs_no_guard(make_robot):
    robot = make_robot()
    robot.command(stamped(), 0.2)
    robot.command(stamped(0.0), 0.1)
    count = len(robot.heard)
    robot.spin(0.5)
    assert len(robot.heard) <= count + 1  # one may have been on its way


def test_commands_that_come_back_are_let_through_and_watched_again(make_robot):
    robot = make_robot()
    robot.command(stamped(), 0.2)
    robot.spin(0.25)
    robot.command(stamped(), 0.3)
    assert robot.heard[-1].twist.linear.x == 0.2
    robot.spin(0.3)
    assert robot.heard[-1].twist.linear.x == 0.0


@pytest.mark.parametrize(
    ('kind', 'name', 'moving', 'speed'),
    [
        (Twist, 'twist', 'angular', lambda m: m.angular.z),
        (Float64MultiArray, 'float64_array', None, lambda m: m.data[1]),
    ],
)
def test_other_types_of_commands_are_guarded_too(make_robot, kind, name, moving, speed):
    robot = make_robot(kind, name)
    message = kind()
    if moving:
        message.angular.z = 0.3
    else:
        message.data = [0.0, 0.3, 0.0]
    robot.command(message, 0.3)
    assert speed(robot.heard[-1]) == 0.3
    robot.spin(0.3)
    assert speed(robot.heard[-1]) == 0.0


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({}, 'topics is required'),
        ({'topics': ['a', 'b'], 'types': ['twist']}, r"one for each of \['a', 'b'\]"),
        ({'topics': ['a'], 'types': ['pose']}, "found 'pose'"),
        ({'topics': ['a'], 'timeout': 0.0}, 'timeout: expected more than 0'),
        ({'topics': ['a'], 'time_out': 0.1}, 'unknown parameters: time_out'),
    ],
)
def test_wrong_parameters_are_refused_by_name(values, words):
    with pytest.raises(ConfigError, match=words):
        make_guard(**values)


# --- the dispatcher killed ----------------------------------------------------------------


@pytest.fixture
def start(tmp_path):
    processes = []

    def start(module, values, name):
        file = tmp_path / f'{name}.yaml'
        file.write_text(yaml.safe_dump({'/**': {name: {'ros__parameters': values}}}))
        processes.append(
            subprocess.Popen(
                [sys.executable, '-m', module, '--ros-args', '--params-file', str(file)],
                cwd=ROOT,
                env=dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), OMP_NUM_THREADS='1'),
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait(timeout=20)


def killed_while_driving(start, *, guarded):
    """Kill the dispatcher at speed; return the rig, the moment and the process of the guard."""
    rig = Rig(dispatcher=False)
    topic = COMMANDS['base'][1]
    guard = None
    if guarded:
        guard = start('faster_vla_ros.guard', {'topics': [topic], 'timeout': TIMEOUT}, 'guard')
        rig.until(lambda: rig.node.count_publishers(topic) == 1, 'the guard')
    dispatcher = start('faster_vla_ros.action_dispatcher', parameters(), 'action_dispatcher')
    rig.drive(0.15)
    dispatcher.send_signal(signal.SIGKILL)
    killed = time.time_ns()
    return rig, killed, guard


def test_a_killed_dispatcher_is_followed_by_zeros_within_the_time_allowed(start):
    rig, killed, guard = killed_while_driving(start, guarded=True)
    try:
        rig.spin(1.0)
        after = [(m, t) for m, t in rig.sent['base'] if t > killed]
        zeros = [t for m, t in after if m.twist.linear.x == 0.0]
        assert zeros
        delay = (zeros[0] - killed) / 1e9
        print(f'zeros {delay * 1e3:.0f} ms after SIGKILL')
        assert delay <= ALLOWED
        guard.send_signal(signal.SIGTERM)
        assert guard.wait(timeout=20) == 0
    finally:
        rig.close()


def test_without_a_guard_a_latching_chassis_drives_on(start):
    rig, killed, _ = killed_while_driving(start, guarded=False)
    try:
        rig.spin(1.0)
        assert rig.base_speeds[-1] > 0.1
        assert not [t for _, t in rig.sent['base'] if t > killed + 50_000_000]
    finally:
        rig.close()
