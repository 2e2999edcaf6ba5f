"""Goals of `execute_instruction`: one at a time, and motion only for those that ask for it."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from action_msgs.msg import GoalStatus
from goal_helpers import Client, Dispatcher, Result, SERVICE, start
import policy_node_helpers as h
from std_msgs.msg import String
from std_srvs.srv import Trigger

from faster_core.errors import DecodeError
from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros.goals import GoalServer

pytestmark = pytest.mark.ros


def test_goal_with_motion_enables_the_dispatcher_and_disables_it_afterwards(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, motion=True, limit=2.0)
    assert dispatcher.calls == [True]
    rig.sense()
    rig.until(rig.moving_chunks)
    chunk = rig.moving_chunks()[0]
    assert bytes(chunk.goal_id.uuid) == bytes(handle.goal_id.uuid)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (result.error_code, result.num_chunks) == (Result.TIME_LIMIT_REACHED, 1)
    assert result.total_elapsed_time.sec >= 2
    assert dispatcher.calls == [True, False]
    assert rig.chunks[-1].num_steps == 0
    assert rig.node.instruction == ''
    assert client.feedback[-1].sequence_id == chunk.sequence_id
    assert client.feedback[-1].inference_ms > 0.0
    assert 0 <= client.feedback[-1].remaining.sec < 2


def test_goal_ends_when_the_dispatcher_disables_its_motion(rig, dispatcher):
    dispatcher.say(False, 'before the goal')
    client = Client(rig)
    handle = start(rig, client, motion=True, limit=20.0)
    goal = rig.node.goals._goal
    dispatcher.say(True)
    rig.until(lambda: goal.moving)
    dispatcher.say(False, 'estop')
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_ABORTED
    assert result.error_code == Result.COMMAND_REJECTED
    assert 'disabled motion: estop' in result.error_msg
    assert dispatcher.calls == [True, False]
    assert rig.node.instruction == ''


def test_goal_ends_when_its_motion_was_disabled_before_anybody_heard_of_it(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, motion=True, limit=20.0)
    dispatcher.say(False, 'said before it was enabled')
    rig.spin(0.3)
    assert not rig.node.goals._goal.end.done()
    dispatcher.say(False, 'feedback_stale')
    assert 'disabled motion: feedback_stale' in client.result(handle)[1].error_msg


def test_goal_without_motion_goes_on_whatever_the_dispatcher_says(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, limit=1.0)
    for enabled in (True, False, False):
        dispatcher.say(enabled)
        rig.spin(0.1)
    assert client.result(handle)[1].error_code == Result.TIME_LIMIT_REACHED


def test_goal_without_motion_never_calls_the_dispatcher(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, limit=0.5)
    rig.sense()
    rig.until(rig.moving_chunks)
    assert client.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED
    assert dispatcher.calls == []


def test_old_instruction_is_dropped_before_motion_is_enabled(rig, dispatcher):
    rig.follow('grasp the bowl')
    client = Client(rig)
    handle = start(rig, client, motion=True, limit=0.5)
    assert dispatcher.followed[0] == ''
    client.result(handle)


@pytest.mark.parametrize(
    ('options', 'code'),
    [
        ({'text': ' '}, Result.EMPTY_INSTRUCTION),
        ({'text': 'xyzzy'}, Result.UNKNOWN),
        ({'text': 'a' * 10_000}, Result.UNKNOWN),
        ({'limit': -1.0}, Result.UNKNOWN),
    ],
)
def test_bad_goal_is_aborted_without_enabling_motion(rig, dispatcher, options, code):
    status, result = Client(rig).run(motion=True, **options)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, code)
    assert result.error_msg
    assert dispatcher.calls == []
    assert not rig.node.goals.running


def test_goal_is_aborted_when_the_dispatcher_refuses(rig, dispatcher):
    dispatcher.answer = (False, 'stopped: call reset first')
    status, result = Client(rig).run(motion=True)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.COMMAND_REJECTED)
    assert 'stopped: call reset first' in result.error_msg
    assert dispatcher.calls == [True, False]
    assert rig.node.instruction == ''


def test_goal_is_aborted_when_there_is_no_dispatcher(rig):
    status, result = Client(rig).run(motion=True)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.COMMAND_REJECTED)
    assert f'no service {SERVICE}' in result.error_msg


def test_late_answer_of_the_dispatcher_does_not_leave_motion_enabled(rig, dispatcher, monkeypatch):
    monkeypatch.setattr('faster_vla_ros.goals.NUM_LOOKS', 3)
    dispatcher.delay = 1.0
    _status, result = Client(rig).run(motion=True)
    assert result.error_code == Result.COMMAND_REJECTED
    assert 'did not answer' in result.error_msg
    rig.until(lambda: dispatcher.calls == [True, False])


def test_an_answer_is_waited_for_although_the_executor_was_busy_meanwhile(
    rig, dispatcher, monkeypatch
):
    monkeypatch.setattr('faster_vla_ros.goals.NUM_LOOKS', 5)
    client = Client(rig)
    handle = start(rig, client, motion=True)
    finish = GoalServer._finish

    def slow(*args):
        finish(*args)
        time.sleep(1.5)  # longer than five looks last

    monkeypatch.setattr(GoalServer, '_finish', slow)
    logged = []
    monkeypatch.setattr(rig.node.get_logger(), 'error', logged.append)
    handle.cancel_goal_async()
    assert client.result(handle)[0] == GoalStatus.STATUS_CANCELED
    assert dispatcher.calls == [True, False]
    assert logged == []


def test_second_goal_is_rejected_while_one_runs(rig):
    client = Client(rig)
    first = start(rig, client)
    assert not client.send('grasp the bowl').accepted
    assert rig.node.instruction == 'grasp the cup'
    first.cancel_goal_async()
    assert client.result(first)[0] == GoalStatus.STATUS_CANCELED
    third = client.send('grasp the bowl', limit=0.2)
    assert third.accepted
    client.result(third)


def test_cancelled_goal_holds_and_disables_motion(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, motion=True)
    handle.cancel_goal_async()
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, Result.PREEMPTED)
    assert dispatcher.calls == [True, False]
    assert rig.chunks[-1].num_steps == 0


def test_instruction_on_the_topic_preempts_the_goal_and_is_followed(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, motion=True)
    rig.instruction.publish(String(data='grasp the bowl'))
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.PREEMPTED)
    assert rig.node.instruction == 'grasp the bowl'
    assert dispatcher.calls == [True, False]
    rig.sense()
    rig.until(rig.moving_chunks)
    assert not any(rig.moving_chunks()[0].goal_id.uuid)


def test_instruction_on_the_topic_during_enabling_is_followed_once_motion_is_off(rig, dispatcher):
    dispatcher.delay = 0.5
    client = Client(rig)
    handle = client.send(motion=True)
    rig.until(lambda: dispatcher.calls)
    generation = rig.node.instructions.generation
    rig.instruction.publish(String(data='grasp the bowl'))
    rig.until(lambda: rig.node.instructions.generation > generation)
    while rig.node.goals.running:
        assert rig.node.instruction == ''
        rig.executor.spin_once(timeout_sec=0.05)
    assert dispatcher.calls == [True, False]
    assert client.result(handle)[1].error_code == Result.PREEMPTED
    assert rig.node.instruction == 'grasp the bowl'


@pytest.mark.parametrize('answer', ['refused', 'none'])
def test_instruction_on_the_topic_is_dropped_where_motion_may_still_be_on(
    rig, dispatcher, monkeypatch, answer
):
    client = Client(rig)
    handle = start(rig, client, motion=True)
    if answer == 'none':
        monkeypatch.setattr('faster_vla_ros.goals.NUM_LOOKS', 2)
        dispatcher.delay = 1.0
    else:
        dispatcher.answer = (False, 'busy')
    rig.instruction.publish(String(data='grasp the bowl'))
    assert client.result(handle)[1].error_code == Result.PREEMPTED
    rig.wait_status(PolicyStatus.STATE_IDLE, 'refused: motion could not be disabled after the')
    assert rig.node.instruction == ''
    # Said again by somebody who has seen that, it is followed.
    rig.say('grasp the bowl')
    assert rig.node.instruction == 'grasp the bowl'


@pytest.mark.parametrize('how', ['cancel', 'empty instruction', 'deactivate'])
def test_what_waits_for_the_end_of_a_goal_can_be_taken_back(rig, dispatcher, how):
    client = Client(rig)
    handle = start(rig, client, motion=True)
    dispatcher.delay = 1.0
    rig.say('grasp the bowl')
    assert rig.node.goals.running
    if how == 'cancel':
        assert rig.call(Trigger, 'cancel_instruction').message == 'cancelled'
    elif how == 'deactivate':
        rig.node.trigger_deactivate()
        rig.node.trigger_activate()
    else:
        rig.say('')
    client.result(handle)
    rig.spin(0.2)
    assert rig.node.instruction == ''


def test_default_instruction_of_a_new_activation_waits_for_the_end_of_the_goal(context):
    with h.rig(context, default_instruction='grasp the bowl') as rig:
        dispatcher = Dispatcher(context, rig)
        try:
            rig.until(rig.node.goals._enable.service_is_ready)
            client = Client(rig)
            handle = client.send(motion=True)
            rig.until(lambda: rig.node.instruction == 'grasp the cup')
            dispatcher.delay = 0.5
            rig.node.trigger_deactivate()
            rig.node.trigger_activate()
            assert rig.node.instruction == ''
            assert client.result(handle)[1].error_code == Result.NOT_ACTIVE
            assert dispatcher.calls == [True, False]
            assert rig.node.instruction == 'grasp the bowl'
        finally:
            dispatcher.close()


def test_policy_is_asked_once_about_a_goal_with_nothing_followed_meanwhile(rig, dispatcher):
    rig.follow('grasp the bowl')
    asked = []
    rig.policy.check_instruction = lambda text: asked.append((text, rig.node.instruction))
    client = Client(rig)
    client.result(start(rig, client, motion=True, limit=0.3))
    assert asked == [('grasp the cup', '')]


def test_goal_that_is_ended_before_it_begins_enables_nothing(rig, dispatcher, monkeypatch):
    goals = rig.node.goals
    accepted = goals._new_goal

    def preempted(**fields):
        goal = accepted(**fields)
        goal.end.set_result((Result.PREEMPTED, 'another instruction came'))
        return goal

    monkeypatch.setattr(goals, '_new_goal', preempted)
    assert Client(rig).run(motion=True)[1].error_code == Result.PREEMPTED
    assert dispatcher.calls == []


def test_goal_of_an_inactive_node_is_aborted_without_motion(rig, dispatcher):
    rig.node.trigger_deactivate()
    status, result = Client(rig).run(motion=True)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.NOT_ACTIVE)
    assert dispatcher.calls == []


def test_deactivation_ends_the_goal_and_disables_motion(rig, dispatcher):
    client = Client(rig)
    handle = start(rig, client, motion=True)
    rig.node.trigger_deactivate()
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.NOT_ACTIVE)
    assert dispatcher.calls == [True, False]
    assert rig.node.trigger_cleanup().name == 'SUCCESS'


@pytest.mark.parametrize(
    ('error', 'code', 'expected'),
    [
        (DecodeError('bad code'), Result.DECODE_FAILED, 'bad code'),
        (MemoryError('full'), Result.INFERENCE_FAILED, 'full'),
    ],
)
def test_failing_policy_ends_the_goal_and_disables_motion(rig, dispatcher, error, code, expected):
    rig.policy.error = error
    client = Client(rig)
    handle = start(rig, client, motion=True)
    for count in range(3):
        rig.sense()
        rig.until(lambda count=count: len(rig.policy.observations) > count)
        if code == Result.INFERENCE_FAILED:
            break
        rig.until(lambda count=count: rig.node.num_failures > count)
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, code)
    assert expected in result.error_msg
    assert dispatcher.calls == [True, False]


def test_goal_without_observations_times_out_and_says_what_is_missing(context):
    with h.rig(context, observation_timeout=0.6, **{'head.timeout': 0.1}) as rig:
        status, result = Client(rig).run()
        assert status == GoalStatus.STATUS_ABORTED
        assert result.error_code == Result.OBSERVATION_TIMEOUT
        assert 'head (/head): no message yet' in result.error_msg


SCRIPT = """
    import functools, sys
    sys.path.insert(0, {tests!r})
    from fake_policy import FakePolicy
    from faster_vla_ros import policy_node
    policy_node.PolicyNode = functools.partial(policy_node.PolicyNode, lambda _: FakePolicy())
    sys.exit(policy_node.main(sys.argv))
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_process_that_is_told_to_end_disables_the_motion_of_its_goal(context, number):
    tests = str(pathlib.Path(h.__file__).parent)
    script = textwrap.dedent(SCRIPT.format(tests=tests))
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(h.DOMAIN)}
    environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    args = [sys.executable, '-c', script, *h.arguments(), '-p', 'checkpoint_path:=fake']
    process = subprocess.Popen(args, env=environment, stderr=subprocess.PIPE, text=True)
    dispatcher = Dispatcher(context, None)
    user = h.Rig(context)
    try:
        # The process imports torch, which takes a second, or a minute on a busy machine.
        # What discovery loses between two processes comes with the next heartbeat, 3 s later.
        client = Client(user, patience=100.0, discovery=3.5)
        handle = client.send(motion=True)
        assert handle.accepted
        user.until(lambda: dispatcher.calls == [True])
        user.until(lambda: user.statuses and user.status.instruction == 'grasp the cup')
        process.send_signal(number)
        user.until(lambda: dispatcher.calls == [True, False])
        assert process.wait(20.0) == 0, process.stderr.read()
        user.until(lambda: user.chunks and user.chunks[-1].num_steps == 0)
    finally:
        process.kill()
        process.communicate()
        dispatcher.close()
        user.close()
