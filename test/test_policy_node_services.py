"""Goals without the action, inference on demand, and a supervisor's flag that ends a goal."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from action_msgs.msg import GoalStatus
from goal_helpers import Client, Result, start
import policy_node_helpers as h
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from faster_core.errors import DecodeError
from faster_vla_msgs.msg import PolicyStatus

pytestmark = pytest.mark.ros

IDLE = PolicyStatus.STATE_IDLE


def hear(rig, text):
    """Publish an instruction and wait until the node has it."""
    rig.instruction.publish(String(data=text))
    rig.until(lambda: rig.node.instructions.last == text)


def expect_no_inference(rig):
    count = len(rig.policy.observations)
    rig.sense()
    rig.spin(0.3)
    assert len(rig.policy.observations) == count


@pytest.fixture
def on_demand(context):
    with h.rig(context, trigger='on_demand') as r:
        yield r


def test_start_without_any_instruction_is_refused_and_says_where_one_comes_from(rig):
    answer = rig.call(Trigger, 'start_instruction')
    assert not answer.success
    assert 'topic instruction or set default_instruction' in answer.message
    assert not rig.node.goals.running


def test_on_demand_nothing_is_inferred_until_a_start_and_again_nothing_after_the_cancel(on_demand):
    rig = on_demand
    hear(rig, 'grasp the cup')
    assert rig.wait_status(IDLE, 'waiting for a start: grasp the cup').instruction == ''
    expect_no_inference(rig)
    answer = rig.call(Trigger, 'start_instruction')
    assert (answer.success, answer.message) == (True, 'started: grasp the cup')
    rig.sense()
    rig.until(rig.moving_chunks)
    assert rig.moving_chunks()[0].instruction == 'grasp the cup'
    assert not any(rig.moving_chunks()[0].goal_id.uuid)
    assert rig.call(Trigger, 'cancel_instruction').success
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    assert rig.wait_status(IDLE, 'cancelled by').instruction == ''
    assert not rig.node.goals.running
    expect_no_inference(rig)


def test_on_demand_a_goal_of_the_action_runs_as_ever(on_demand):
    client = Client(on_demand)
    handle = start(on_demand, client, limit=0.6)
    on_demand.sense()
    on_demand.until(on_demand.moving_chunks)
    assert client.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED
    expect_no_inference(on_demand)


def test_on_demand_another_instruction_ends_the_goal_and_waits(on_demand):
    rig = on_demand
    client = Client(rig)
    handle = start(rig, client)
    hear(rig, 'grasp the bowl')
    assert client.result(handle)[1].error_code == Result.PREEMPTED
    rig.wait_status(IDLE, 'waiting for a start: grasp the bowl')
    expect_no_inference(rig)


def test_on_demand_the_default_instruction_waits_for_its_start(context):
    options = {'trigger': 'on_demand', 'default_instruction': 'grasp the cup'}
    with h.rig(context, **options) as rig:
        expect_no_inference(rig)
        assert rig.call(Trigger, 'start_instruction').message == 'started: grasp the cup'
        rig.sense()
        rig.until(rig.moving_chunks)


def test_on_demand_a_bad_instruction_is_refused_at_once_and_at_its_start(on_demand):
    hear(on_demand, 'xyzzy')
    on_demand.wait_status(IDLE, 'instruction refused: the policy knows too few words')
    answer = on_demand.call(Trigger, 'start_instruction')
    assert not answer.success
    assert 'too few words' in answer.message
    assert not on_demand.node.goals.running


def test_start_goes_on_with_the_instruction_that_was_stopped(rig):
    rig.follow('grasp the cup')
    rig.say('')
    assert rig.call(Trigger, 'start_instruction').message == 'started: grasp the cup'
    rig.sense()
    rig.until(lambda: len(rig.moving_chunks()) == 2)


def test_there_is_one_goal_at_a_time_whoever_asks(rig):
    hear(rig, 'grasp the cup')
    assert rig.call(Trigger, 'start_instruction').success
    client = Client(rig)
    assert not client.send('grasp the bowl').accepted
    again = rig.call(Trigger, 'start_instruction')
    assert (again.success, again.message) == (False, 'a goal is running: cancel it first')
    reset = rig.call(Trigger, 'reset')
    assert (reset.success, reset.message) == (False, 'a goal is running: cancel it first')
    assert rig.node.instruction == 'grasp the cup'
    assert rig.policy.resets == []
    assert rig.call(Trigger, 'cancel_instruction').success
    assert rig.call(Trigger, 'reset').success
    handle = client.send('grasp the bowl', limit=0.2)
    assert handle.accepted
    client.result(handle)


def test_cancel_ends_a_goal_of_the_action_and_an_instruction_of_the_topic(rig):
    nothing = rig.call(Trigger, 'cancel_instruction')
    assert (nothing.success, nothing.message) == (False, 'no instruction is being carried out')
    client = Client(rig)
    handle = start(rig, client)
    assert rig.call(Trigger, 'cancel_instruction').success
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.PREEMPTED)
    assert 'cancel_instruction' in result.error_msg
    rig.follow('grasp the bowl')
    assert rig.call(Trigger, 'cancel_instruction').success
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    assert rig.node.instruction == ''


def test_goal_of_a_service_ends_after_failures_in_a_row_like_any_other(context):
    with h.rig(context, max_decode_failures=1) as rig:
        hear(rig, 'grasp the cup')
        rig.call(Trigger, 'start_instruction')
        rig.policy.error = DecodeError('code 999 out of range')
        rig.sense()
        rig.until(lambda: not rig.node.goals.running)
        rig.wait_status(IDLE, 'code 999 out of range')
        rig.until(lambda: rig.chunks[-1].num_steps == 0)


def test_paused_node_refuses_goals_and_a_paused_goal_does_not_run_out_of_chunks(context):
    with h.rig(context, observation_timeout=0.5) as rig:
        client = Client(rig)
        rig.call(SetBool, 'pause', data=True)
        status, result = client.run()
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.NOT_ACTIVE)
        assert 'paused: resume it by ~/pause' in result.error_msg
        rig.call(SetBool, 'pause', data=False)
        handle = start(rig, client)
        rig.call(SetBool, 'pause', data=True)
        rig.spin(1.0)
        assert rig.node.goals.running
        rig.call(SetBool, 'pause', data=False)
        assert client.result(handle)[1].error_code == Result.OBSERVATION_TIMEOUT


def test_instruction_that_comes_while_paused_waits_for_the_resume(rig):
    rig.call(SetBool, 'pause', data=True)
    rig.say('grasp the cup')
    rig.wait_status(IDLE, 'paused')
    expect_no_inference(rig)
    rig.call(SetBool, 'pause', data=False)
    rig.sense()
    rig.until(rig.moving_chunks)


class Supervisor:
    """Publishes the flag and waits until the node has it."""

    def __init__(self, rig, **profile):
        self._rig = rig
        qos = QoSProfile(depth=10, **profile)
        self._publisher = rig.robot.create_publisher(Bool, '/task_done', qos)
        rig.until(self._publisher.get_subscription_count)

    def says(self, value):
        self._publisher.publish(Bool(data=value))
        self._rig.spin(0.2)


@pytest.fixture
def supervised(context):
    with h.rig(context, done_topic='/task_done') as r:
        yield r


def test_flag_that_becomes_true_while_a_goal_runs_ends_it_as_succeeded(supervised):
    rig = supervised
    supervisor, client = Supervisor(rig), Client(rig)
    handle = start(rig, client)
    rig.sense()
    rig.until(rig.moving_chunks)
    supervisor.says(False)
    assert rig.node.goals.running
    supervisor.says(True)
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, Result.NONE)
    assert (result.error_msg, result.num_chunks) == ('', 1)
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    assert rig.wait_status(IDLE, '/task_done became true').instruction == ''


def test_flag_that_stays_true_from_the_goal_before_does_not_end_the_next_one(supervised):
    rig = supervised
    supervisor, client = Supervisor(rig), Client(rig)
    supervisor.says(False)
    handle = start(rig, client)
    supervisor.says(True)
    assert client.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED
    supervisor.says(True)
    handle = start(rig, client, text='grasp the bowl')
    supervisor.says(True)
    supervisor.says(True)
    assert rig.node.goals.running
    assert rig.node.instruction == 'grasp the bowl'
    supervisor.says(False)
    supervisor.says(True)
    assert client.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED


def test_latched_flag_heard_for_the_first_time_during_a_goal_does_not_end_it(context):
    override = {'qos_overrides./task_done.subscription.durability': 'transient_local'}
    with h.rig(context, done_topic='/task_done', **override) as rig:
        client = Client(rig)
        start(rig, client)
        Supervisor(rig, durability=DurabilityPolicy.TRANSIENT_LOCAL).says(True)
        assert rig.node.goals.running


def test_flag_without_a_goal_touches_nothing(supervised):
    rig = supervised
    supervisor = Supervisor(rig)
    rig.follow()
    supervisor.says(False)
    supervisor.says(True)
    assert rig.node.instruction == 'grasp the cup'
    assert rig.chunks[-1].num_steps
