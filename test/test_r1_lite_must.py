"""The list of what a Galaxea R1 Lite demands (docs/robots.md), one test or more per item.

With the file of the real robot, or the simulated one's, which differs in limits only; the vendor's
side is played over DDS.
"""

import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import ARM, COMMANDS, EARS, EMBODIMENT_FILE, GRIPPER, ROBOT_FILE
from geometry_msgs.msg import PointStamped, TwistStamped
import numpy as np
from project_files import ROOT
from rclpy.qos import QoSProfile
from robot_files import as_dispatcher, as_guard, as_policy_node
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool

from faster_core.errors import ObservationError
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros.doctor import stamps
from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.sensors.images import TYPES

pytestmark = pytest.mark.ros
# Of the machine, from the vendor's guide: m/s, m/s, rad/s of the chassis; 2.5, 1.0, 1.0 m/s² and
# rad/s² of its acceleration limit; m/s and rad/s that the vendor advises for the torso.
CHASSIS_SPEED = np.array([1.5, 1.5, 3.0])
CHASSIS_ACCELERATION = np.array([2.5, 1.0, 1.0])
TORSO_SPEED = 0.2
# Slowest stream on which the vendor's trackers go on moving, Hz; seen in a bring-up.
SLOWEST_STREAM = 10.0
MOVING = ('base', 'torso')
TORSO_JOINTS = '/motion_target/target_joint_state_torso'
CHASSIS = '/motion_target/target_speed_chassis'


@pytest.fixture(scope='module')
def config():
    return as_dispatcher('r1_lite_hardware.yaml', EMBODIMENT_FILE)


@pytest.fixture(scope='module')
def policy():
    return as_policy_node(ROBOT_FILE, EMBODIMENT_FILE)


# --- 1 ------------------------------------------------------------------------------------------


def test_1_arms_and_grippers_are_streamed_while_enabled_moving_or_not(make_rig, config):
    assert config.rules.dispatch_rate == 50.0
    rig = make_rig()
    rig.drive()
    names = ('left_arm', 'left_gripper', 'right_arm', 'right_gripper')
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_HOLD, 'the plan has ended')
    before, began = {n: len(rig.sent[n]) for n in names}, time.monotonic()
    rig.spin(1.0)
    passed = time.monotonic() - began
    for name in names:
        rate = (len(rig.sent[name]) - before[name]) / passed
        assert rate >= SLOWEST_STREAM, (name, rate)


# --- 2 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', [5, 8])
def test_2_arm_feedback_of_another_size_is_refused_and_nothing_moves(make_rig, policy, length):
    message = JointState(name=['x'] * length, position=[0.1] * length)
    with pytest.raises(ObservationError, match=f'{length}'):
        policy[1]['left_arm'].parse(message)
    rig = make_rig()
    rig.measured['left_arm'] = [0.1] * length
    rig.until(rig.connected, 'discovery')
    rig.spin(0.3)
    answer = rig.enable()
    assert not answer.success and 'left_arm' in answer.message


def test_2_arms_are_read_by_index_whatever_their_names_and_a_seventh_value_is_ignored(policy):
    message = JointState(name=['joint1'] * 7, position=[*ARM, 42.0])
    for arm in ('left_arm', 'right_arm'):
        np.testing.assert_allclose(policy[1][arm].parse(message), ARM)


# --- 3 ------------------------------------------------------------------------------------------


def test_3_grippers_are_clamped_scaled_to_0_to_100_and_streamed(make_rig, config):
    limits = config.rules.components['left_gripper']
    _, output = config.outputs['left_gripper']
    assert (limits.lower * output.scale, limits.upper * output.scale) == ([0.0], [100.0])
    rig = make_rig()
    rig.enable_when_ready()
    message = rig.message()
    for component in message.components:
        if component.name == 'left_gripper':
            component.data = [0.109] * message.num_steps  # 9 % of the range too far open
    assert rig.send(message).accepted
    rig.until(lambda: rig.sent['left_gripper'][-1][0].position[0] > 99.0, 'opened')
    stream = [m.position[0] for m, _ in rig.sent['left_gripper']]
    assert max(stream) <= 100.0 + 1e-6
    assert stream[0] == pytest.approx(GRIPPER * 1000, abs=10.0)
    assert len(stream) > 5


# --- 4 ------------------------------------------------------------------------------------------


def test_4_the_torso_moves_by_speed_only_and_slower_than_the_vendor_advises(config):
    output, wire = config.outputs['torso']
    assert (output.message_type, wire.topic) == (
        TwistStamped,
        '/motion_target/target_speed_torso',
    )
    assert (config.rules.components['torso'].max_velocity <= TORSO_SPEED).all()
    assert TORSO_JOINTS not in {w.topic for _, w in config.outputs.values()}


def test_4_with_a_publisher_of_torso_joint_targets_motion_is_refused(make_rig):
    rig = make_rig()
    rig.until(rig.connected, 'discovery')
    rival = rig.node.create_publisher(JointState, TORSO_JOINTS, 1)
    rig.until(lambda: TORSO_JOINTS in rig.enable().message, 'refused')
    answer = rig.enable()
    assert not answer.success and 'expected none' in answer.message
    rig.node.destroy_publisher(rival)
    rig.until(lambda: rig.enable().success, 'enabled once it has gone')


# --- 5 ------------------------------------------------------------------------------------------


def test_5_brake_and_acceleration_limit_are_sent_when_motion_is_enabled(make_rig, config):
    values = np.array(config['acceleration_limit.values'])
    assert (values <= CHASSIS_ACCELERATION).all()
    # Or the chassis could not follow what the dispatcher plans.
    assert (values >= config.rules.components['base'].max_acceleration).all()
    rig = make_rig()
    limits = []
    rig.node.create_subscription(
        TwistStamped, '/motion_target/chassis_acc_limit', limits.append, EARS
    )
    rig.until(rig.connected, 'discovery')
    rig.spin(0.3)
    assert not limits and not rig.brake
    rig.enable_when_ready()
    rig.until(lambda: limits and rig.brake, 'told')
    twist = limits[0].twist
    assert [twist.linear.x, twist.linear.y, twist.angular.z] == list(values)
    assert [m.data for m in rig.brake] == [False] * len(rig.brake)


@pytest.mark.parametrize('way', ['disable', 'stop', 'leave', 'no chunks'])
def test_5_every_way_out_ends_in_zero_frames_for_the_chassis(make_rig, way):
    rig = make_rig()
    rig.drive()
    if way == 'disable':
        assert rig.enable(False).success
    elif way == 'stop':
        assert rig.stop().success
    elif way == 'leave':
        rig.dispatcher.leave()
    else:
        rig.until(lambda: rig.state.action == DispatcherState.ACTION_HOLD, 'the end of the plan')
    rig.until(lambda: rig.base_speeds[-1] == 0.0, 'zero')
    if way != 'leave':
        # It keeps its last target: silence would not be safe, so zeros go on.
        before = len(rig.base_speeds)
        rig.spin(1.5)
        assert len(rig.base_speeds) - before > 1.5 * SLOWEST_STREAM
        assert set(rig.base_speeds[before:]) == {0.0}


def test_5_zeros_go_on_until_the_node_ends_and_a_guard_covers_its_death(config):
    assert config.rules.components['base'].stop_pub_timeout == 0.0
    assert config.rules.components['base'].on_stale == 'zero'
    guard = as_guard(ROBOT_FILE)
    topics = dict(zip(guard['topics'], guard['types'], strict=True))
    driven = {w.topic: 'twist_stamped' for n, (_, w) in config.outputs.items() if n in MOVING}
    assert topics == driven
    assert guard['timeout'] <= 0.25  # s: zeros must come within this
    assert guard['timeout'] > 3 / config.rules.dispatch_rate  # a late tick is no death
    for sim in (True, False):
        graph = r1lite_wbc(sim=sim, nodes=['guard', 'action_dispatcher'])
        guard, dispatcher = graph.nodes
        assert guard.parameter_files == dispatcher.parameter_files


# --- 6 ------------------------------------------------------------------------------------------


def test_6_the_remote_control_must_be_in_mode_5_of_the_vendors_message(config):
    assert config['permit.topic'] == '/controller'
    assert config['permit.field'] == 'data.mode'
    assert config['permit.value'] == 5
    hardware = r1lite_wbc(sim=False, nodes=['action_dispatcher']).nodes[0].parameters
    assert not [name for name in hardware if name.startswith('permit')]


def test_6_in_another_mode_motion_is_refused_said_in_the_state_and_ended(make_rig):
    # The vendor's type is not here: another one with a field of a field.
    rig = make_rig(permit__topic='/controller', permit__field='point.x')
    remote = rig.node.create_publisher(PointStamped, '/controller', 1)
    mode = [1.0]

    def tell():
        message = PointStamped()
        message.point.x = mode[0]
        remote.publish(message)

    rig.node.create_timer(0.1, tell)
    rig.until(rig.connected, 'discovery')
    rig.until(lambda: 'is 1.0, expected 5' in rig.state.message, 'said in the state')
    assert 'expected 5' in rig.enable().message
    mode[0] = 5.0
    rig.drive()
    mode[0] = 2.0
    rig.until(lambda: not rig.state.enabled, 'ended')
    rig.until(lambda: 'is 2.0, expected 5' in rig.state.message, 'said in the state')


# --- 7 ------------------------------------------------------------------------------------------


def test_7_default_speeds_are_far_below_those_of_the_machine(config):
    assert (config.rules.components['base'].max_velocity <= CHASSIS_SPEED / 5).all()
    assert (config.rules.components['left_arm'].max_velocity <= 10.47 / 5).all()


# --- 8 ------------------------------------------------------------------------------------------


def test_8_everything_that_is_sent_exists_on_humble(config):
    """ParallelGripperCommand came with Jazzy, and control_msgs would be one package more."""
    for name, (output, _) in config.outputs.items():
        assert not hasattr(output, 'action_type'), name
        assert output.message_type in (JointState, TwistStamped), name
    assert "python_requires='>=3.10'" in (ROOT / 'setup.py').read_text(encoding='utf-8')


# --- 9 ------------------------------------------------------------------------------------------


def test_9_images_cross_machines_compressed(policy):
    for camera in policy[0].cameras.values():
        assert camera.transport == 'compressed'
        assert camera.topic.endswith('/compressed')
    assert TYPES['compressed'] is CompressedImage


# --- 10 -----------------------------------------------------------------------------------------


def test_10_the_doctor_warns_when_the_clocks_are_more_than_20_ms_apart():
    """What it says of a stamp that is older, or in the future, stands in test_doctor_inputs.py."""
    assert stamps.WARN_AGE <= 0.02


# --- none of it hides behind a queue ------------------------------------------------------------


def test_the_vendors_best_effort_subscribers_of_depth_1_hear_zero(make_rig):
    rig = make_rig()
    heard = []
    quality = QoSProfile(depth=1, reliability=EARS.reliability)
    rig.node.create_subscription(TwistStamped, CHASSIS, heard.append, quality)
    rig.node.create_subscription(Bool, '/motion_target/brake_mode', lambda _: None, quality)
    rig.drive()
    rig.dispatcher.leave()
    rig.until(lambda: heard and heard[-1].twist.linear.x == 0.0, 'zero')
    assert set(COMMANDS) == set(rig.sent)
