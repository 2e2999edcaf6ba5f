"""Transitions of the policy node, what it leaves behind, and what a failure looks like."""

import math
import threading

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import numpy as np
import policy_node_helpers as h
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from warm_processes import run_module, Warm

from faster_core.chunk import ActionChunk
from faster_core.errors import CheckpointError, DecodeError
from faster_vla_msgs.msg import ActionComponent, Embodiment, PolicyStatus

pytestmark = pytest.mark.ros

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


LOGGED = ('loading the policy', 'ready', 'carrying out', 'no longer carried out')


def inference_threads():
    return [t for t in threading.enumerate() if t.name == 'inference']


def test_configure_cleanup_configure_works_twice(context):
    with h.rig(context, up=False) as rig:
        for count in (1, 2):
            rig.up()
            assert rig.follow().instruction == 'grasp the cup'
            assert len(rig.policy.warmups) == count
            assert rig.node.trigger_deactivate() == SUCCESS
            assert rig.node.trigger_cleanup() == SUCCESS
            assert not inference_threads()
            rig.until(lambda: not rig.robot.count_publishers('/policy_node/status'))
            rig.until(lambda: not rig.robot.count_subscribers('/instruction'))


def test_log_says_when_it_is_ready_and_what_it_carries_out(context, capfd):
    with h.rig(context, up=False) as rig:
        rig.up()
        rig.follow()
        rig.say('open the drawer')
        rig.until(lambda: rig.node.instruction == 'open the drawer')
        rig.say('xyzzy frobnicate')
        rig.wait_status(PolicyStatus.STATE_IDLE, 'instruction refused')
        rig.say('grasp the cup')
        rig.until(lambda: rig.node.instruction == 'grasp the cup')
        rig.say('')
        rig.until(lambda: not rig.node.instruction)
    lines = [line.partition(']: ')[2] for line in capfd.readouterr().err.splitlines()]
    told = [line for line in lines if line.partition(':')[0] in LOGGED]
    assert told == [
        'loading the policy: fake',
        f'ready: {rig.policy.embodiment.name}',
        'carrying out: grasp the cup',
        'carrying out: open the drawer',
        'no longer carried out: open the drawer',
        'carrying out: grasp the cup',
        'no longer carried out: grasp the cup',
    ]


def test_deactivate_stops_the_thread_then_sends_a_hold_and_nothing_follows(rig):
    chunk = rig.follow()
    assert rig.node.trigger_deactivate() == SUCCESS
    assert not inference_threads()
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    hold = rig.chunks[-1]
    assert not hold.components
    assert (hold.header.stamp.sec, hold.header.stamp.nanosec) > (
        chunk.header.stamp.sec,
        chunk.header.stamp.nanosec,
    )
    assert hold.sequence_id == chunk.sequence_id + 1
    assert rig.wait_status(PolicyStatus.STATE_IDLE, 'deactivated').instruction == ''
    count = len(rig.chunks)
    rig.instruction.publish(String(data='grasp the cup'))
    rig.sense()
    rig.spin(0.5)
    assert len(rig.chunks) == count
    assert rig.node.instruction == ''


def test_inference_in_progress_at_deactivate_reaches_nobody(rig):
    rig.say('grasp the cup')
    rig.policy.gate.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    threading.Timer(0.2, rig.policy.gate.set).start()
    assert rig.node.trigger_deactivate() == SUCCESS
    rig.spin(0.3)
    assert not rig.moving_chunks()


def test_shutdown_while_moving_sends_a_hold(rig):
    rig.follow()
    assert rig.node.trigger_shutdown() == SUCCESS
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    assert not inference_threads()


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (CheckpointError('no folder /nowhere'), 'cannot configure: no folder /nowhere'),
        (RuntimeError('out of memory'), 'RuntimeError: out of memory'),
    ],
)
def test_exception_in_configure_is_logged_with_traceback_and_leaves_unconfigured(
    context, capfd, error, expected
):
    with h.rig(context, up=False) as rig:

        def fail(_):
            raise error

        good, rig.node._factory = rig.node._factory, fail
        assert rig.node.trigger_configure() == FAILURE
        log = capfd.readouterr().err
        assert log.count('[FATAL]') == 1
        assert expected in log
        assert ('Traceback' in log) == isinstance(error, RuntimeError)
        rig.spin(0.3)
        assert not rig.statuses
        assert not rig.chunks
        rig.node._factory = good
        rig.up().follow()


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'cameras': ['head', 'wrist_left']}, 'unknown parameters: wrist_right.'),
        ({'left_arm.size': [5]}, 'left_arm.size: expected lengths of at least 6, found [5]'),
        ({'torso.mapping': 'by_name'}, 'torso.joints: expected 4 names, found []'),
    ],
)
def test_robot_file_that_does_not_fit_the_policy_leaves_no_trace_on_the_wire(
    context, capfd, parameters, expected
):
    with h.rig(context, up=False, **parameters) as rig:
        assert rig.node.trigger_configure() == FAILURE
        assert expected in capfd.readouterr().err
        rig.spin(0.3)
        assert not rig.statuses
        assert not rig.robot.count_publishers('/policy_node/status')
        assert not rig.robot.count_subscribers('/instruction')


@pytest.mark.timeout(300)  # imports torch, which takes a second, or a minute on a busy machine
def test_process_with_a_missing_checkpoint_ends_with_status_1_and_one_fatal_line(tmp_path):
    args = [*h.arguments(), '-p', f'checkpoint_path:={tmp_path}/none']
    name = 'faster_vla_ros.policy_node'
    process = Warm(tmp_path / 'log', run_module, name, *args, ROS_DOMAIN_ID=str(h.DOMAIN))
    status, log = process.wait(280)
    assert status == 1, log
    assert log.count('[FATAL]') == 1
    assert f'{tmp_path}/none' in log
    assert 'Traceback' not in log


def test_status_is_latched_and_repeated_every_second(rig):
    rig.until(lambda: rig.status.message == 'waiting for an instruction')
    late = []
    rig.robot.create_subscription(PolicyStatus, '/policy_node/status', late.append, LATCHED)
    rig.until(lambda: late)
    assert late[0].message == 'waiting for an instruction'
    rig.until(lambda: len(late) == 4)
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in late]
    assert np.median(np.diff(stamps[1:])) == pytest.approx(1.0, abs=0.4)


def test_embodiment_is_latched_and_tells_the_layout(rig):
    late = []
    rig.robot.create_subscription(Embodiment, '/policy_node/embodiment', late.append, LATCHED)
    rig.until(lambda: late)
    e, found = rig.policy.embodiment, late[0]
    assert (found.name, found.checksum) == ('r1_lite', e.checksum)
    assert (found.action_frequency, found.action_horizon) == (15.0, 32)
    assert list(found.camera_names) == ['head', 'wrist_left', 'wrist_right']
    sizes = dict(zip(found.component_names, found.component_sizes, strict=True))
    expected = {
        'left_arm': 6,
        'left_gripper': 1,
        'right_arm': 6,
        'right_gripper': 1,
        'torso': 4,
        'base': 3,
    }
    assert sizes == expected
    assert found.component_kinds[-1] == ActionComponent.KIND_TWIST


@pytest.mark.parametrize(
    'error',
    [
        ZeroDivisionError('of the policy'),
        RuntimeError('CUDA out of memory'),  # the base of torch's OutOfMemoryError
    ],
    ids=repr,
)
def test_exception_in_the_policy_is_a_fault_that_only_reactivation_leaves(rig, capfd, error):
    rig.follow()
    rig.policy.error = error
    rig.sense()
    status = rig.wait_status(PolicyStatus.STATE_FAULT, repr(error))
    assert status.num_chunks_published == 1
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    log = capfd.readouterr().err
    assert log.count(f'{type(error).__name__}: {error}') == log.count('Traceback') == 1
    assert not inference_threads()
    rig.say('grasp the bowl')
    assert rig.call(Trigger, 'reset').success
    rig.spin(1.2)
    assert rig.status.state == PolicyStatus.STATE_FAULT
    assert rig.node.instruction == ''
    rig.policy.error = None
    rig.node.trigger_deactivate()
    rig.node.trigger_activate()
    rig.wait_status(PolicyStatus.STATE_IDLE)
    rig.follow()


def test_chunk_that_cannot_be_written_is_a_fault_and_not_a_silent_end(rig):
    e = rig.policy.embodiment

    def predict(observation):
        values = np.zeros((e.action_horizon, e.action_dim), np.float32)
        return ActionChunk(
            values=values, stamp=0.0, first_step_offset=math.nan, step_period=e.step_period
        )

    rig.policy.predict = predict
    rig.say('grasp the cup')
    rig.sense()
    rig.wait_status(PolicyStatus.STATE_FAULT, 'nan')
    assert not rig.moving_chunks()


@pytest.mark.parametrize(
    ('error', 'values', 'expected'),
    [
        (DecodeError('code 999 out of range'), None, 'code 999 out of range'),
        (None, np.full((32, 21), np.nan, np.float32), 'not finite'),
        (None, np.full((32, 21), 1e39), 'not finite'),  # infinite as float32
        (None, np.zeros((32, 20), np.float32), '[32, 20], expected [H, 21]'),
        (None, np.zeros((0, 21), np.float32), '[0, 21], expected [H, 21]'),
    ],
)
def test_decode_failure_is_counted_and_publishes_nothing(rig, error, values, expected):
    rig.policy.error, rig.policy.values = error, values
    rig.say('grasp the cup')
    for count in (1, 2):
        rig.sense()
        rig.until(lambda count=count: rig.node.num_failures == count)
    rig.wait_status(PolicyStatus.STATE_STALE_OBSERVATION, expected)
    rig.until(lambda: rig.status.num_decode_failures == 2)
    assert not rig.moving_chunks()
    rig.policy.error = rig.policy.values = None
    rig.follow('grasp the bowl')
    assert rig.wait_status(PolicyStatus.STATE_RUNNING).num_decode_failures == 2


def test_reset_drops_instruction_and_has_the_inference_thread_reset_the_policy(rig):
    rig.follow()
    answer = rig.call(Trigger, 'reset')
    assert answer.success
    assert rig.chunks[-1].num_steps == 0
    assert rig.status.state == PolicyStatus.STATE_IDLE
    rig.sense()
    rig.spin(0.3)
    assert len(rig.moving_chunks()) == 1
    rig.follow()
    assert rig.policy.resets == ['inference']


def test_pause_holds_and_resume_goes_on_with_the_same_instruction(rig):
    rig.follow()
    assert rig.call(SetBool, 'pause', data=True).success
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    rig.wait_status(PolicyStatus.STATE_IDLE, 'paused')
    rig.sense()
    rig.spin(0.3)
    assert rig.chunks[-1].num_steps == 0
    assert rig.call(SetBool, 'pause', data=False).success
    rig.sense()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    assert rig.moving_chunks()[-1].instruction == 'grasp the cup'


def test_services_of_an_inactive_node_say_so(rig):
    rig.node.trigger_deactivate()
    rig.until(lambda: rig.chunks)
    for kind, name in (
        (Trigger, 'reset'),
        (SetBool, 'pause'),
        (Trigger, 'start_instruction'),
        (Trigger, 'cancel_instruction'),
    ):
        answer = rig.call(kind, name)
        assert not answer.success
        assert answer.message == 'the policy node is not active'
    assert len(rig.chunks) == 1


def test_parameters_are_fixed_while_configured_and_free_afterwards(rig):
    change = [Parameter('use_receive_time', value=True)]
    result = rig.node.set_parameters(change)[0]
    assert not result.successful
    assert result.reason == 'use_receive_time: fixed while configured'
    assert rig.node.config['use_receive_time'] is False
    rig.node.trigger_deactivate()
    rig.node.trigger_cleanup()
    assert rig.node.set_parameters(change)[0].successful
    assert rig.node.trigger_configure() == SUCCESS
    assert rig.node.config['use_receive_time'] is True


def test_deactivate_stops_worker_then_sends_safe_command_then_deactivates_publisher(
    rig, monkeypatch
):
    order, node = [], rig.node
    publisher = node.chunks._chunks

    def noted(owner, name, event):
        real = getattr(owner, name)

        def call(*args, **options):
            order.append((event, publisher.is_activated, bool(inference_threads())))
            return real(*args, **options)

        monkeypatch.setattr(owner, name, call)

    rig.follow()
    rig.policy.gate.clear()  # an inference that lasts does not delay the safe command
    rig.policy.entered.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    threading.Timer(0.5, rig.policy.gate.set).start()
    noted(node.worker, 'stop', 'stop worker')
    noted(node.worker, 'join', 'wait for worker')
    noted(node.chunks, 'hold', 'safe command')
    noted(publisher, 'on_deactivate', 'deactivate publisher')
    assert node.trigger_deactivate() == SUCCESS
    assert order == [
        ('stop worker', True, True),
        ('safe command', True, True),
        ('wait for worker', True, True),
        ('deactivate publisher', True, False),
    ]
    assert not publisher.is_activated
    rig.until(lambda: rig.chunks[-1].num_steps == 0)


def test_nothing_reaches_the_wire_through_a_deactivated_publisher(rig):
    rig.follow()
    rig.node.trigger_deactivate()
    rig.until(lambda: rig.chunks[-1].num_steps == 0)
    count = len(rig.chunks)
    rig.node.chunks.hold('')
    rig.spin(0.3)
    assert len(rig.chunks) == count


@pytest.mark.parametrize('transition', ['activate', 'deactivate'])
def test_exception_in_a_transition_is_logged_once_and_tears_everything_down(
    context, capfd, monkeypatch, transition
):
    with h.rig(context) as rig:
        if transition == 'activate':
            rig.node.trigger_deactivate()
        else:
            rig.follow()

        def fail(*_):
            raise MemoryError('of the device')

        broken = {'activate': 'recover', 'deactivate': 'set'}[transition]
        monkeypatch.setattr(rig.node.status, broken, fail)
        getattr(rig.node, f'trigger_{transition}')()
        log = capfd.readouterr().err
        assert f'on_{transition} failed' in log
        assert log.count(f'on_{transition} failed') == 1
        assert not inference_threads()
        assert rig.node.policy is None
        rig.until(lambda: not rig.robot.count_publishers('/policy_node/status'))
        # Unconfigured: it can be configured anew.
        count = len(rig.moving_chunks())
        rig.up().follow()
        assert len(rig.moving_chunks()) == count + 1
