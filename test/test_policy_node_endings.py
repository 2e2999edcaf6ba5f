"""How the policy node ends where something else does not: an inference, a goal, a transition."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from goal_helpers import Client, start
import policy_node_helpers as h
from rclpy.lifecycle import TransitionCallbackReturn

pytestmark = pytest.mark.ros

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


def stick(rig):
    """Begin an inference that does not end before `rig.policy.gate` is set."""
    rig.policy.entered.clear()
    rig.policy.gate.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)


def test_inference_that_does_not_end_keeps_the_policy_from_a_second_thread(
    rig, capfd, monkeypatch
):
    monkeypatch.setattr('faster_vla_ros.policy_node.STOP_TIMEOUT', 0.2)
    rig.say('grasp the cup')
    stick(rig)
    worker = rig.node.worker
    assert rig.node.trigger_deactivate() == SUCCESS
    rig.until(lambda: rig.chunks and rig.chunks[-1].num_steps == 0)
    capfd.readouterr()
    assert rig.node.trigger_activate() == FAILURE
    assert rig.node.trigger_cleanup() == FAILURE
    log = capfd.readouterr().err
    assert 'cannot activate: an old inference still runs, try again' in log
    assert 'cannot clean up: an old inference still runs, try again' in log
    assert not rig.node.active
    rig.policy.gate.set()
    assert worker.join(h.WAIT)
    assert not rig.moving_chunks()
    assert rig.node.trigger_activate() == SUCCESS
    rig.follow()


def test_hold_and_disable_go_out_before_the_wait_for_an_inference(rig, dispatcher, monkeypatch):
    start(rig, Client(rig), motion=True)
    stick(rig)
    sent = []
    monkeypatch.setattr(
        rig.node.worker,
        'join',
        lambda timeout: sent.append((rig.node.chunks.sequence_id, timeout)) or True,
    )
    count = rig.node.chunks.sequence_id
    rig.node.stop(3.0)
    assert sent == [(count + 1, 3.0)]
    h.wait(lambda: dispatcher.calls == [True, False])  # nothing of the node's was spun


def test_shutdown_waits_less_for_an_inference_than_its_starter_for_the_process(rig, monkeypatch):
    waited = []
    monkeypatch.setattr(rig.node.worker, 'join', lambda timeout: waited.append(timeout) or True)
    rig.node.trigger_shutdown()
    assert waited == [3.0]


@pytest.mark.parametrize('moment', ['following', 'enabling'])
def test_error_in_a_transition_disables_the_motion_of_the_goal(
    rig, dispatcher, capfd, monkeypatch, moment
):
    if moment == 'enabling':
        dispatcher.delay = 0.5
        Client(rig).send(motion=True)
        rig.until(lambda: dispatcher.calls)
    else:
        start(rig, Client(rig), motion=True)

    def fail(*_):
        raise MemoryError('of the device')

    monkeypatch.setattr(rig.node.status, 'set', fail)
    rig.node.trigger_deactivate()
    assert rig.node.policy is None
    h.wait(lambda: dispatcher.calls == [True, False])
    rig.spin(0.5)
    log = capfd.readouterr().err
    assert 'on_deactivate failed' in log
    assert 'InvalidHandle' not in log
    assert 'Error raised in execute callback' not in log
    rig.up().follow()
