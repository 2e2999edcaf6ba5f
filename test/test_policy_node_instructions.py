"""Instructions good and bad, and what happens to the motion of the one before."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import policy_node_helpers as h
from std_msgs.msg import String

from faster_core.errors import DecodeError
from faster_vla_msgs.msg import PolicyStatus

pytestmark = pytest.mark.ros

BAD = {
    'nonsense': ('xyzzy frobnicate', 'instruction refused: the policy knows too few words'),
    '10 kB': ('grasp ' * 1700, 'instruction refused: the instruction has 10199 characters'),
    'one long word': ('a' * 10_000, 'instruction refused: the instruction has 10000 characters'),
}


def nanoseconds(chunk):
    return chunk.header.stamp.sec * 10**9 + chunk.header.stamp.nanosec


def holds(rig):
    return [c for c in rig.chunks if not c.num_steps]


def test_first_instruction_waits_for_an_observation_without_a_hold(rig):
    rig.say('  grasp the cup ')
    status = rig.wait_status(PolicyStatus.STATE_WARMING_UP, 'waiting for the first observation')
    assert status.instruction == 'grasp the cup'
    rig.sense()
    rig.until(rig.moving_chunks)
    assert not holds(rig)


def test_default_instruction_is_carried_out_from_activation(context):
    with h.rig(context, default_instruction='grasp the cup') as rig:
        rig.sense()
        rig.until(rig.moving_chunks)
        assert rig.moving_chunks()[0].instruction == 'grasp the cup'


@pytest.mark.parametrize('text', ['', '  \n'])
def test_empty_instruction_holds_and_ends_the_motion(rig, text):
    chunk = rig.follow()
    rig.say(text)
    rig.until(lambda: holds(rig))
    assert nanoseconds(holds(rig)[0]) > nanoseconds(chunk)
    assert rig.wait_status(PolicyStatus.STATE_IDLE, 'waiting for an instr').instruction == ''
    rig.sense()
    rig.spin(0.4)
    assert len(rig.moving_chunks()) == 1
    assert len(rig.policy.observations) == 1


@pytest.mark.parametrize('case', BAD)
def test_bad_instruction_holds_says_why_and_moves_nothing(rig, case):
    text, why = BAD[case]
    rig.follow()
    rig.say(text)
    rig.until(lambda: holds(rig))
    status = rig.wait_status(PolicyStatus.STATE_IDLE, why)
    assert status.instruction == ''
    assert len(status.message) < 300
    rig.sense()
    rig.spin(0.4)
    assert len(rig.moving_chunks()) == 1
    rig.follow('grasp the bowl')


def test_bad_instruction_at_rest_moves_nothing(rig):
    rig.say('xyzzy')
    rig.wait_status(PolicyStatus.STATE_IDLE, 'refused')
    rig.sense()
    rig.spin(0.4)
    assert not rig.moving_chunks()
    assert not rig.policy.observations


def test_change_in_mid_motion_holds_at_once_and_discards_the_old_result(rig):
    chunk = rig.follow('grasp the cup')
    rig.policy.gate.clear()
    rig.policy.entered.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    rig.say('grasp the bowl')
    # The old inference is still running when the hold comes.
    rig.until(lambda: holds(rig))
    assert nanoseconds(holds(rig)[0]) > nanoseconds(chunk)
    assert holds(rig)[0].instruction == 'grasp the bowl'
    rig.policy.gate.set()
    rig.spin(0.4)
    assert len(rig.moving_chunks()) == 1
    assert rig.status.state == PolicyStatus.STATE_WARMING_UP
    rig.sense()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    assert rig.moving_chunks()[1].instruction == 'grasp the bowl'
    assert [c.sequence_id for c in rig.chunks] == [1, 2, 3]


def test_observation_that_waits_is_not_used_for_the_new_instruction(rig):
    rig.say('grasp the cup')
    rig.policy.gate.clear()
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    rig.sense()
    rig.until(lambda: rig.node.worker._job is not None)
    rig.say('grasp the bowl')
    rig.policy.gate.set()
    rig.spin(0.4)
    assert not rig.moving_chunks()
    assert len(rig.policy.observations) == 1


def test_image_taken_just_before_the_flush_is_left_out(rig):
    rig.follow('grasp the cup')
    before = rig.now()
    rig.say('grasp the bowl')
    rig.until(lambda: holds(rig))
    rig.sense(before)
    rig.spin(0.4)
    assert len(rig.moving_chunks()) == 1
    rig.sense()
    rig.until(lambda: len(rig.moving_chunks()) == 2)
    stamps = [nanoseconds(c) for c in rig.chunks]
    assert stamps == sorted(stamps)


def test_same_instruction_again_changes_nothing(rig):
    rig.follow('grasp the cup')
    generation = rig.node.instructions.generation
    rig.instruction.publish(String(data='grasp the cup'))
    rig.spin(0.4)
    assert rig.node.instructions.generation == generation
    assert not holds(rig)


def test_error_of_the_old_instruction_does_not_touch_the_new_one(rig):
    rig.say('grasp the cup')
    rig.policy.gate.clear()
    rig.policy.error = DecodeError('too late')
    rig.sense()
    rig.until(rig.policy.entered.is_set)
    rig.say('grasp the bowl')
    rig.policy.gate.set()
    rig.spin(0.4)
    assert rig.node.num_failures == 0
    assert rig.status.state == PolicyStatus.STATE_WARMING_UP


def test_old_motion_ends_before_the_policy_is_asked_about_the_new_text(rig):
    rig.follow('grasp the cup')
    seen = []
    rig.policy.check_instruction = lambda text: seen.append((text, rig.node.instruction))
    count = rig.node.chunks.sequence_id
    rig.say('grasp the bowl')
    assert seen == [('grasp the bowl', '')]
    assert rig.node.chunks.sequence_id == count + 1
    assert rig.node.instruction == 'grasp the bowl'
