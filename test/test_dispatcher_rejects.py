"""A rejected chunk commands nothing new, is counted under its reason, and the message helps."""

from execution_helpers import chunk, Rig, rows, TOY
import numpy as np
import pytest

from faster_core.execution.errors import ChunkError, CONTENT_REASONS, STATE_REASONS
from faster_core.execution.state import Action

FAST = np.zeros((8, 2))
FAST[:, 0] = 0.25 * np.arange(8)

# What is sent -> reason, and the words for the value found and the value expected. Every rig has
# driven for 0.4 s after a chunk observed at 100.0 s when it is sent.
CASES = {
    'other robot': (
        {'embodiment_checksum': 'a' * 64},
        'embodiment_mismatch',
        ('aaaaaaaaaaaa', f'toy {TOY.checksum[:12]}'),
    ),
    'no checksum': ({'embodiment_checksum': ''}, 'embodiment_mismatch', ('(none)', 'this is toy')),
    'a column short': ({'values': rows()[:, :4]}, 'bad_shape', ('[8, 4]', '[at most 8, 5]')),
    'too many rows': ({'values': rows(9)}, 'bad_shape', ('[9, 5]', '[at most 8, 5]')),
    'one row, flat': ({'values': rows()[0]}, 'bad_shape', ('[5]', '[at most 8, 5]')),
    'a nan': (
        {'values': rows(base=[[0.1, 0.0]] * 7 + [[0.1, np.nan]])},
        'not_finite',
        ('base/wz is nan in row 7', 'expected finite'),
    ),
    'an infinity': (
        {'values': rows(hand=(np.inf,))},
        'not_finite',
        ('hand/finger is inf in row 0', 'expected finite'),
    ),
    'period': ({'step_period': 0.2}, 'bad_timing', ('step_period 0.2', 'expected 0.1')),
    'offset': ({'first_step_offset': -0.1}, 'bad_timing', ('offset -0.1', 'expected 0 to 0.8')),
    'stamp': ({'stamp': np.nan}, 'bad_timing', ('stamp nan', 'expected seconds')),
    'future': ({'age': -2.0}, 'bad_timing', ('2.000 s in the future', 'expected the past')),
    'before the newest': ({'age': 0.5}, 'out_of_order', ('99.900', 'later than 100.000')),
    'the newest again': ({'stamp': 100.0}, 'out_of_order', ('100.000', 'later than 100.000')),
    'far away': (
        {'values': rows(arm=(0.5, 0.0))},
        'start_offset',
        ('arm/j1 would start at 0.500', 'at most 0.300'),
    ),
    'gripper far away': (
        {'values': rows(hand=(0.0,)), 'hand': 0.15},
        'start_offset',
        ('hand/finger would start at 0.000 but is at 0.150', 'at most 0.120'),
    ),
    'out of range': (
        {'values': rows(arm=np.linspace([0, 0], [0, -1.3], 8))},
        'position_limit',
        ('arm/j2 is -1.300', 'expected -1.000 to 1.000'),
    ),
    'gripper out of range': (
        {'values': rows(hand=(0.12,))},
        'position_limit',
        ('hand/finger is 0.120', 'expected 0.000 to 0.100'),
    ),
    'too fast': (
        {'values': rows(arm=FAST * 0.5)},
        'step_velocity',
        ('arm/j1 has speed 1.250', 'at most 1.100'),
    ),
    'base too fast': (
        {'values': rows(base=(0.1, -1.2))},
        'step_velocity',
        ('base/wz has speed 1.200', 'at most 1.100'),
    ),
}


def driven(**changes):
    rig = Rig(**changes)
    rig.drive(0.4, arm_speed=0.1)
    return rig


def send(rig, what):
    """Send one of the cases; `hand` is where the gripper was measured instead."""
    what = dict(what)
    if 'hand' in what:
        rig.measured['hand'] = np.array([what.pop('hand')])
        rig.feed()
    return rig.send(what.pop('values', None), **what)


def futures(rig, count=60):
    """Return the commands of the next ticks; feedback stays as it is now."""
    measured = {name: values.copy() for name, values in rig.measured.items()}
    commands = []
    for _ in range(count):
        rig.measured = {name: values.copy() for name, values in measured.items()}
        commands.append(np.concatenate(list(rig.tick().commands.values())))
    return np.array(commands)


@pytest.mark.parametrize('case', CASES)
def test_rejected_chunk_publishes_nothing_and_counts_its_reason(case):
    what, reason, _ = CASES[case]
    rig, twin = driven(), driven()
    plan = rig.dispatcher.plan
    report = send(rig, what)
    assert (report.accepted, report.reason) == (False, reason)
    assert report.sequence_id == 2
    assert rig.dispatcher.plan is plan
    if 'hand' in what:
        twin.measured['hand'] = rig.measured['hand']
    assert (futures(rig) == futures(twin)).all()
    state = rig.tick().state
    assert state.rejected == {reason: 1}
    assert (state.num_chunks_accepted, state.num_chunks_rejected) == (1, 1)


@pytest.mark.parametrize('case', CASES)
def test_the_message_names_value_and_expectation(case):
    what, _, words = CASES[case]
    report = send(driven(), what)
    for word in words:
        assert word in report.detail


@pytest.mark.parametrize('case', CASES)
def test_after_a_rejected_chunk_a_good_one_is_followed(case):
    rig = driven()
    send(rig, CASES[case][0])
    rig.measured['hand'] = np.array([0.05])
    rig.feed()
    assert rig.send(rows(arm=rig.measured['arm'], base=(-0.2, 0.0)), age=0.1).accepted
    assert rig.run(0.65)[-1].commands['base'][0] == pytest.approx(-0.2)


def test_late_chunks_are_rejected_and_the_robot_holds():
    rig = Rig(max_chunk_age=0.9)
    rig.drive(2.0)
    expired, too_old = rig.send(age=0.75), rig.send(age=1.0)
    assert (expired.reason, too_old.reason) == ('expired', 'too_old')
    assert 'due 0.050 s from now, expected at least 0.100 s' in expired.detail
    assert 'observed 1.000 s ago, at most 0.900 s' in too_old.detail
    tick = rig.tick()
    assert tick.state.action is Action.HOLD
    assert tick.state.rejected == {'expired': 1, 'too_old': 1}


@pytest.mark.parametrize('state', ['never enabled', 'disabled', 'stopped', 'reset'])
def test_without_permission_even_a_perfect_chunk_is_rejected(state):
    rig = Rig(enabled=state != 'never enabled')
    if state == 'disabled':
        rig.dispatcher.enable(False, rig.now)
    if state in ('stopped', 'reset'):
        rig.dispatcher.stop(rig.now, 'button')
    if state == 'reset':
        rig.dispatcher.reset(rig.now)
    report = rig.send()
    if state == 'stopped':
        assert report.reason == 'stopped'
        assert report.detail == 'stopped (button), expected a reset'
    else:
        assert report.reason == 'not_enabled'
        assert report.detail == 'motion is disabled, expected enable'
    assert rig.dispatcher.plan is None
    assert not rig.tick().commands['arm']


def test_permission_is_asked_before_content():
    rig = Rig(enabled=False)
    assert rig.send(np.full((3, 2), np.nan), embodiment_checksum='').reason == 'not_enabled'


@pytest.mark.parametrize('reason', ['bad_names', 'bad_frame'])
def test_a_chunk_that_cannot_be_read_is_counted_and_changes_nothing(reason):
    rig, twin = driven(), driven()
    error = ChunkError(reason, "found ['a'], expected ['b']", 'arm')
    report = rig.dispatcher.refuse(error, sequence_id=7, num_rows=8, now=rig.now)
    assert (report.accepted, report.reason, report.detail) == (False, reason, error.detail)
    assert (futures(rig) == futures(twin)).all()
    assert rig.tick().state.rejected == {reason: 1}


def test_the_counts_add_up_over_reasons_and_survive_disable():
    rig = driven()
    rig.send(rows(9))
    rig.send(rows(9))
    rig.send(age=0.5)
    rig.dispatcher.enable(False, rig.now)
    rig.send()
    state = rig.tick().state
    assert state.rejected == {'bad_shape': 2, 'not_enabled': 1, 'out_of_order': 1}
    assert state.num_chunks_rejected == sum(state.rejected.values())


def test_a_rejected_chunk_does_not_move_the_newest_stamp():
    rig = driven()
    rig.send(rows(9), age=0.1)
    assert rig.send(rows(arm=rig.measured['arm']), age=0.2).accepted


def test_every_reason_a_dispatcher_can_find_itself_is_pinned_here():
    pinned = {reason for _, reason, _ in CASES.values()}
    pinned |= {'expired', 'too_old', 'not_enabled', 'stopped'}
    assert pinned == set(STATE_REASONS + CONTENT_REASONS) - {'bad_names', 'bad_frame'}


@pytest.mark.parametrize('shape', [(), (5,), (0,), (2, 8, 5), (8, 0)])
def test_any_array_is_answered_with_a_reason_and_a_number_of_rows(shape):
    rig = Rig()
    report = rig.dispatcher.on_chunk(chunk(np.zeros(shape), stamp=rig.now), rig.now)
    assert report.reason == 'bad_shape'
    assert report.num_rows == (shape[0] if shape else 0)


# --- numbers ----------------------------------------------------------------------------------


def test_numbers_left_out_are_chunks_that_were_lost_on_the_way():
    rig = Rig()
    missing = []
    for number in (7, 8, 10, 15, 15, 16):
        rig.tick()
        assert rig.send(sequence_id=number).accepted
        missing.append(rig.tick().state.num_chunks_missing)
    assert missing == [0, 0, 1, 5, 5, 5]


def test_a_smaller_number_is_a_policy_that_begins_anew_and_no_gap():
    rig = Rig()
    for number in (100, 1, 2, 4):
        rig.tick()
        assert rig.send(sequence_id=number).accepted
    assert rig.tick().state.num_chunks_missing == 1


def test_a_refused_chunk_is_not_missing():
    rig = Rig()
    for number, checksum in enumerate([TOY.checksum, 'f' * 64, TOY.checksum], 1):
        rig.tick()
        rig.send(sequence_id=number, embodiment_checksum=checksum)
    state = rig.tick().state
    assert (state.num_chunks_accepted, state.num_chunks_missing) == (2, 0)
