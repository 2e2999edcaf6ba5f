"""Who can talk to the policy node: publishers and subscribers of either reliability."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import policy_node_helpers as h
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


def test_incompatible_listener_is_reported_once_with_topic_and_policy(context, capfd):
    with h.rig(context) as rig:
        capfd.readouterr()
        log = []

        def reports():
            log.extend(capfd.readouterr().err.splitlines())
            return [line for line in log if 'incompatible QoS' in line and '[policy_node]' in line]

        topic = '/policy_node/action_chunk'
        rig.robot.create_subscription(ActionChunk, topic, lambda _: None, LATCHED)
        rig.spin_until(reports)
        rig.spin(0.5)
        assert len(reports()) == 1
        assert 'action_chunk' in reports()[0]
        assert 'DURABILITY' in reports()[0]


def test_status_reaches_early_volatile_and_late_latched_listeners(context):
    with h.rig(context, up=False) as rig:
        early, late = [], []
        rig.robot.create_subscription(PolicyStatus, '/policy_node/status', early.append, RELIABLE)
        rig.up()
        rig.spin_until(lambda: early)
        rig.robot.create_subscription(PolicyStatus, '/policy_node/status', late.append, LATCHED)
        rig.spin_until(lambda: late)


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
