"""What the log says when motion ends: what nobody asked for, and each thing once."""

import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from std_msgs.msg import Bool, Int32

from faster_core.execution.state import Action
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros import state_log
from faster_vla_ros.state_log import ENDING, HOLD_PERIOD, StateLog

pytestmark = pytest.mark.ros


@pytest.fixture
def log(monkeypatch):
    """Return a log that keeps its lines, and a clock."""
    lines, now = [], [100.0]
    monkeypatch.setattr(state_log.time, 'perf_counter', lambda: now[0])
    logger = types.SimpleNamespace(
        error=lambda text: lines.append(f'ERROR {text}'),
        warning=lambda text: lines.append(f'WARN {text}'),
    )
    made = StateLog(logger)

    def say(action, message='', *, enabled=True, components=('arm',)):
        made.update(
            types.SimpleNamespace(
                action=action, message=message, enabled=enabled, components=components
            )
        )
        found = lines.copy()
        lines.clear()
        return found

    say(Action.NONE, 'disabled', enabled=False)
    return types.SimpleNamespace(say=say, now=now)


def test_a_stop_is_an_error_with_its_reason_once(log):
    assert log.say(Action.FOLLOW) == []
    stop = ('feedback_stale', ('arm', 'hand'))
    found = log.say(Action.STOP, stop[0], enabled=False, components=stop[1])
    assert found == ['ERROR stopped: feedback_stale (arm, hand)']
    assert log.say(Action.STOP, stop[0], enabled=False, components=stop[1]) == []


@pytest.mark.parametrize('message', ['taken over by /joy', 'the clock was set back: enable again'])
@pytest.mark.parametrize('action', [Action.NONE, Action.FOLLOW, Action.HOLD])
def test_motion_that_is_disabled_by_itself_is_a_warning_once(log, message, action):
    log.say(action, 'the plan was dropped')
    found = log.say(Action.NONE, message, enabled=False)
    assert found == [f'WARN motion disabled: {message}']
    assert log.say(Action.NONE, message, enabled=False) == []


def test_what_was_asked_for_is_quiet(log):
    for action, message, enabled in (
        (Action.NONE, 'waiting for the first chunk', True),
        (Action.FOLLOW, '', True),
        (Action.LIMIT, 'limits reached: arm', True),
        (Action.HOLD, 'the plan was dropped', True),
        (Action.NONE, 'disabled', False),
        (Action.STOP, 'stop', False),
        (Action.NONE, 'disabled', False),
        (Action.FOLLOW, '', True),
        (Action.STOP, ENDING, False),
    ):
        assert log.say(action, message, enabled=enabled) == []


def test_a_plan_that_is_used_up_is_a_warning(log):
    log.say(Action.FOLLOW)
    assert log.say(Action.HOLD, 'the plan is used up') == ['WARN holding: the plan is used up']
    for _ in range(100):
        log.now[0] += 1.0
        assert log.say(Action.HOLD, 'the plan is used up') == []


def test_a_policy_slower_than_its_plan_does_not_flood_the_log(log):
    lines = []
    for _ in range(25):
        lines += log.say(Action.FOLLOW)
        log.now[0] += 2.0
        lines += log.say(Action.HOLD, 'the plan is used up')
    assert len(lines) == 50 / HOLD_PERIOD


def test_a_hold_that_lasts_is_told_even_if_another_was_told_just_before(log):
    log.say(Action.HOLD, 'the plan is used up')
    log.say(Action.FOLLOW)
    log.now[0] += 0.9 * HOLD_PERIOD
    assert log.say(Action.HOLD, 'the plan is used up') == []
    log.now[0] += 0.2 * HOLD_PERIOD
    assert log.say(Action.HOLD, 'the plan is used up') == ['WARN holding: the plan is used up']


# --- on the wire --------------------------------------------------------------------------------


def logged(capfd, text):
    return [line for line in capfd.readouterr().err.splitlines() if text in line]


def test_the_node_logs_a_stop_that_nobody_asked_for_by_service(make_rig, capfd):
    rig = make_rig(estop__enable=True)
    button = rig.node.create_publisher(Bool, 'estop', 1)
    rig.drive()
    rig.until(button.get_subscription_count)
    assert not logged(capfd, '[ERROR]')
    button.publish(Bool(data=True))
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    rig.spin(0.3)
    assert len(logged(capfd, '[action_dispatcher]: stopped: estop (left_arm, ')) == 1


def test_the_node_logs_a_permission_that_is_lost_and_not_a_disable(make_rig, capfd):
    rig = make_rig(permit__topic='controller', permit__field='data', permit__value=5)
    remote, mode = rig.node.create_publisher(Int32, 'controller', 1), 5
    rig.node.create_timer(0.05, lambda: remote.publish(Int32(data=mode)))
    rig.drive()
    rig.enable(False)
    assert not logged(capfd, 'motion disabled')
    rig.until(lambda: rig.enable().success)
    mode = 3
    rig.until(lambda: not rig.state.enabled)
    rig.spin(0.3)
    wanted = 'motion disabled: taken over by data of /controller is 3, expected 5'
    assert len(logged(capfd, wanted)) == 1
