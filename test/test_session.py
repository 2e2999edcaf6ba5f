"""A client of a graph: instructions, services, readiness, and the commands built on them."""

import functools
import os
import threading
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from ros_contexts import kept_context
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from faster_vla_msgs.msg import DispatcherState, GuardState, PolicyStatus
from faster_vla_ros import session as module
from faster_vla_ros.cli import main
from faster_vla_ros.compat.fastdds import profile_variable
from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.services import Asking, service
from faster_vla_ros.session import (
    isolated_environment,
    LATCHED,
    own_domain,
    OWN_DOMAINS,
    Session,
    SessionError,
)

pytestmark = pytest.mark.ros
DOMAIN = 43
PATIENT = 30.0
SHORT = 0.3


@pytest.fixture(scope='module')
def session():
    with Session(domain=DOMAIN, name='test') as made:
        yield made


class Peer:
    """Another node, spinning in a thread: stands for dispatcher, policy and robot."""

    def __init__(self, name='policy_node', namespace=''):
        context = kept_context(DOMAIN)
        self.node = Node(name, context=context, namespace=namespace or None)
        self.heard, self.asked = [], []
        self.refusal = ''
        self.gate = threading.Event()  # services wait for it
        self.gate.set()
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self):
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def listen(self):
        take = lambda msg: self.heard.append(msg.data)  # noqa: E731
        self.node.create_subscription(String, 'instruction', take, 1)

    def serve(self, kind, name):
        def answer(request, response):
            self.gate.wait(PATIENT)
            self.asked.append((name, getattr(request, 'data', None)))
            response.success, response.message = not self.refusal, self.refusal
            return response

        service(self.node, kind, name, answer)

    def close(self):
        self._stop.set()
        self.gate.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def peer():
    made = Peer()
    yield made
    made.close()


def on_dispatcher(peer):
    peer.serve(SetBool, '/action_dispatcher/enable')
    peer.serve(Trigger, '/action_dispatcher/stop')
    peer.serve(Trigger, '/action_dispatcher/reset')


# --- instructions -----------------------------------------------------------------------------


def test_say_without_a_listener_is_an_error_that_says_so(session):
    start = time.monotonic()
    with pytest.raises(SessionError, match='/policy_node listens to the topic /instruction'):
        session.say('pick up the red block', timeout=SHORT)
    assert time.monotonic() - start < PATIENT


@pytest.mark.parametrize('other', [('recorder', ''), ('policy_node', '/robot1/left')])
def test_say_does_not_take_somebody_else_for_the_policy(session, peer, other):
    echo = Peer(*other)
    try:
        echo.node.create_subscription(String, '/instruction', lambda _: None, 1)
        topic = session._instructions
        assert session.spin_until(topic.get_subscription_count, PATIENT)
        with pytest.raises(SessionError, match='no node /policy_node listens'):
            session.say('pick up the red block', timeout=SHORT)
        peer.listen()
        session.say('pick up the red block', timeout=PATIENT)
        assert session.spin_until(lambda: peer.heard == ['pick up the red block'], PATIENT)
    finally:
        echo.close()


def test_say_in_a_namespace_is_meant_for_the_policy_there():
    there = Peer(namespace='robot1')
    try:
        there.listen()
        with Session(domain=DOMAIN, name='there', namespace='/robot1/') as session:
            session.say('pick up the red block', timeout=PATIENT)
            assert session.spin_until(lambda: there.heard, PATIENT)
    finally:
        there.close()


def test_say_waits_for_a_listener_that_comes_later(session, peer):
    later = threading.Timer(0.5, peer.listen)
    later.start()
    before = session.now_ns()
    at = session.say('pick up the red block', timeout=PATIENT)
    later.join()
    assert session.spin_until(lambda: peer.heard == ['pick up the red block'], PATIENT)
    assert at - before > 0.3e9  # nothing was sent before somebody could hear it


def test_say_delivers_every_instruction_in_order_even_if_sent_at_once(session, peer):
    peer.listen()
    for text in ('one', '', 'grüner Block'):
        session.say(text, timeout=PATIENT)
        assert session.spin_until(lambda text=text: peer.heard[-1:] == [text], PATIENT)
    assert peer.heard == ['one', '', 'grüner Block']


# --- services ---------------------------------------------------------------------------------


def test_a_service_nobody_offers_is_named(session):
    with pytest.raises(SessionError, match='nobody offers the service /action_dispatcher/stop'):
        session.call(Trigger, '/action_dispatcher/stop', Trigger.Request(), timeout=SHORT)


def test_a_service_that_does_not_answer_is_given_up(session, peer):
    on_dispatcher(peer)
    session.trigger('/action_dispatcher/stop')
    peer.gate.clear()
    with pytest.raises(SessionError, match='no answer from the service /action_dispatcher/stop'):
        session.call(Trigger, '/action_dispatcher/stop', Trigger.Request(), timeout=SHORT)


def test_a_request_that_a_dead_server_took_is_sent_again(session, peer, monkeypatch):
    on_dispatcher(peer)
    monkeypatch.setattr(module, 'Asking', functools.partial(Asking, patience=SHORT))
    create, lost = session.node.create_client, []

    def create_client(*arguments):
        client = create(*arguments)
        ask = client.call_async

        def call_async(request):
            if lost:
                return ask(request)
            lost.append(request)
            return Future()

        monkeypatch.setattr(client, 'call_async', call_async)
        return client

    monkeypatch.setattr(session.node, 'create_client', create_client)
    session.trigger('/action_dispatcher/stop')
    assert len(lost) == 1


def test_a_refusal_carries_the_services_own_reason(session, peer):
    on_dispatcher(peer)
    peer.refusal = 'stopped: reset first'
    with pytest.raises(SessionError, match='/enable refused: stopped: reset first'):
        session.enable(True)
    with pytest.raises(SessionError, match='/reset refused: stopped: reset first'):
        session.trigger('/action_dispatcher/reset')


def test_a_guard_that_is_met_in_time_is_no_refusal(session, peer, monkeypatch):
    on_dispatcher(peer)
    peer.refusal = 'the guard does not hear us on /base yet'
    allow = threading.Timer(SHORT, lambda: setattr(peer, 'refusal', ''))
    allow.start()
    session.enable(True)
    allow.join()
    peer.refusal = 'stopped'
    peer.refusal, before = 'stopped', len(peer.asked)
    with pytest.raises(SessionError, match='refused: stopped'):
        session.enable(True)
    assert len(peer.asked) == before + 1
    monkeypatch.setattr('faster_vla_ros.session.MEETING_TIME', 2 * SHORT)
    peer.refusal = 'the guard says nothing'
    with pytest.raises(SessionError, match='refused: the guard says nothing'):
        session.enable(True)


# --- waiting ----------------------------------------------------------------------------------


def test_spin_until_tells_whether_the_condition_came_true(session):
    assert session.spin_until(lambda: True, 0.0)
    assert not session.spin_until(lambda: False, SHORT)


def test_what_the_check_raises_ends_the_wait(session):
    class DeadError(Exception):
        pass

    def check():
        raise DeadError

    with pytest.raises(DeadError):
        session.spin_until(lambda: False, PATIENT, check)


def publish(peer, kind, topic, msg):
    peer.node.create_publisher(kind, topic, LATCHED).publish(msg)


def test_a_graph_is_ready_when_every_node_has_said_so(session, peer):
    publish(peer, Bool, '/mujoco_robot/task_success', Bool())
    publish(peer, DispatcherState, '/action_dispatcher/state', DispatcherState())
    publish(peer, GuardState, '/guard/state', GuardState())
    status = PolicyStatus(state=PolicyStatus.STATE_IDLE)
    publish(peer, PolicyStatus, '/policy_node/status', status)
    session.wait_until_ready(r1lite_wbc(), PATIENT)


@pytest.mark.parametrize('state', ['IDLE', 'WARMING_UP', 'RUNNING', 'STALE_OBSERVATION'])
def test_a_policy_that_waits_for_a_camera_is_ready_all_the_same(session, peer, state):
    status = PolicyStatus(state=getattr(PolicyStatus, f'STATE_{state}'))
    publish(peer, PolicyStatus, '/policy_node/status', status)
    session.wait_until_ready(r1lite_wbc(nodes=['policy_node']), PATIENT)


def test_silent_nodes_are_named(session, peer):
    publish(peer, Bool, '/mujoco_robot/task_success', Bool())
    heard = []
    session.node.create_subscription(Bool, '/mujoco_robot/task_success', heard.append, LATCHED)
    assert session.spin_until(lambda: heard, PATIENT)
    with pytest.raises(SessionError) as raised:
        session.wait_until_ready(r1lite_wbc(), 2.0)
    text = str(raised.value)
    assert 'action_dispatcher (silent)' in text and 'policy_node (silent)' in text
    assert 'mujoco_robot' not in text


def test_a_policy_with_a_fault_ends_the_wait_at_once(session, peer):
    fault = PolicyStatus(state=PolicyStatus.STATE_FAULT, message='out of memory')
    publish(peer, PolicyStatus, '/policy_node/status', fault)
    with pytest.raises(SessionError, match='the policy reports a fault: out of memory'):
        session.wait_until_ready(r1lite_wbc(nodes=['policy_node']), PATIENT)


# --- domain -----------------------------------------------------------------------------------


def test_the_users_domain_wins_and_otherwise_it_is_one_of_ours(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '7')
    assert own_domain() == 7
    monkeypatch.setenv('ROS_DOMAIN_ID', '')
    assert own_domain() in OWN_DOMAINS
    monkeypatch.setenv('ROS_DOMAIN_ID', 'seven')
    with pytest.raises(SessionError, match='ROS_DOMAIN_ID'):
        own_domain()


def test_an_isolated_graph_stays_on_this_machine():
    assert isolated_environment(7) == {
        'ROS_DOMAIN_ID': '7',
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }


def test_a_session_sets_the_fast_dds_profile_unless_the_user_has(monkeypatch):
    variable = profile_variable()
    for given, expected in (('', 'fastdds_shm.xml'), ('/mine.xml', '/mine.xml')):
        monkeypatch.setenv(variable, given)
        Session(domain=DOMAIN, name='profile').close()
        assert os.environ[variable].endswith(expected)


# --- commands ---------------------------------------------------------------------------------


@pytest.fixture
def in_domain(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(DOMAIN))


@pytest.mark.parametrize(
    ('command', 'asked', 'said'),
    [
        ('enable', ('/action_dispatcher/enable', True), 'enabled\n'),
        ('disable', ('/action_dispatcher/enable', False), 'disabled\n'),
        ('stop', ('/action_dispatcher/stop', None), 'done\n'),
        ('reset', ('/action_dispatcher/reset', None), 'done\n'),
    ],
)
def test_a_command_asks_the_dispatcher(peer, in_domain, capfd, command, asked, said):
    on_dispatcher(peer)
    assert main([command]) == 0
    assert peer.asked == [asked]
    assert capfd.readouterr().out == said


def test_a_refused_command_ends_with_status_2_and_the_reason(peer, in_domain, capfd):
    on_dispatcher(peer)
    peer.refusal = 'stopped by hand'
    assert main(['enable']) == 2
    assert 'faster-vla enable: ' in (text := capfd.readouterr().err) and 'stopped by hand' in text


def test_a_command_without_a_graph_ends_with_status_2(in_domain, capfd, monkeypatch):
    absent = Session.call
    monkeypatch.setattr(
        module.Session,
        'call',
        lambda self, kind, name, request: absent(self, kind, name, request, timeout=SHORT),
    )
    assert main(['stop']) == 2
    assert 'nobody offers the service /action_dispatcher/stop' in capfd.readouterr().err


def test_the_say_command_delivers_its_text(peer, in_domain):
    peer.listen()
    assert main(['say', 'drive to the yellow post']) == 0
    deadline = time.monotonic() + PATIENT
    while not peer.heard and time.monotonic() < deadline:
        time.sleep(0.05)
    assert peer.heard == ['drive to the yellow post']


def test_a_robot_in_a_namespace_is_spoken_to_by_its_own_names(monkeypatch):
    asked = []

    def call(self, kind, name, request, timeout=0.0):
        asked.append(name)
        return kind.Response(success=True)

    monkeypatch.setattr(Session, 'call', call)
    with Session(domain=DOMAIN, name='namespaced', namespace='robot1') as session:
        assert session._instructions.topic_name == '/robot1/instruction'
        session.enable(True)
        session.trigger('/action_dispatcher/stop')
    assert asked == ['/robot1/action_dispatcher/enable', '/robot1/action_dispatcher/stop']
