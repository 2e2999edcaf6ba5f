"""`faster-vla doctor` beside real processes: simulated robot, dispatcher, and a rival."""

import collections
from concurrent import futures
import functools
import json
import os
import subprocess
import sys
import time
import types

from project_files import ROOT
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import jpeg, LATCHED, r1_lite, ROBOT_FILE, small_arm
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from ros_contexts import kept_context
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Int32, String

from faster_vla_ros.doctor import asking as module
from faster_vla_ros.doctor.listener import Listener
from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.qos import IMAGE
from faster_vla_ros.session import isolated_environment, Session
from faster_vla_ros.supervisor import Supervisor

pytestmark = pytest.mark.ros
DOMAIN = 53
OTHER_DOMAIN = 54
PATIENT = 90.0
# Also says what must never happen: the doctor runs on the robot's small computer.
_DOCTOR = (
    'import sys; from faster_vla_ros.cli import main; status = main(sys.argv[1:]); '
    "assert 'torch' not in sys.modules; sys.exit(status)"
)


def doctor(*options, domain=DOMAIN):
    """Run the command as a user does; returns exit status and its JSON."""
    done = subprocess.run(
        [sys.executable, '-c', _DOCTOR, 'doctor', '--json', *options],
        cwd=ROOT,
        env=os.environ | isolated_environment(domain),
        capture_output=True,
        text=True,
        timeout=PATIENT,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def those(report, *verdicts):
    return {(f['check'], f['subject']): f for f in report['findings'] if f['verdict'] in verdicts}


@pytest.fixture(scope='module')
def robot_file(tmp_path_factory):
    """The shipped parameters without the remote control, which a simulation does not have."""
    raw = yaml.safe_load(ROBOT_FILE.read_text())
    values = raw['/**']['action_dispatcher']['ros__parameters']
    for name in [n for n in values if n.startswith('permit.')]:
        del values[name]
    path = tmp_path_factory.mktemp('robot') / 'robot.yaml'
    path.write_text(yaml.safe_dump(raw))
    return path


def wait_for_images(session):
    """Wait until every camera has sent a few: the first pictures take their time."""
    seen = collections.Counter()
    for each in r1_lite().inputs:
        if each.camera:
            take = functools.partial(lambda camera, _: seen.update([camera]), each.camera)
            session.node.create_subscription(each.kind, each.topic, take, IMAGE)
    assert session.spin_until(lambda: len(seen) == 3 and min(seen.values()) > 5, PATIENT)


@pytest.fixture(scope='module')
def robot(robot_file):
    """Simulated robot and dispatcher, disarmed, in processes of their own."""
    nodes = ['mujoco_robot', 'guard', 'action_dispatcher']
    graph = r1lite_wbc(nodes=nodes, auto_enable='false', params_file=str(robot_file))
    environment = isolated_environment(DOMAIN)
    with Supervisor(graph, environment=environment, sink=lambda *_: None) as processes:
        with Session(domain=DOMAIN, localhost=True) as session:
            session.wait_until_ready(graph, PATIENT, processes.check)
            wait_for_images(session)
        yield processes


@pytest.fixture(scope='module')
def judgements(robot, robot_file):
    """What the doctor says with the robot's file and without any, run side by side."""
    with futures.ThreadPoolExecutor() as pool:
        given, found = pool.submit(doctor, '--params', str(robot_file)), pool.submit(doctor)
        return {'given': given.result(), 'found': found.result()}


def test_nothing_fails_beside_the_simulated_robot_and_motion_stays_disabled(judgements):
    status, report = judgements['given']
    assert those(report, 'FAIL') == {}
    assert status == 0
    assert report['ok'] is True
    good = those(report, 'OK', 'WARN')  # a loaded machine may be late
    for camera in ('head', 'wrist_left', 'wrist_right'):
        assert good['picture', camera]['found'] == '96 x 96'
        assert good['rate', camera]
    assert {s for c, s in good if c == 'statistics'} == {
        *('left_arm', 'left_gripper', 'right_arm', 'right_gripper', 'torso', 'base')
    }
    assert '/mujoco_robot' in good['command', 'base']['found']
    assert good['services', 'action_dispatcher']
    assert good['embodiment', 'action_dispatcher']
    assert good['running', 'action_dispatcher']['verdict'] == 'OK'
    assert good['state', 'action_dispatcher']['found'] == 'motion is disabled'
    assert good['node', 'guard']
    assert good['node', 'policy_node']['found'] == 'does not run'


def test_without_files_the_robot_of_the_running_dispatcher_is_judged(judgements):
    status, report = judgements['found']
    files = {f['subject']: f['found'] for f in report['findings'] if f['check'] == 'files'}
    assert files['robot'] == f'{ROBOT_FILE}: nearest to what the dispatcher runs with'
    assert files['checkpoint'].endswith('r1_lite_demo: what the dispatcher runs with')
    # The shipped file asks for the remote control; this dispatcher was started without.
    assert those(report, 'FAIL') == {}
    assert status == 0


def test_a_broken_parameter_file_a_wrong_urdf_and_a_rival_all_fail(robot, robot_file, tmp_path):
    values = yaml.safe_load(robot_file.read_text())
    policy, dispatcher = (
        values['/**'][node]['ros__parameters'] for node in ('policy_node', 'action_dispatcher')
    )
    policy['head.topic'] = '/hdas/camera_head/nowhere'
    policy['left_gripper.scale'] = 1.0
    policy['torso.size'] = [5]
    dispatcher['left_arm.topic'] = '/motion_target/nowhere'
    dispatcher['left_arm.joints'] = [f'l{i}' for i in range(1, 7)]
    dispatcher['base.output'] = 'twist'
    (tmp_path / 'robot.yaml').write_text(yaml.safe_dump(values))
    joint = (
        '<joint name="l{0}" type="revolute"><parent link="trunk"/><child link="link{0}"/>'
        '<limit lower="-1" upper="1" velocity="9"/></joint>'
    )
    joints = ''.join(joint.format(i) for i in range(1, 7))
    (tmp_path / 'r.urdf').write_text(f'<robot name="r">{joints}</robot>')
    rival = Node('teleop', context=kept_context(DOMAIN), use_global_arguments=False)
    rival.create_publisher(TwistStamped, '/motion_target/target_speed_torso', 1)
    try:
        files = ('--params', str(tmp_path / 'robot.yaml'), '--urdf', str(tmp_path / 'r.urdf'))
        status, report = doctor(*files, '--seconds', '1')
    finally:
        rival.destroy_node()
    assert status == 1
    failed = those(report, 'FAIL')
    assert set(failed) == {
        ('parameters', 'guard'),
        ('topic', 'head'),
        ('statistics', 'left_gripper'),
        ('agreement', 'left_gripper'),
        ('values', 'torso'),
        ('limits', 'left_arm'),
        ('command', 'left_arm'),
        ('command', 'base'),
        ('rivals', 'torso'),
    }
    assert '/hdas/camera_head/left_raw' in failed['topic', 'head']['advice']
    assert failed['rivals', 'torso']['found'].startswith('/teleop publishes on')
    assert failed['command', 'base']['expected'] == 'geometry_msgs/msg/Twist'
    assert those(report, 'WARN')['running', 'action_dispatcher']
    assert all(f['expected'] and f['advice'] for f in failed.values())


@pytest.fixture
def listening(tmp_path):
    """Return a listener beside a node in this process, that of a robot with two topics."""
    arm = small_arm(tmp_path)
    context = kept_context(OTHER_DOMAIN)
    node = Node('driver', context=context, use_global_arguments=False)
    one = Listener(context, arm)
    yield node, one
    one.close()
    node.destroy_node()


def test_it_notes_stamps_sizes_names_and_the_latched_urdf_and_publishes_nothing(listening):
    node, one = listening
    images = node.create_publisher(CompressedImage, 'scene/image', 5)
    states = node.create_publisher(JointState, 'joint_states', 5)
    node.create_publisher(String, 'robot_description', LATCHED).publish(String(data='<robot/>'))
    heard = one.heard
    end, sent = time.monotonic() + PATIENT, 0

    def enough():
        return len(heard['/scene/image'].arrivals) > 3 and len(heard['/joint_states'].messages) > 1

    while not enough() and time.monotonic() < end:
        sent += 1
        image = CompressedImage(format='jpeg')
        image.data.frombytes(jpeg(value=7))
        if sent > 1:
            image.header.stamp = node.get_clock().now().to_msg()
        images.publish(image)
        states.publish(JointState(name=['a', 'b'], position=[0.1, 0.2]))
        states.publish(JointState(name=['finger'], position=[0.01]))
        one.spin(0.05)
    assert enough()
    one.spin(PATIENT, lambda: 'robot_description' in one._latched)
    snapshot = one.snapshot(1.0, {})
    picture = snapshot.of('/scene/image')
    assert list(picture.sizes) == [(96, 96)]
    assert len(picture.pictures) == 1
    assert picture.undecodable == ''
    assert all(-1.0 < a.wall - a.sent_at < 30.0 for a in picture.arrivals if a.sent_at)
    assert set(snapshot.of('/joint_states').messages) == {('a', 'b'), ('finger',)}
    assert snapshot.robot_description == '<robot/>'
    assert '/driver' in snapshot.nodes
    assert not [n for n in snapshot.nodes if 'doctor' in n]
    assert [p.node for p in snapshot.publishers['/scene/image']] == ['/driver']
    assert '/scene/image' not in snapshot.subscriptions
    assert {p.topic_name for p in one.node.publishers} <= {'/parameter_events'}


def test_two_nodes_of_one_name_are_two_entries_though_everything_else_is_the_same(listening):
    _, one = listening
    context = kept_context(OTHER_DOMAIN)
    twins = [
        Node('action_dispatcher', context=context, use_global_arguments=False) for _ in range(2)
    ]
    try:
        assert one.spin(PATIENT, lambda: one.nodes().count('/action_dispatcher') == 2)
    finally:
        for twin in twins:
            twin.destroy_node()


def test_what_can_forbid_motion_is_listened_to_whatever_its_type(tmp_path):
    key = 'components: ["arm", "gripper", "base"]'
    arm = small_arm(
        tmp_path, (key, f'{key}\n      estop.enable: true\n      permit.topic: "mode"')
    )
    context = kept_context(OTHER_DOMAIN)
    node = Node('remote', context=context, use_global_arguments=False)
    modes = node.create_publisher(Int32, 'mode', 1)
    node.create_publisher(Bool, 'estop', 1)
    one = Listener(context, arm)

    def told():
        modes.publish(Int32(data=5))
        one.look()
        return '/mode' in one._spoken

    try:
        assert one.spin(PATIENT, told)
        spoken = one.snapshot(1.0, {}).spoken
    finally:
        one.close()
        node.destroy_node()
    assert spoken['/mode'].message.data == 5
    assert spoken['/estop'].message is None


def test_an_image_that_cannot_be_used_is_counted_with_its_reason(listening):
    node, one = listening
    images = node.create_publisher(CompressedImage, 'scene/image', 5)
    end = time.monotonic() + PATIENT
    while not one.heard['/scene/image'].refused and time.monotonic() < end:
        images.publish(CompressedImage(format='jpeg', data=b'no picture'))
        one.spin(0.05)
    (why,) = one.heard['/scene/image'].refused
    assert 'not an image' in why


def test_controllers_are_asked_for_only_where_their_messages_can_be_read(monkeypatch):
    kind = 'controller_manager_msgs/srv/ListControllers'
    services = {'/controller_manager/list_controllers': (kind, '/controller_manager')}
    answer = types.SimpleNamespace(
        controller=[types.SimpleNamespace(name='arm', state='inactive', type='jtc')]
    )
    asked = []

    class Asking:
        def call(self, kind, name, request):
            asked.append(name)
            return answer

    monkeypatch.setitem(sys.modules, 'controller_manager_msgs', None)
    found, why = Listener._controllers(Asking(), services)
    assert found is None
    assert 'no controller_manager_msgs' in why
    assert Listener._controllers(Asking(), {}) == (None, '')
    assert asked == []
    # A stand-in with the fields of the real type: it is part of ROS, not of PyPI.
    messages = types.ModuleType('controller_manager_msgs.srv')
    messages.ListControllers = type('ListControllers', (), {'Request': object})
    monkeypatch.setitem(sys.modules, 'controller_manager_msgs', types.ModuleType('package'))
    monkeypatch.setitem(sys.modules, 'controller_manager_msgs.srv', messages)
    found, why = Listener._controllers(Asking(), services)
    assert [(c.full_name, c.state) for c in found] == [('/arm', 'inactive')]
    assert asked == ['/controller_manager/list_controllers']
    answer = None
    assert Listener._controllers(Asking(), services)[0] is None


def test_the_parameters_of_a_commanded_controller_are_read(tmp_path):
    arm = small_arm(tmp_path)
    node = Node('arm_controller', context=kept_context(OTHER_DOMAIN), use_global_arguments=False)
    node.declare_parameter('open_loop_control', False)
    one = Listener(node.context, arm)
    one._executor.add_node(node)
    try:
        assert one.spin(PATIENT, lambda: '/arm_controller' in one.nodes())
        found = one.snapshot(1.0, {}).controller_parameters
    finally:
        one._executor.remove_node(node)
        one.close()
        node.destroy_node()
    assert found['/arm_controller']['open_loop_control'] is False
    assert list(found) == ['/arm_controller']


def test_a_node_that_does_not_answer_costs_bounded_time_and_has_no_parameters(
    listening, monkeypatch
):
    _, one = listening
    monkeypatch.setattr(module, 'PATIENCE', 0.2)
    begin = time.monotonic()
    assert one.parameters('/nobody') == {}
    assert time.monotonic() - begin < 5.0


def test_parameters_of_a_running_node_are_read(listening):
    node, one = listening
    node.declare_parameter('left.topic', '/x')
    node.declare_parameter('sizes', [1, 2])
    one._executor.add_node(node)
    found = one.parameters('/driver')
    one._executor.remove_node(node)
    assert found['left.topic'] == '/x'
    assert list(found['sizes']) == [1, 2]
    assert found['use_sim_time'] is False
