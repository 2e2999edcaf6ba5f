"""Who can talk to the policy node: publishers and subscribers of either reliability."""

import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import policy_node_helpers as h
from project_files import ROOT
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from faster_vla_msgs.msg import ActionChunk, PolicyStatus
from faster_vla_ros import qos

pytestmark = pytest.mark.ros

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope='module')
def context():
    with h.own_context() as c:
        yield c


@pytest.mark.parametrize('profile', [RELIABLE, BEST_EFFORT], ids=['reliable', 'best effort'])
def test_cameras_and_feedback_of_either_reliability_both_connect(context, profile):
    with h.rig(context, up=False) as rig:
        for group, kind in ((rig.cameras, Image), (rig.feedback, JointState)):
            for name, old in group.items():
                topic = old.topic_name
                rig.robot.destroy_publisher(old)
                group[name] = rig.robot.create_publisher(kind, topic, profile)
        rig.up().follow()
        assert rig.moving_chunks()


@pytest.mark.parametrize('profile', [RELIABLE, LATCHED], ids=['default', 'latched'])
def test_instruction_of_default_and_of_latched_publishers_arrives(context, profile):
    with h.rig(context) as rig:
        rig.robot.destroy_publisher(rig.instruction)
        rig.instruction = rig.robot.create_publisher(String, '/instruction', profile)
        rig.wait_connected()
        rig.say('grasp the cup')
        assert rig.node.instruction == 'grasp the cup'


class Reports:
    """Lines of the log about incompatible QoS."""

    def __init__(self, capfd):
        self._capfd, self._lines = capfd, []
        capfd.readouterr()

    def __call__(self):
        self._lines += self._capfd.readouterr().err.splitlines()
        return [
            line for line in self._lines if 'incompatible QoS' in line and '[policy_node]' in line
        ]


def test_incompatible_listener_is_reported_once_as_an_error_with_topic_and_policy(context, capfd):
    with h.rig(context) as rig:
        reports, topic = Reports(capfd), '/policy_node/action_chunk'
        rig.robot.create_subscription(ActionChunk, topic, lambda _: None, LATCHED)
        rig.until(reports)
        rig.robot.create_subscription(ActionChunk, topic, lambda _: None, LATCHED)
        rig.spin(0.5)
        assert len(reports()) == 1
        assert '[ERROR]' in reports()[0]
        assert f'{topic}: incompatible QoS, a subscriber cannot be served' in reports()[0]
        assert 'DURABILITY' in reports()[0]


def test_incompatible_publisher_is_reported_once_as_an_error(context, capfd):
    with h.rig(context) as rig:
        reports = Reports(capfd)
        rig.robot.create_publisher(String, '/instruction', BEST_EFFORT)
        rig.until(reports)
        rig.spin(0.3)
        assert len(reports()) == 1
        assert '[ERROR]' in reports()[0]
        assert '/instruction: incompatible QoS, a publisher cannot be heard' in reports()[0]
        assert 'RELIABILITY' in reports()[0]


def test_overridden_durability_brings_the_instruction_that_was_latched_before(context):
    override = {'qos_overrides./instruction.subscription.durability': 'transient_local'}
    with h.rig(context, up=False, **override) as rig:
        rig.robot.destroy_publisher(rig.instruction)
        rig.instruction = rig.robot.create_publisher(String, '/instruction', LATCHED)
        rig.instruction.publish(String(data='grasp the cup'))
        rig.up()
        rig.until(lambda: rig.node.instructions.last == 'grasp the cup')


def endpoint(node, topic):
    own = [e for e in (*node.publishers, *node.subscriptions) if e.topic_name == topic]
    assert len(own) == 1
    return own[0].qos_profile


def test_overrides_reach_their_endpoint_and_no_other_one(context):
    values = {
        'qos_overrides./policy_node/action_chunk.publisher.depth': 4,
        'qos_overrides./policy_node/timing.publisher.reliability': 'best_effort',
        'qos_overrides./head.subscription.depth': 7,
        'qos_overrides./head.subscription.reliability': 'reliable',
    }
    with h.rig(context, **values) as rig:
        node = rig.node
        assert endpoint(node, '/policy_node/action_chunk').depth == 4
        timing = endpoint(node, '/policy_node/timing')
        assert timing.reliability == ReliabilityPolicy.BEST_EFFORT
        head, wrist = endpoint(node, '/head'), endpoint(node, '/wrist_left')
        assert (head.depth, head.reliability) == (7, ReliabilityPolicy.RELIABLE)
        assert (wrist.depth, wrist.reliability) == (2, ReliabilityPolicy.BEST_EFFORT)
        assert (qos.IMAGE.depth, qos.CHUNK.depth) == (2, 1)  # the profiles are shared
        # What was not overridden can be seen and is read-only.
        name = 'qos_overrides./instruction.subscription.durability'
        assert node.get_parameter(name).value == 'volatile'
        # The same once more: the parameters are declared already.
        node.trigger_deactivate()
        node.trigger_cleanup()
        rig.up()
        assert endpoint(node, '/head').depth == 7


def test_topic_that_is_changed_between_two_configures_leaves_no_override_behind(context):
    given = {'qos_overrides./wrist_left.subscription.depth': 7}
    with h.rig(context, **given) as rig:
        node = rig.node
        node.trigger_deactivate()
        node.trigger_cleanup()
        node.set_parameters(h.overrides({'head.topic': '/other'}))
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert endpoint(node, '/other').depth == 2
        assert endpoint(node, '/wrist_left').depth == 7
        # An override the user gave is still checked.
        node.trigger_cleanup()
        node.set_parameters(h.overrides({'wrist_left.topic': '/another'}))
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


@pytest.mark.parametrize(
    ('name', 'value', 'expected'),
    [
        ('/instruction.subscription.durability', 'latched', "transient_local, found 'latched'"),
        ('/instruction.subscription.depth', 0, 'expected int of at least 1, found 0'),
        ('/instruction.subscription.depth', 'two', "expected int of at least 1, found 'two'"),
        ('/instruction.subscription.deadline', 5, 'expected one of history, depth'),
        ('/policy_node/action_chunk.publisher.durability', 'transient_local', 'expected one of'),
        ('/instuction.subscription.depth', 5, 'the node has no such subscription'),
        ('/instruction.depth', 5, 'expected <topic>.publisher or <topic>.subscription'),
        ('/policy_node/status.subscription.depth', 5, 'the node has no such subscription'),
    ],
)
def test_wrong_override_is_refused_by_name(context, capfd, name, value, expected):
    with h.rig(context, up=False, **{f'qos_overrides.{name}': value}) as rig:
        assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
        log = capfd.readouterr().err
        assert f'cannot configure: qos_overrides.{name}: ' in log
        assert expected in log
        assert 'Traceback' not in log
        assert not rig.node.count_subscribers('/head')
        assert not rig.node.count_publishers('/policy_node/status')


def test_status_reaches_early_volatile_and_late_latched_listeners(context):
    with h.rig(context, up=False) as rig:
        early, late = [], []
        rig.robot.create_subscription(PolicyStatus, '/policy_node/status', early.append, RELIABLE)
        rig.up()
        rig.until(lambda: early)
        rig.robot.create_subscription(PolicyStatus, '/policy_node/status', late.append, LATCHED)
        rig.until(lambda: late)


@pytest.mark.parametrize(
    ('profile', 'depth', 'reliable', 'latched'),
    [
        (qos.IMAGE, 2, False, False),
        (qos.STATE, 10, False, False),
        (qos.INSTRUCTION, 1, True, False),
        (qos.CHUNK, 1, True, False),
        (qos.COMMAND, 1, True, False),
        (qos.REPORT, 10, True, False),
        (qos.LATCHED, 1, True, True),
    ],
)
def test_profiles_are_those_of_the_interface_description(profile, depth, reliable, latched):
    assert profile.depth == depth
    assert (profile.reliability == ReliabilityPolicy.RELIABLE) is reliable
    assert (profile.durability == DurabilityPolicy.TRANSIENT_LOCAL) is latched


# In place of Humble: QoS events under their old name, and nothing under the new one.
_HUMBLE = """
import sys, time, types
import rclpy
import rclpy.node
from rclpy import event_handler
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

told = []

class SubscriptionEventCallbacks(event_handler.SubscriptionEventCallbacks):
    def __init__(self, *, incompatible_qos, use_default_callbacks):
        def tell(event):
            incompatible_qos(event)
            told.append(event)

        super().__init__(
            incompatible_qos=tell, use_default_callbacks=use_default_callbacks
        )

old = types.ModuleType('rclpy.qos_event')
old.PublisherEventCallbacks = event_handler.PublisherEventCallbacks
old.SubscriptionEventCallbacks = SubscriptionEventCallbacks
sys.modules |= {'rclpy.qos_event': old, 'rclpy.event_handler': None}
from faster_vla_ros import qos

assert qos.SubscriptionEventCallbacks is SubscriptionEventCallbacks
rclpy.init()
node = rclpy.create_node('humble')
qos.publisher(node, String, 'said', qos.COMMAND)
qos.subscription(node, String, 'heard', print, qos.INSTRUCTION)
best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
node.create_publisher(String, 'heard', best_effort)
end = time.monotonic() + 60
while not told and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
"""


def test_qos_events_are_those_of_humble_where_the_newer_name_is_missing():
    done = subprocess.run(
        [sys.executable, '-c', _HUMBLE],
        cwd=ROOT,
        env=dict(os.environ, ROS_DOMAIN_ID=str(h.DOMAIN)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert '/heard: incompatible QoS, a publisher cannot be heard' in done.stderr
