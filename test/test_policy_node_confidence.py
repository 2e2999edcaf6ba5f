"""Chunks the policy is not sure of are held back; coarse chunks come before the whole one."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from action_msgs.msg import GoalStatus
from goal_helpers import Client, Result, start
import numpy as np
import policy_node_helpers as h

from faster_core.errors import DecodeError
from faster_vla_msgs.msg import InferenceTiming, PolicyStatus

pytestmark = pytest.mark.ros

STALE = PolicyStatus.STATE_STALE_OBSERVATION


def infer(rig):
    """Sense once and wait until the policy has been asked."""
    count = len(rig.policy.observations)
    rig.sense()
    rig.until(lambda: len(rig.policy.observations) > count)


def values(rig, value):
    e = rig.policy.embodiment
    return np.full((e.action_horizon, e.action_dim), value, np.float32)


def first_value(chunk):
    return chunk.components[0].data[0]


@pytest.fixture
def careful(context):
    with h.rig(context, min_confidence=-1.0) as r:
        yield r


def test_chunk_below_the_threshold_is_not_sent_but_counted_and_both_numbers_are_named(careful):
    rig = careful
    rig.policy.log_prob = (-0.5, -2.0)
    rig.say('grasp the cup')
    rig.sense()
    rig.wait_status(STALE, 'confidence -1.250 of the chunk is below min_confidence -1')
    assert rig.node.outcomes.num_low_confidence == 1
    assert rig.node.num_failures == 0  # nothing was wrong with its codes
    assert not rig.moving_chunks()
    rig.policy.log_prob = (-0.5, -1.5)  # just enough
    rig.sense()
    rig.until(rig.moving_chunks)
    assert list(rig.moving_chunks()[0].block_log_prob) == [-0.5, -1.5]
    rig.wait_status(PolicyStatus.STATE_RUNNING)
    assert rig.node.outcomes.failures_in_a_row == 0


@pytest.mark.parametrize(
    ('log_prob', 'expected'),
    [
        ((), 'the policy gives no confidence, min_confidence expects at least -1'),
        ((float('nan'), 0.0), 'confidence nan of the chunk is below min_confidence -1'),
    ],
)
def test_confidence_that_cannot_be_judged_is_not_trusted(careful, log_prob, expected):
    careful.policy.log_prob = log_prob
    careful.say('grasp the cup')
    careful.sense()
    careful.wait_status(STALE, expected)
    assert not careful.moving_chunks()


def test_without_a_threshold_every_chunk_is_sent(rig):
    rig.policy.log_prob = (-50.0,)
    assert list(rig.follow().block_log_prob) == [-50.0]


def test_chunks_held_back_in_a_row_end_a_goal_as_decode_failures_do(careful):
    client = Client(careful)
    handle = start(careful, client)
    careful.policy.log_prob = (-9.0,)
    for count in range(1, 3):
        infer(careful)
        careful.until(lambda count=count: careful.node.outcomes.num_low_confidence == count)
    careful.spin(0.3)
    assert careful.node.goals.running
    careful.policy.error = DecodeError('bad code')  # one of each kind are in a row as well
    infer(careful)
    status, result = client.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Result.DECODE_FAILED)
    assert 'bad code' in result.error_msg


def test_goal_that_ends_for_low_confidence_names_both_numbers(context):
    with h.rig(context, min_confidence=-1.0, max_decode_failures=1) as rig:
        client = Client(rig)
        handle = start(rig, client)
        rig.policy.log_prob = (-9.0,)
        infer(rig)
        result = client.result(handle)[1]
        assert result.error_code == Result.DECODE_FAILED
        assert 'confidence -9.000 of the chunk is below min_confidence -1' in result.error_msg


@pytest.fixture
def coarse(context):
    with h.rig(context, publish_coarse=True) as r:
        assert r.policy.warmups == [(1, True)]
        r.policy.coarse = [values(r, 0.1), values(r, 0.2)]
        yield r


def test_first_level_is_sent_before_the_whole_chunk_with_a_number_of_its_own(coarse):
    rig = coarse
    timings = []
    rig.robot.create_subscription(InferenceTiming, '/policy_node/timing', timings.append, 10)
    rig.until(lambda: rig.node.count_subscribers('/policy_node/timing'))
    rig.say('grasp the cup')
    rig.policy.gate.clear()
    rig.sense()
    rig.until(rig.moving_chunks)
    rig.until(rig.policy.entered.is_set)
    assert len(rig.moving_chunks()) == 1  # the inference still runs; no second coarse chunk
    rig.policy.gate.set()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    first, whole = rig.moving_chunks()
    assert (first.num_levels, whole.num_levels) == (1, 0)
    assert whole.sequence_id == first.sequence_id + 1
    assert first.header.stamp == whole.header.stamp
    assert first_value(first) == pytest.approx(0.1)
    assert first_value(whole) == pytest.approx(0.25)
    rig.until(lambda: timings)
    rig.spin(0.2)
    assert [t.sequence_id for t in timings] == [whole.sequence_id]
    assert len(rig.node.outcomes.durations) == 1
    assert not rig.node.outcomes.coverage  # no chunk of another observation came before


def test_without_the_parameter_no_coarse_chunk_is_asked_for(rig):
    rig.policy.coarse = [values(rig, 0.1)]
    rig.follow()
    rig.spin(0.2)
    assert [c.num_levels for c in rig.moving_chunks()] == [0]


def test_policy_without_levels_sends_its_whole_chunk_alone(coarse):
    coarse.policy.coarse = []
    coarse.follow()
    coarse.spin(0.2)
    assert len(coarse.moving_chunks()) == 1


def test_coarse_chunk_that_is_not_finite_ends_its_inference_as_a_decode_failure(coarse):
    coarse.policy.coarse = [values(coarse, np.nan)]
    coarse.say('grasp the cup')
    coarse.sense()
    coarse.wait_status(STALE, 'not finite')
    assert coarse.node.num_failures == 1
    assert not coarse.moving_chunks()


def test_coarse_chunk_of_an_old_instruction_reaches_nobody(coarse, monkeypatch):
    rig = coarse
    predict, ready = rig.policy.predict, rig.policy.gate

    def late(observation, on_chunk=None):
        rig.policy.entered.set()
        assert ready.wait(30.0)
        return predict(observation, on_chunk)

    monkeypatch.setattr(rig.policy, 'predict', late)
    rig.say('grasp the cup')
    ready.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    rig.say('grasp the bowl')
    ready.set()
    rig.spin(0.4)
    assert not rig.moving_chunks()
