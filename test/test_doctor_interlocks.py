"""`faster-vla doctor`: brake, remote control, emergency stop, teleoperation, exclusive topics."""

import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import (
    BEST_EFFORT,
    changed,
    END,
    endpoint,
    healthy,
    only,
    publishers,
    RELIABLE,
    rows,
    small_arm,
    subscriptions,
)
from std_msgs.msg import Bool

from faster_vla_msgs.msg import GuardState
from faster_vla_ros.doctor.report import Verdict
from faster_vla_ros.doctor.snapshot import Spoken

pytestmark = pytest.mark.ros


def test_interlocks_without_partner_are_named(tmp_path):
    arm = small_arm(
        tmp_path,
        (
            'components: ["arm", "gripper", "base"]',
            'components: ["arm", "gripper", "base"]\n      estop.enable: true\n'
            '      permit.topic: "remote"\n      brake.topic: "/brake"\n'
            '      exclusive_topics: ["/joystick"]',
        ),
    )
    graph = publishers(subscriptions(healthy(arm), '/brake'), '/remote')
    graph = publishers(graph, '/joystick', endpoint('/joy', 'sensor_msgs/msg/Joy'))
    found = {f.subject: f.verdict for f in rows(arm, graph, check='interlock')}
    assert found == {
        'brake': Verdict.WARN,
        'permit': Verdict.FAIL,
        'estop': Verdict.FAIL,
        'exclusive': Verdict.FAIL,
    }
    # A dispatcher that was started without them needs none of them.
    off = {'estop.enable': False, 'permit.topic': '', 'brake.topic': '', 'exclusive_topics': []}
    running = graph.parameters | {
        '/action_dispatcher': graph.parameters['/action_dispatcher'] | off
    }
    assert rows(arm, changed(graph, parameters=running), check='interlock') == []


FORBIDDING = (
    'components: ["arm", "gripper", "base"]',
    'components: ["arm", "gripper", "base"]\n      estop.enable: true\n'
    '      estop.timeout: 0.5\n      permit.topic: "remote"\n      permit.field: "data.mode"\n'
    '      guard.topic: "guard/state"',
)
BOOL = 'std_msgs/msg/Bool'
ZEROING = Spoken(at=END, message=GuardState(topics=['/cmd_vel'], zeroing=['/cmd_vel']))


def forbidding(arm, *, permit=None, estop=None, guard=None, kind=BOOL, qos=None):
    """Return a healthy graph but for what came of remote control and emergency stop."""
    fine = Spoken(at=END, message=types.SimpleNamespace(data=types.SimpleNamespace(mode=1)))
    released = Spoken(at=END, message=Bool())
    graph = publishers(healthy(arm), '/estop', endpoint('/button', kind, qos or RELIABLE))
    told = {'/remote': permit or fine, '/estop': estop or released}
    return changed(graph, spoken=graph.spoken | told | ({'/guard/state': guard} if guard else {}))


def test_remote_control_and_emergency_stop_that_speak_are_fine(tmp_path):
    arm = small_arm(tmp_path, FORBIDDING)
    assert arm.forbidding == ('/remote', '/estop', '/guard/state')
    graph = forbidding(arm)
    assert rows(arm, graph) == []
    found = {f.subject: f.found for f in rows(arm, graph, Verdict.OK, 'interlock')}
    assert found == {
        'permit': '/remote of /remote: data.mode is 1',
        'estop': '/estop of /button: released',
        'guard': '/guard watches /cmd_vel',
    }


@pytest.mark.parametrize(
    ('changes', 'subject', 'verdict', 'text'),
    [
        ({'permit': Spoken()}, 'permit', Verdict.FAIL, 'said nothing in 6.5 s'),
        ({'permit': Spoken(at=END - 2, message=1)}, 'permit', Verdict.FAIL, 'the last 2.0 s'),
        ({'permit': Spoken(problem='x is not installed')}, 'permit', Verdict.FAIL, 'x is not'),
        ({'permit': Spoken(at=END, message=Bool())}, 'permit', Verdict.FAIL, 'no field data.mode'),
        ({'estop': Spoken()}, 'estop', Verdict.FAIL, 'said nothing in 6.5 s'),
        ({'estop': Spoken(at=END - 1, message=Bool())}, 'estop', Verdict.FAIL, 'the last 1.0 s'),
        ({'estop': Spoken(at=END, message=Bool(data=True))}, 'estop', Verdict.WARN, 'pressed'),
        ({'guard': Spoken()}, 'guard', Verdict.FAIL, 'said nothing in 6.5 s'),
        ({'guard': Spoken(at=END - 3, message=1)}, 'guard', Verdict.FAIL, 'the last 3.0 s'),
        ({'guard': ZEROING}, 'guard', Verdict.WARN, '/guard sends zeros on /cmd_vel'),
        ({'kind': 'std_msgs/msg/String'}, 'estop', Verdict.FAIL, 'publishes std_msgs/msg/String'),
        ({'qos': BEST_EFFORT}, 'estop', Verdict.FAIL, 'QoS of /button and ours do not match'),
    ],
)
def test_what_could_forbid_motion_and_does_not_speak_is_told(
    tmp_path, changes, subject, verdict, text
):
    arm = small_arm(tmp_path, FORBIDDING)
    row = only(arm, forbidding(arm, **changes))
    assert (row.verdict, row.check, row.subject) == (verdict, 'interlock', subject)
    assert text in row.found


def test_another_mode_of_the_remote_control_and_a_mute_button_are_warned_of(tmp_path):
    arm = small_arm(tmp_path, FORBIDDING, ('estop.timeout: 0.5', 'estop.timeout: 0.0'))
    mode = Spoken(at=END, message=types.SimpleNamespace(data=types.SimpleNamespace(mode=3)))
    row = only(arm, forbidding(arm, permit=mode))
    assert (row.verdict, row.found) == (Verdict.WARN, 'data.mode of /remote is 3')
    # Silence is allowed, so it may be one that speaks only when it is pressed.
    row = only(arm, forbidding(arm, estop=Spoken()))
    assert (row.verdict, row.subject) == (Verdict.WARN, 'estop')


@pytest.mark.parametrize(
    ('kinds', 'verdict', 'text'),
    [
        ([], Verdict.WARN, 'nobody publishes /joystick'),
        (['sensor_msgs/msg/Joy'], Verdict.OK, '/joystick of /joy'),
        (['hdas_msg/msg/Stick'], Verdict.FAIL, 'hdas_msg/msg/Stick is not installed'),
        (['sensor_msgs/msg/Joy', 'sensor_msgs/msg/No'], Verdict.FAIL, 'sensor_msgs.msg has no No'),
    ],
)
def test_a_topic_of_teleoperation_needs_a_publisher_whose_type_can_be_read(
    tmp_path, kinds, verdict, text
):
    components = 'components: ["arm", "gripper", "base"]'
    arm = small_arm(tmp_path, (components, f'{components}\n      takeover.topics: ["joystick"]'))
    ends = [endpoint('/joy', kind) for kind in kinds]
    graph = publishers(healthy(arm), '/joystick', *ends)
    (row,) = rows(arm, graph, verdict, 'interlock')
    assert row.subject == 'takeover'
    assert text in row.found


def test_a_guard_that_the_dispatcher_does_not_ask_is_warned_of(r1, fine):
    running = {n: dict(v) for n, v in fine.parameters.items()}
    running['/action_dispatcher']['guard.topic'] = ''
    (row,) = rows(r1, changed(fine, parameters=running), check='interlock')
    assert (row.verdict, row.subject) == (Verdict.WARN, 'guard')
    assert 'guard.topic' in row.expected
    running['/action_dispatcher']['dry_run'] = True  # which asks nobody
    assert rows(r1, changed(fine, parameters=running), check='interlock') == []


def test_a_guard_that_is_missing_or_watches_something_else_fails(r1, fine):
    said = Spoken(at=END, message=GuardState(topics=['/motion_target/target_speed_chassis']))
    row = only(r1, changed(fine, spoken=fine.spoken | {'/guard/state': said}))
    assert (row.verdict, row.subject) == (Verdict.FAIL, 'guard')
    assert row.found == '/guard does not watch /motion_target/target_speed_torso'
    mute = {t: p for t, p in fine.publishers.items() if t != '/guard/state'}
    row = only(r1, changed(fine, publishers=mute))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'nobody publishes /guard/state')
