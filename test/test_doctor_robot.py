"""`faster-vla doctor`: faults of limits, commands, controllers and nodes."""

import dataclasses

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import control_msgs_stand_in
from doctor_helpers import (
    ARM_URDF,
    changed,
    endpoint,
    healthy,
    heard,
    joint_state,
    LATCHED,
    only,
    r1_lite,
    rows,
    small_arm,
)

from faster_vla_msgs.msg import DispatcherState, PolicyStatus
from faster_vla_ros.doctor.limits import proposal
from faster_vla_ros.doctor.report import Verdict
from faster_vla_ros.doctor.snapshot import Controller, Snapshot

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def r1():
    return r1_lite()


@pytest.fixture(scope='module')
def fine(r1):
    return healthy(r1)


@pytest.fixture
def arm(tmp_path):
    return small_arm(tmp_path)


def publishers(snapshot, topic, *endpoints):
    return changed(snapshot, publishers={**snapshot.publishers, topic: endpoints})


def subscriptions(snapshot, topic, *endpoints):
    return changed(snapshot, subscriptions={**snapshot.subscriptions, topic: endpoints})


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (
            ('position_limits: [-1.0, 1.0]', 'position_limits: [-1.1, 1.0, -1.0, 1.0]'),
            'a from -1.1 to 1',
        ),
        (('arm.max_velocity: [1.0, 1.0]', 'arm.max_velocity: [1.0, 2.5]'), 'b at 2.5 per second'),
    ],
)
def test_limits_wider_than_those_of_the_urdf_fail(tmp_path, change, text):
    arm = small_arm(tmp_path, change, urdf=ARM_URDF)
    row = only(arm, healthy(arm))
    assert (row.verdict, row.check, row.subject, row.found) == (
        Verdict.FAIL,
        'limits',
        'arm',
        text,
    )


def test_a_joint_the_urdf_does_not_have_fails_also_from_the_topic(arm):
    other = ARM_URDF.replace('name="b"', 'name="c"')
    row = only(arm, changed(healthy(arm), robot_description=other))
    assert (row.verdict, row.check, row.found) == (Verdict.FAIL, 'limits', 'the URDF has no b')
    assert row.expected == 'some of a, c, finger'


def test_a_urdf_that_is_none_fails_and_none_at_all_is_only_said(arm):
    row = only(arm, changed(healthy(arm), robot_description='<xacro'))
    assert (row.verdict, row.subject) == (Verdict.FAIL, 'URDF')
    said = rows(arm, healthy(arm), Verdict.INFO, 'limits')
    assert [f.subject for f in said] == ['URDF']


def test_the_proposal_holds_what_the_file_leaves_out_and_the_urdf_knows(tmp_path):
    arm = small_arm(
        tmp_path,
        ('      arm.max_velocity: [1.0, 1.0]\n', ''),
        ('      gripper.position_limits: [0.0, 0.04]\n', ''),
        urdf=ARM_URDF.replace('upper="0.04"', 'upper="0.03999"'),
    )
    # The dispatcher would refuse the file: no limits are guessed for it.
    assert arm.dispatcher is None
    assert any('arm.max_velocity' in f.found for f in arm.findings)
    assert proposal(arm, Snapshot(duration=3.0)) == [
        'arm.max_velocity: [1.0000, 2.0000]',
        'gripper.position_limits: [0.0000, 0.0399]',
        'base.axes: ["vx", "wz"]',
    ]


def test_joints_without_names_are_proposed_by_side_and_compared_as_a_guess(r1, fine):
    limit = '<limit lower="-1" upper="9" velocity="9"/>'
    joint = f'<joint name="{{0}}_arm_joint{{1}}" type="revolute">{limit}</joint>'
    joints = ''.join(joint.format(s, i) for s in ('left', 'right') for i in range(1, 7))
    graph = changed(fine, robot_description=f'<robot name="r">{joints}</robot>')
    found = {f.subject: f for f in rows(r1, graph)}
    assert {f.verdict for f in found.values()} == {Verdict.WARN}
    assert 'wider than the URDF: left_arm_joint1 from -2.88 to 2.88' in found['left_arm'].found
    lines = proposal(r1, graph)
    assert lines[0].startswith('left_arm.joints: ["left_arm_joint1", "left_arm_joint2"')
    assert lines[1].startswith('# left_gripper.joints: 1 of')


def test_a_position_beyond_the_limits_is_warned_of(arm):
    names = ('a', 'b', 'finger')
    graph = heard(
        healthy(arm), '/joint_states', messages={names: joint_state(names, [1.2, 0.0, 0.02])}
    )
    row = only(arm, graph)
    assert (row.verdict, row.check, row.found) == (Verdict.WARN, 'measured', 'a is at 1.2')


# --- commands ---------------------------------------------------------------------------------


def test_a_command_nobody_hears_fails_and_names_the_controllers(arm):
    graph = subscriptions(healthy(arm), '/arm_controller/joint_trajectory')
    controllers = (Controller(name='other', state='active', type='t'),)
    row = only(arm, changed(graph, controllers=controllers))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'command', 'arm')
    assert row.advice.endswith('controllers: other (active)')


def test_the_dispatcher_does_not_count_as_a_listener(arm):
    graph = subscriptions(
        healthy(arm), '/cmd_vel', endpoint('/action_dispatcher', 'geometry_msgs/msg/Twist')
    )
    assert only(arm, graph).found == 'nobody listens to /cmd_vel'


def test_a_listener_of_another_type_fails(arm):
    stamped = endpoint('/base', 'geometry_msgs/msg/TwistStamped')
    row = only(arm, subscriptions(healthy(arm), '/cmd_vel', stamped))
    assert (row.verdict, row.expected) == (Verdict.FAIL, 'geometry_msgs/msg/Twist')


def test_a_listener_that_wants_latched_commands_fails(arm):
    latched = endpoint('/base', 'geometry_msgs/msg/Twist', LATCHED)
    row = only(arm, subscriptions(healthy(arm), '/cmd_vel', latched))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'command')
    assert 'Reliable' in row.found or 'olatile' in row.found


def test_a_second_publisher_fails_by_name_but_not_our_guard(arm):
    kind = 'geometry_msgs/msg/Twist'
    ours = endpoint('/action_dispatcher', kind), endpoint('/guard', kind)
    assert rows(arm, publishers(healthy(arm), '/cmd_vel', *ours)) == []
    row = only(arm, publishers(healthy(arm), '/cmd_vel', *ours, endpoint('/teleop', kind)))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'rivals')
    assert row.found == '/teleop publishes on /cmd_vel too'


@pytest.mark.parametrize('state', ['inactive', 'unconfigured', 'finalized'])
def test_a_controller_that_is_not_active_fails_though_it_listens(arm, state):
    controllers = (Controller(name='arm_controller', state=state, type='jtc/JTC'),)
    row = only(arm, changed(healthy(arm), controllers=controllers))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'controller', 'arm')
    assert row.found == f'arm_controller (jtc/JTC) is {state}'
    active = (dataclasses.replace(controllers[0], state='active'),)
    assert rows(arm, changed(healthy(arm), controllers=active)) == []


def test_controllers_that_cannot_be_asked_are_warned_of(arm):
    row = only(arm, changed(healthy(arm), controllers_problem='no controller_manager_msgs here'))
    assert (row.verdict, row.check) == (Verdict.WARN, 'controller')


def test_an_action_without_server_fails(tmp_path, monkeypatch):
    control_msgs_stand_in.install(monkeypatch)
    arm = small_arm(
        tmp_path,
        ('gripper.output: "joint_state_stream"', 'gripper.output: "gripper_command"'),
        ('gripper.topic: "gripper"', 'gripper.action: "gripper/cmd"'),
        (
            'gripper.joints: ["finger"]\n      gripper.max',
            'gripper.feedback.joints: ["finger"]\n      gripper.max',
        ),
    )
    assert arm.dispatcher is not None, arm.findings
    graph = healthy(arm)
    assert rows(arm, graph) == []
    services = {n: s for n, s in graph.services.items() if '_action' not in n}
    row = only(arm, changed(graph, services=services))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'nobody offers the action /gripper/cmd')


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


# --- nodes ------------------------------------------------------------------------------------


def test_two_nodes_of_one_name_fail_if_ours_and_are_warned_of_otherwise(r1, fine):
    row = only(r1, changed(fine, nodes=(*fine.nodes, '/action_dispatcher')))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'node')
    row = only(r1, changed(fine, nodes=(*fine.nodes, '/robot')))
    assert (row.verdict, row.found) == (Verdict.WARN, '2 nodes of this name')
    hidden = changed(fine, nodes=(*fine.nodes, '/_cli', '/_cli'))
    assert rows(r1, hidden) == []


def test_nodes_that_do_not_run_are_said_and_no_failure(r1, fine):
    graph = changed(
        fine,
        nodes=('/robot',),
        parameters={},
        policy_checksum='',
        policy_state=None,
        dispatcher_state=None,
    )
    assert rows(r1, graph) == []
    said = rows(r1, graph, Verdict.INFO, 'node')
    assert {f.subject for f in said} == {'action_dispatcher', 'policy_node'}


def test_services_that_are_missing_or_mistyped_fail(r1, fine):
    services = dict(fine.services) | {'/action_dispatcher/stop': ('std_srvs/srv/Empty', '/x')}
    del services['/action_dispatcher/enable']
    row = only(r1, changed(fine, services=services))
    assert row.verdict is Verdict.FAIL
    assert row.found == 'not offered: /action_dispatcher/enable, /action_dispatcher/stop'


def test_a_latched_stop_and_enabled_motion_are_warned_of(r1, fine):
    stopped = DispatcherState(action=DispatcherState.ACTION_STOP, message='feedback_stale')
    row = only(r1, changed(fine, dispatcher_state=stopped))
    assert (row.verdict, row.found) == (Verdict.WARN, 'stopped: feedback_stale')
    row = only(r1, changed(fine, dispatcher_state=DispatcherState(enabled=True)))
    assert (row.verdict, row.advice) == (Verdict.WARN, 'faster-vla disable')
    assert only(r1, changed(fine, dispatcher_state=None)).verdict is Verdict.FAIL
    rival = DispatcherState(message='disabled; teleop, which publishes on /x')
    said = rows(r1, changed(fine, dispatcher_state=rival), Verdict.OK, 'state')
    assert said[0].found == 'motion is disabled (teleop, which publishes on /x)'


def test_a_fault_of_the_policy_fails(r1, fine):
    fault = PolicyStatus(state=PolicyStatus.STATE_FAULT, message='out of memory')
    row = only(r1, changed(fine, policy_state=fault))
    assert (row.verdict, row.found) == (Verdict.FAIL, 'fault: out of memory')


def test_a_policy_of_another_embodiment_fails(r1, fine):
    row = only(r1, changed(fine, policy_checksum='0' * 64))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'embodiment', 'policy_node')


def test_a_dispatcher_with_another_embodiment_file_fails(r1, fine, tmp_path):
    other = tmp_path / 'other.yaml'
    other.write_text(r1.embodiment.source + '# another\n')

    def running(path):
        own = fine.parameters['/action_dispatcher'] | {'embodiment': str(path)}
        return changed(fine, parameters=fine.parameters | {'/action_dispatcher': own})

    row = only(r1, running(other))
    assert (row.verdict, row.subject) == (Verdict.FAIL, 'action_dispatcher')
    assert only(r1, running(tmp_path / 'elsewhere')).verdict is Verdict.WARN
    other.write_text(r1.embodiment.source)
    assert rows(r1, running(other)) == []


def test_nodes_started_with_other_parameters_are_warned_of(r1, fine):
    own = fine.parameters['/action_dispatcher'] | {'left_arm.on_stale': 'stop'}
    graph = changed(fine, parameters=fine.parameters | {'/action_dispatcher': own})
    row = only(r1, graph)
    assert (row.verdict, row.check) == (Verdict.WARN, 'running')
    assert row.found == 'left_arm.on_stale is stop, in the file hold'


def test_chunks_that_the_dispatcher_does_not_hear_fail(r1, fine):
    row = only(r1, subscriptions(fine, '/policy_node/action_chunk'))
    assert (row.verdict, row.check) == (Verdict.FAIL, 'chunks')


@pytest.mark.parametrize(
    ('using', 'clocks', 'verdict', 'text'),
    [
        ((True, True), 1, None, ''),
        ((False, False), 0, None, ''),
        ((True, True), 0, Verdict.FAIL, 'nobody publishes it'),
        ((True, False), 1, Verdict.FAIL, 'does not'),
        ((False, False), 1, Verdict.WARN, 'our nodes do not use it'),
        ((True, True), 2, Verdict.FAIL, 'published by'),
    ],
)
def test_use_sim_time_and_clock_must_agree(r1, fine, using, clocks, verdict, text):
    parameters = {
        n: p | {'use_sim_time': u}
        for (n, p), u in zip(fine.parameters.items(), using, strict=True)
    }
    graph = changed(fine, parameters=parameters)
    kind = 'rosgraph_msgs/msg/Clock'
    graph = publishers(graph, '/clock', *[endpoint(f'/sim{i}', kind) for i in range(clocks)])
    found = rows(r1, graph, check='clock')
    assert [f.verdict for f in found] == ([verdict] if verdict else [])
    assert all(text in f.found for f in found)
