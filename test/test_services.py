"""Answers of services that the asker cannot hear yet are sent again, and only they."""

import time
import types
import warnings

import pytest

pytest.importorskip('rclpy')

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, qos_profile_services_default, QoSProfile
from rclpy.task import Future
from ros_contexts import kept_context, Spinning
from std_srvs.srv import Trigger

from faster_vla_ros import services
from faster_vla_ros.doctor.asking import Asker

pytestmark = pytest.mark.ros
LOST = 'failed to send response (timeout): client will not receive response'


class Rig(Spinning):
    """A node with a service and what it logs; spins on demand."""

    def __init__(self):
        self.context = kept_context(46)
        self.node = Node('server', context=self.context, use_global_arguments=False)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.calls, self.logged = [], []

    def answer(self, request, response):
        self.calls.append(time.monotonic())
        response.success = True
        return response

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def rig(monkeypatch):
    made = Rig()
    monkeypatch.setattr(services, 'RETRY', 0.05)
    logger = types.SimpleNamespace(warning=made.logged.append)
    monkeypatch.setattr(made.node, 'get_logger', lambda: logger)
    yield made
    made.close()


@pytest.fixture
def deaf(rig):
    """A client whose answers never come, as a server that has not met it yet sees it."""
    profile = QoSProfile(
        depth=qos_profile_services_default.depth, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    client = rig.node.create_client(Trigger, 'ask', qos_profile=profile)
    yield client
    rig.node.destroy_client(client)


def lossy(rig, monkeypatch, lose):
    """Return a service whose answers are lost while `lose` raises or warns, and its answers."""
    sent = []

    class Made:
        srv_name = '/ask'

        def send_response(self, response, header):
            sent.append((response, header))
            lose(len(sent))

    monkeypatch.setattr(rig.node, 'create_service', lambda *_: Made())
    return services.service(rig.node, Trigger, 'ask', rig.answer), sent


def warn(count, until=3):
    if count < until:
        warnings.warn(LOST, RuntimeWarning, stacklevel=1)


def fail(count, until=3):
    if count < until:
        raise RuntimeError('failed to send response')


@pytest.mark.parametrize('lose', [warn, fail])
def test_a_lost_answer_is_sent_again_until_it_is_heard(rig, monkeypatch, lose):
    service, sent = lossy(rig, monkeypatch, lose)
    timers = len(list(rig.node.timers))
    service.send_response('answer', 'header')
    assert len(sent) == 1
    rig.until(lambda: len(sent) == 3)
    rig.spin(0.3)
    assert sent == [('answer', 'header')] * 3
    assert len(list(rig.node.timers)) == timers
    assert rig.logged == []


@pytest.mark.parametrize('lose', [warn, fail])
def test_it_is_given_up_after_a_few_times_and_said_once(rig, monkeypatch, lose):
    service, sent = lossy(rig, monkeypatch, lambda count: lose(count, until=1000))
    timers = len(list(rig.node.timers))
    service.send_response('answer', 'header')
    rig.until(lambda: rig.logged)
    rig.spin(0.3)
    assert len(sent) == services.NUM_TRIES
    assert len(list(rig.node.timers)) == timers
    [said] = rig.logged
    assert said.startswith('/ask: nobody heard the answer: failed to send response')


def test_an_answer_that_is_heard_is_sent_once_and_needs_no_timer(rig, monkeypatch):
    service, sent = lossy(rig, monkeypatch, lambda _: None)
    timers = len(list(rig.node.timers))
    service.send_response('answer', 'header')
    rig.spin(0.2)
    assert len(sent) == 1
    assert len(list(rig.node.timers)) == timers


def test_a_warning_of_another_thread_is_no_lost_answer_and_is_shown(rig, monkeypatch):
    def other(_):
        warnings.warn('something else', UserWarning, stacklevel=1)

    service, sent = lossy(rig, monkeypatch, other)
    with pytest.warns(UserWarning, match='something else'):
        service.send_response('answer', 'header')
    rig.spin(0.2)
    assert len(sent) == 1


def test_the_answer_of_a_service_that_is_gone_is_dropped(rig):
    made = services.service(rig.node, Trigger, 'ask', rig.answer)
    timers = len(list(rig.node.timers))
    rig.node.destroy_service(made)
    made.send_response(Trigger.Response(), 'header')
    rig.spin(0.2)
    assert len(list(rig.node.timers)) == timers
    assert rig.logged == []


@pytest.mark.filterwarnings('error')
def test_rclpy_tells_of_a_lost_answer_and_the_request_is_carried_out_once(rig, deaf):
    services.service(rig.node, Trigger, 'ask', rig.answer)
    rig.spin(0.3)  # the client cannot tell when it is ready
    future = deaf.call_async(Trigger.Request())
    rig.until(lambda: rig.logged)
    assert 'nobody heard the answer' in rig.logged[0]
    assert len(rig.calls) == 1
    assert not future.done()
    # Others are answered as before.
    client = rig.node.create_client(Trigger, 'ask')
    rig.until(client.service_is_ready)
    heard = client.call_async(Trigger.Request())
    rig.until(heard.done)
    assert heard.result().success
    rig.node.destroy_client(client)


def test_the_doctor_asks_again_where_the_server_does_not_answer_again(rig):
    lost = []

    def service_that_loses_its_first_answer():
        made = rig.node.create_service(Trigger, 'ask', rig.answer)
        send = made.send_response
        made.send_response = lambda *a: send(*a) if len(rig.calls) > 1 else lost.append(a)

    service_that_loses_its_first_answer()
    asker = Asker(rig.context, '')
    asker._executor.add_node(rig.node)
    try:
        assert asker.call(Trigger, '/ask', Trigger.Request()).success
    finally:
        asker.close()
    assert len(lost) == 1
    assert len(rig.calls) == 2


# --- asking again -----------------------------------------------------------------------------


class Client:
    """A client whose requests go to nobody, but for those that are answered below."""

    def __init__(self):
        self.asked = []

    def call_async(self, request):
        self.asked.append((request, Future()))
        return self.asked[-1][1]


def test_who_gets_no_answer_asks_again_after_a_while_and_takes_the_first():
    client = Client()
    asking = services.Asking(client, 'request', patience=0.1)
    assert client.asked == []
    assert not asking.answered()
    assert not asking.answered()
    assert len(client.asked) == 1
    time.sleep(0.11)
    assert not asking.answered()
    assert [request for request, _ in client.asked] == ['request', 'request']
    client.asked[1][1].set_result('from the successor')
    assert asking.answered()
    assert asking.answer() == 'from the successor'
    time.sleep(0.11)
    assert asking.answered()
    assert len(client.asked) == 2
