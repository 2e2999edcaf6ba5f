"""A robot around one dispatcher: feedback in the vendor's units, ears on every topic."""

import collections
import dataclasses
import itertools
import math
import time

from geometry_msgs.msg import TwistStamped
import numpy as np
from project_files import ROOT
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from ros_contexts import kept_context, Spinning
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution.config import robot_file_parameters
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import ChunkReport, DispatcherState
from faster_vla_ros.action_dispatcher import ActionDispatcher
from faster_vla_ros.conversions import chunk_to_message
from faster_vla_ros.services import Asking

DOMAIN = 41
CHUNK_PERIOD = 0.3  # seconds between chunks while the robot is to move
# The test's robot shares a loaded machine with others: it is silent for a second now and then.
# It has no remote control and no guard either.
LENIENT = {
    'feedback_timeout': 5.0,
    'max_chunk_age': 2.0,
    'permit.topic': '',
    'guard.topic': '',
}
EMBODIMENT_FILE = ROOT / 'config' / 'embodiments' / 'r1_lite.yaml'
ROBOT_FILE = ROOT / 'config' / 'robots' / 'r1_lite.yaml'
EMBODIMENT = Embodiment.load(EMBODIMENT_FILE)
# What the driver of the real robot does: small queues, best effort.
EARS = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COMMANDS = {
    'left_arm': (JointState, '/motion_target/target_joint_state_arm_left'),
    'left_gripper': (JointState, '/motion_target/target_position_gripper_left'),
    'right_arm': (JointState, '/motion_target/target_joint_state_arm_right'),
    'right_gripper': (JointState, '/motion_target/target_position_gripper_right'),
    'torso': (TwistStamped, '/motion_target/target_speed_torso'),
    'base': (TwistStamped, '/motion_target/target_speed_chassis'),
}
FEEDBACK = {
    'left_arm': '/hdas/feedback_arm_left',
    'left_gripper': '/hdas/feedback_gripper_left',
    'right_arm': '/hdas/feedback_arm_right',
    'right_gripper': '/hdas/feedback_gripper_right',
}
ARM = (0.1, 0.5, -0.5, 0.0, 0.2, 0.0)  # rad
GRIPPER = 0.05  # m, 50 in the vendor's unit
BASE_SPEED = 0.2  # m/s


def parameters(**changes):
    """Return the robot file's parameters, flat; `__` in a name stands for a dot, None removes."""
    values = robot_file_parameters(ROBOT_FILE) | {'embodiment': str(EMBODIMENT_FILE)} | LENIENT
    values |= {name.replace('__', '.'): value for name, value in changes.items()}
    return {name: value for name, value in values.items() if value is not None}


def make_values():
    """Return rows [H, D]: left joint 1 turns, the left gripper closes, the base drives."""
    values = np.zeros((EMBODIMENT.action_horizon, EMBODIMENT.action_dim), np.float32)
    at = EMBODIMENT.action_slices
    values[:, at['left_arm']] = values[:, at['right_arm']] = ARM
    values[:, at['left_arm'].start] += 0.01 * np.arange(1, len(values) + 1)
    values[:, at['left_gripper']] = 0.02
    values[:, at['right_gripper']] = GRIPPER
    values[:, at['base'].start] = BASE_SPEED
    return values


class Rig(Spinning):
    """Robot and operator in one node; with a dispatcher in this process unless told not to."""

    patience = 90.0  # on a slow, loaded machine

    def __init__(self, *, dispatcher=True, **changes):
        self.context = kept_context(DOMAIN)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.dispatcher = None
        self.node = Node('robot', context=self.context, use_global_arguments=False)
        self.executor.add_node(self.node)
        self.sent = collections.defaultdict(list)  # component -> [(message, source time in ns)]
        self.states, self.reports, self.brake = [], [], []
        for name, (kind, topic) in COMMANDS.items():
            self.node.create_subscription(kind, topic, self._ear(self.sent[name]), EARS)
        self.node.create_subscription(
            DispatcherState, '/action_dispatcher/state', self.states.append, LATCHED
        )
        self.node.create_subscription(
            ChunkReport, '/action_dispatcher/chunk_report', self._ear(self.reports), 50
        )
        self.node.create_subscription(Bool, '/motion_target/brake_mode', self.brake.append, EARS)
        self.chunks = self.node.create_publisher(ActionChunkMsg, 'action_chunk', 1)
        # component -> what its driver sends, in the vendor's unit; the 7th value is the gripper
        self.measured = {
            'left_arm': [*ARM, 7.0],
            'left_gripper': [GRIPPER * 1000],
            'right_arm': [*ARM],
            'right_gripper': [GRIPPER * 1000],
        }
        self._feedback = {
            name: self.node.create_publisher(JointState, topic, 5)
            for name, topic in FEEDBACK.items()
        }
        self.node.create_timer(0.02, self._measure)
        self.sequence_id = 0
        if dispatcher:
            self.dispatcher = make_node(self.context, **changes)
            self.executor.add_node(self.dispatcher)
            try:
                self.dispatcher.configure()
            except Exception:
                # Nodes that end with the exception would take the names of the next ones along.
                self.close()
                raise

    def close(self):
        if self.dispatcher is not None:
            self.dispatcher.leave()
            self.dispatcher.destroy_node()
        self.executor.shutdown()
        self.node.destroy_node()

    def _ear(self, kept):
        def take(message, info):
            kept.append((message, info['source_timestamp']))

        return take

    def _measure(self):
        for name, values in self.measured.items():
            if values is not None:
                self._feedback[name].publish(JointState(position=[float(v) for v in values]))

    @property
    def state(self):
        return self.states[-1]

    @property
    def base_speeds(self):
        return [m.twist.linear.x for m, _ in self.sent['base']]

    def hardest_braking(self):
        """Return the share of the base's limit it was braked with at most.

        By the stamps of the commands: a late tick moves by the time that passed.
        """
        found = []
        for (a, _), (b, _) in itertools.pairwise(self.sent['base']):
            seconds = (Time.from_msg(b.header.stamp) - Time.from_msg(a.header.stamp)).nanoseconds
            found.append((a.twist.linear.x - b.twist.linear.x) / (seconds * 1e-9))
        return max(found) / parameters()['base.max_acceleration'][0]

    def situation(self):
        return self.states[-1:]

    def call(self, name, request):
        kind = SetBool if isinstance(request, SetBool.Request) else Trigger
        client = self.node.create_client(kind, f'/action_dispatcher/{name}')
        self.until(client.service_is_ready, f'service {name}')
        asking = Asking(client, request)
        self.until(asking.answered, f'answer of {name}')
        self.node.destroy_client(client)
        return asking.answer()

    def enable(self, on=True):
        return self.call('enable', SetBool.Request(data=on))

    def stop(self):
        return self.call('stop', Trigger.Request())

    def reset(self):
        return self.call('reset', Trigger.Request())

    def enable_when_ready(self):
        """Enable as soon as feedback has arrived and everyone on the wire has met."""
        self.until(self.connected, 'discovery')
        self.until(lambda: self.enable().success, 'enabled')

    def connected(self):
        commands = all(self.node.count_publishers(t) for _, t in COMMANDS.values())
        return commands and self.chunks.get_subscription_count() and self.states

    def message(self, **changes):
        """Return the message of a good chunk observed 50 ms ago; `changes` of the chunk."""
        self.sequence_id += 1
        now = self.node.get_clock().now().nanoseconds * 1e-9
        chunk = ActionChunk(
            values=make_values(),
            stamp=now - 0.05,
            first_step_offset=EMBODIMENT.step_period,
            step_period=EMBODIMENT.step_period,
            sequence_id=self.sequence_id,
            embodiment_checksum=EMBODIMENT.checksum,
        )
        return chunk_to_message(dataclasses.replace(chunk, **changes), EMBODIMENT)

    def send(self, message=None):
        """Publish a chunk and return the report on it."""
        self.until(self.chunks.get_subscription_count, 'somebody takes chunks')
        message = self.message() if message is None else message
        self.chunks.publish(message)

        def found():
            return [r for r, _ in self.reports if r.sequence_id == message.sequence_id]

        self.until(found, 'a report')
        return found()[0]

    def drive(self, speed=0.05):
        """Enable and get the base to move at least so fast (m/s)."""
        self.enable_when_ready()
        report = self.send()
        assert report.accepted, report.reason
        self.move_until(lambda: self.base_speeds and self.base_speeds[-1] > speed)

    def move_until(self, condition):
        """Send chunks like a policy until a condition holds."""
        self._next = time.monotonic() + CHUNK_PERIOD

        def check():
            if condition():
                return True
            if time.monotonic() > self._next:
                self._next = time.monotonic() + CHUNK_PERIOD
                self.chunks.publish(self.message())
            return False

        self.until(check, 'motion')


@pytest.fixture
def make_rig():
    """Return a function that makes rigs, which are closed after the test."""
    rigs = []

    def make(**changes):
        rigs.append(Rig(**changes))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def make_node(context, *, namespace='', **changes):
    """Return a dispatcher that is not configured yet."""
    return ActionDispatcher(
        context=context,
        namespace=namespace,
        use_global_arguments=False,
        parameter_overrides=[Parameter(k, value=v) for k, v in parameters(**changes).items()],
    )


def not_a_number(values):
    """Return the same number of values, the first not a number."""
    return [math.nan, *values[1:]]
