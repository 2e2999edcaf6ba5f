"""A policy node and its surroundings in one executor: topics in, topics out."""

import contextlib
import time

from fake_policy import FakePolicy
import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_contexts import kept_context, Spinning
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from faster_core import paths
from faster_vla_msgs.msg import ActionChunk, PolicyStatus
from faster_vla_ros.policy_node import PolicyNode

DOMAIN = 42
WAIT = 20.0
CAMERAS = ('head', 'wrist_left', 'wrist_right')
# source -> (topic, raw values, field)
SOURCES = {
    'left_arm': ('/hdas/feedback_arm_left', [0.1, 0.2, -0.3, 0.4, 0.5, 0.6], 'position'),
    'left_gripper': ('/hdas/feedback_gripper_left', [50.0], 'position'),
    'right_arm': ('/hdas/feedback_arm_right', [1.1, 1.2, -1.3, 1.4, 1.5, 1.6, 9.9], 'position'),
    'right_gripper': ('/hdas/feedback_gripper_right', [100.0], 'position'),
    'torso': ('/hdas/feedback_torso', [0.01, 0.02, 0.03, 0.04], 'position'),
    'base': ('/hdas/feedback_chassis', [0.5, 0.6, 0.7, 9.0, 9.0, 9.0], 'velocity'),
}
STATE = [0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.05, 1.1, 1.2, -1.3, 1.4, 1.5, 1.6, 0.1]
STATE += [0.01, 0.02, 0.03, 0.04, 0.5, 0.6, 0.7]
# A loaded machine must not make inputs stale in tests of something else.
PATIENT = {f'{name}.timeout': 60.0 for name in (*CAMERAS, *SOURCES)}
RAW = {f'{c}.transport': 'raw' for c in CAMERAS} | {f'{c}.topic': f'/{c}' for c in CAMERAS}


def arguments(robot_file='r1_lite.yaml'):
    """Return what the launch file passes: the parameter file of the robot."""
    path = paths.share_dir() / 'config' / 'robots' / robot_file
    return ['--ros-args', '--params-file', str(path)]


def overrides(values):
    """Return parameters for a node."""
    return [Parameter(name, value=value) for name, value in values.items()]


def image(stamp_ns, size=(4, 6), encoding='rgb8', value=100, step=None):
    """Return a raw image message of one colour."""
    height, width = size
    channels = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}.get(encoding, 3)
    message = Image(height=height, width=width, encoding=encoding)
    message.step = width * channels if step is None else step
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.data.frombytes(np.full(height * width * channels, value, np.uint8).tobytes())
    return message


def joint_state(stamp_ns, values, field='position', names=()):
    """Return a feedback message."""
    message = JointState(name=list(names))
    setattr(message, field, [float(v) for v in values])
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


def wait(condition, timeout=WAIT):
    """Wait for another thread; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f'waited {timeout} s in vain'
        time.sleep(0.02)


class Rig(Spinning):
    """A configured policy node, a robot that publishes on demand and ears on all outputs."""

    def __init__(self, context, *, namespace='', **parameters):
        self.policy = FakePolicy()
        self.context, self.namespace = context, namespace
        if namespace:  # topics of its own, by relative names
            parameters = {f'{c}.topic': f'camera/{c}' for c in CAMERAS} | parameters
            parameters = {f'{s}.topic': f'feedback/{s}' for s in SOURCES} | parameters
        values = {'checkpoint_path': 'fake', 'warmup_iterations': 1} | PATIENT | RAW | parameters
        self.node = PolicyNode(
            policy_factory=lambda _: self.policy,
            context=context,
            namespace=namespace or None,
            use_global_arguments=False,
            enable_rosout=False,
            cli_args=arguments(),
            parameter_overrides=overrides(values),
        )
        self.robot = Node(
            'robot', context=context, namespace=namespace or None, use_global_arguments=False
        )
        self.executor = SingleThreadedExecutor(context=context)
        for node in (self.node, self.robot):
            self.executor.add_node(node)
        self.chunks, self.statuses = [], []
        listen = self.robot.create_subscription
        listen(ActionChunk, 'policy_node/action_chunk', self.chunks.append, 10)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        listen(PolicyStatus, 'policy_node/status', self.statuses.append, latched)
        publish = self.robot.create_publisher
        self.cameras = {c: publish(Image, values[f'{c}.topic'], 10) for c in CAMERAS}
        self.feedback = {
            s: publish(JointState, values.get(f'{s}.topic', SOURCES[s][0]), 10) for s in SOURCES
        }
        self.instruction = publish(String, 'instruction', 10)

    def up(self):
        """Configure, activate and wait until everybody has found everybody."""
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.wait_connected()
        return self

    def wait_connected(self):
        own = [*self.cameras.values(), *self.feedback.values(), self.instruction]
        self.until(lambda: all(p.get_subscription_count() for p in own))
        chunks = f'{self.namespace}/policy_node/action_chunk'
        self.until(lambda: self.node.count_subscribers(chunks) and self.statuses)

    def situation(self):
        return self.statuses[-2:]

    def now(self):
        """Return the clock in nanoseconds."""
        return self.robot.get_clock().now().nanoseconds

    def say(self, text):
        """Publish an instruction and wait until the node has dealt with it."""
        generation = self.node.instructions.generation
        self.instruction.publish(String(data=text))
        self.until(lambda: self.node.instructions.generation > generation)

    def sense(self, stamp=None, images=None, feedback=None, without=()):
        """Publish one set of inputs: feedback first. Returns its stamp in nanoseconds.

        Args:
            stamp: nanoseconds; now if None.
            images: camera -> message that replaces the usual one.
            feedback: source -> message that replaces the usual one.
            without: names that stay silent.
        """
        stamp = self.now() if stamp is None else stamp
        for name, (_, values, field) in SOURCES.items():
            if name not in without:
                usual = joint_state(stamp, values, field)
                self.feedback[name].publish((feedback or {}).get(name, usual))
        self.until(self._feedback_taken(stamp, feedback, without))
        for name in CAMERAS:
            if name not in without:
                self.cameras[name].publish((images or {}).get(name, image(stamp)))
        return stamp

    def _feedback_taken(self, stamp, feedback, without):
        usual = [s for s in SOURCES if s not in without and s not in (feedback or {})]
        sources = self.node.inputs.sources

        def taken():
            newest = [sources[s]._values[-1][0] if sources[s]._values else -1 for s in usual]
            return all(abs(t - stamp / 1e9) < 1e-6 for t in newest) and not self._rejected(
                feedback
            )

        return taken

    def _rejected(self, feedback):
        """Whether a replaced message is still on its way (it leaves a problem behind)."""
        return any(not self.node.inputs.sources[s].problem for s in feedback or {})

    @property
    def status(self):
        """The newest status on the wire."""
        return self.statuses[-1]

    def wait_status(self, state, text=''):
        """Wait for a status of that state whose message contains `text`."""
        self.until(lambda: self.status.state == state and text in self.status.message)
        return self.status

    def call(self, kind, name, **fields):
        """Call a service of the policy node; returns its answer."""
        client = self.robot.create_client(kind, f'policy_node/{name}')
        self.until(client.service_is_ready)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done)
        self.robot.destroy_client(client)
        return future.result()

    def moving_chunks(self):
        """Return the chunks with rows."""
        return [c for c in self.chunks if c.num_steps]

    def follow(self, text='grasp the cup'):
        """Say an instruction, sense once and return the chunk that comes."""
        self.say(text)
        count = len(self.moving_chunks())
        self.sense()
        self.until(lambda: len(self.moving_chunks()) > count)
        return self.moving_chunks()[-1]

    def close(self):
        """End everything."""
        self.policy.gate.set()
        self.node.leave()
        self.executor.shutdown()
        self.node.destroy_node()
        self.robot.destroy_node()


@contextlib.contextmanager
def own_context(domain=DOMAIN):
    """The ROS context in the domain of these tests."""
    yield kept_context(domain)


@contextlib.contextmanager
def rig(context, *, up=True, namespace='', **parameters):
    """A rig that is closed at the end."""
    r = Rig(context, namespace=namespace, **parameters)
    try:
        yield r.up() if up else r
    finally:
        r.close()
