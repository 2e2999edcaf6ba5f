"""When the dispatcher's node has its trajectories begin, and what it does if it is late."""

import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from faster_core.execution.dispatcher import Dispatcher
from faster_core.execution.state import Action
from faster_vla_ros.action_dispatcher import ActionDispatcher
from faster_vla_ros.outputs.wire import Wire
from faster_vla_ros.sending import FIRST, LONGEST, LONGEST_STOP, MARGIN, Sending, STOP

pytestmark = pytest.mark.ros

LATES = (0.001, 0.04, 0.3)  # s, of one sending after the other


@pytest.fixture
def sent(make_rig, monkeypatch):
    """Return (action, begins in, (late, put off by) ...) of every tick with trajectories."""
    found, ticks = [], []
    send, tick = Wire.send, Dispatcher.tick

    def spy(self, ticked, stamp, passed, put_off):
        assert 0.0 <= passed() < 1.0
        if ticked.trajectories:
            begun = [put_off(ticked, ['left_arm'], late).begins_in for late in LATES]
            offs = [begin - late for begin, late in zip(begun, LATES, strict=True)]
            found.append((ticked.state.action, ticked.begins_in, offs))
        return send(self, ticked, stamp)

    def noted(self, now, silence=0.0, passed=None):
        ticks.append((silence, passed))
        return tick(self, now, silence, passed)

    monkeypatch.setattr(Wire, 'send', spy)
    monkeypatch.setattr(Dispatcher, 'tick', noted)
    rig = make_rig(left_arm__output='joint_trajectory', left_arm__topic='/left/joint_trajectory')
    rig.until(lambda: rig.enable().success, 'enabled')
    assert rig.send().accepted
    rig.move_until(lambda: len([a for a, *_ in found if a != Action.STOP]) > 1)
    rig.stop()
    rig.until(lambda: found[-1][0] == Action.STOP, 'the stop')
    return found, ticks


def test_trajectories_begin_when_they_can_be_there_and_later_if_they_are_late(sent):
    found, ticks = sent
    follow, stop = found[0], found[-1]
    assert follow[0] in (Action.FOLLOW, Action.LIMIT)
    assert FIRST <= follow[1] <= LONGEST
    # By as long as the last attempt took, and by no more than the longest.
    assert follow[2][0] == pytest.approx(follow[1])
    assert follow[2][1] == pytest.approx(max(follow[1], MARGIN * (LATES[1] - LATES[0])))
    assert follow[2][2] == pytest.approx(LONGEST)
    assert (stop[0], stop[1]) == (Action.STOP, STOP)
    assert stop[2] == pytest.approx([STOP, LONGEST_STOP, LONGEST_STOP])
    # By the steady clock on a robot, whatever its clock does.
    assert all(passed == silence for silence, passed in ticks)
    assert sum(silence for silence, _ in ticks) > 0.1


@pytest.mark.parametrize('late', [[], ['arm']])
def test_what_was_not_sent_is_told_to_the_dispatcher_and_is_no_measure_of_sending(late):
    told = []
    dispatcher = types.SimpleNamespace(not_sent=told.append, put_off=None)
    wire = types.SimpleNamespace(send=lambda *_: late)
    sending = Sending(wire, dispatcher, lambda: None)
    usual = dispatcher.sending_time
    tick = types.SimpleNamespace(
        trajectories={'arm': None}, state=types.SimpleNamespace(action=Action.FOLLOW)
    )
    assert sending.send(tick, None, lambda: 0.05) == late
    assert told == ([late] if late else [])
    assert (dispatcher.sending_time == usual) == bool(late)


@pytest.mark.parametrize('component', ['arm', 'gripper'])
def test_whose_trajectory_failed_is_told_to_the_dispatcher(component):
    stops = []
    node = types.SimpleNamespace(
        get_logger=lambda: types.SimpleNamespace(error=lambda _: None),
        dispatcher=types.SimpleNamespace(stop=lambda *given: stops.append(given)),
        config=types.SimpleNamespace(trajectories=['arm']),
        _authority=types.SimpleNamespace(taken_over_by=''),
        _now=lambda: 5.0,
    )
    ActionDispatcher._on_goal_failure(node, component, 'why', True)
    assert stops == [(5.0, 'why', ['arm'] if component == 'arm' else [])]
