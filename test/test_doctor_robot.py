"""`faster-vla doctor`: faults of limits, commands and controllers."""

import dataclasses

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import (
    ARM_URDF,
    changed,
    END,
    endpoint,
    healthy,
    heard,
    install_control_msgs,
    joint_state,
    LATCHED,
    only,
    publishers,
    ROBOT_FILE,
    rows,
    small_arm,
    subscriptions,
)

from faster_core import paths
from faster_vla_ros.doctor.expected import load
from faster_vla_ros.doctor.limits import proposal
from faster_vla_ros.doctor.report import Verdict
from faster_vla_ros.doctor.snapshot import Controller, Snapshot

pytestmark = pytest.mark.ros


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
    assert proposal(arm, Snapshot(duration=6.5, end=END)) == [
        'arm.max_velocity: [1.0000, 2.0000]',
        'gripper.position_limits: [0.0000, 0.0399]',
        'base.axes: ["vx", "wz"]',
    ]


def test_joints_without_names_are_proposed_by_side_and_compared_as_a_guess(r1, fine):
    limit = '<limit lower="-1" upper="9" velocity="9"/>'
    joint = f'<joint name="{{0}}_arm_joint{{1}}" type="revolute">{limit}</joint>'
    ends = '<parent link="trunk"/><child link="{0}{1}"/>'
    joint = joint.replace('<limit', f'{ends}<limit')
    joints = ''.join(joint.format(s, i) for s in ('left', 'right') for i in range(1, 7))
    graph = changed(fine, robot_description=f'<robot name="r">{joints}</robot>')
    found = {f.subject: f for f in rows(r1, graph)}
    assert {f.verdict for f in found.values()} == {Verdict.WARN}
    assert 'wider than the URDF: left_arm_joint1 from -2.88 to 2.88' in found['left_arm'].found
    lines = proposal(r1, graph)
    assert lines[0].startswith('left_arm.joints: ["left_arm_joint1", "left_arm_joint2"')
    assert lines[1].startswith('# left_gripper.joints: 1 of')


def test_the_shipped_file_is_within_the_urdf_of_the_simulated_r1_lite(r1, fine):
    pytest.importorskip('mujoco')
    from faster_core.sim.urdf import description

    graph = changed(fine, robot_description=description({'robot': 'r1_lite'}))
    found = {f.subject: f for f in rows(r1, graph, Verdict.WARN, 'limits')}
    assert set(found) == {'left_arm', 'left_gripper', 'right_arm', 'right_gripper'}
    for name, row in found.items():
        assert f'if they are {name}_joint' in row.found
        assert row.found.endswith('within those of the URDF')


def test_a_component_of_velocities_has_no_range_to_compare(tmp_path):
    change = (
        '{component: arm, kind: joint_position, names: [a, b]}',
        ('{component: arm, kind: joint_velocity, names: [a, b]}'),
    )
    robot = (
        ('arm.output: "joint_trajectory"', 'arm.output: "joint_state_stream"'),
        ('      arm.max_acceleration: [2.0, 2.0]\n', ''),
        ('      arm.position_limits: [-1.0, 1.0]\n', ''),
    )
    arm = small_arm(tmp_path, *robot, urdf=ARM_URDF, embodiment=[change])
    assert arm.dispatcher is not None, arm.findings
    assert rows(arm, healthy(arm), check='limits') == []
    fast = small_arm(
        tmp_path, *robot, ('[1.0, 1.0]', '[1.0, 2.5]'), urdf=ARM_URDF, embodiment=[change]
    )
    (row,) = rows(fast, healthy(fast), check='limits')
    assert row.found == 'b at 2.5 per second'


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


@pytest.mark.parametrize('name', ['/action_dispatcher', '/guard', '/_ros2cli_7'])
def test_who_moves_nothing_does_not_count_as_a_listener(arm, name):
    graph = subscriptions(healthy(arm), '/cmd_vel', endpoint(name, 'geometry_msgs/msg/Twist'))
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


def test_a_publisher_on_the_topic_of_a_controller_whose_action_is_used_fails(
    tmp_path, monkeypatch
):
    install_control_msgs(monkeypatch)
    arm = small_arm(
        tmp_path,
        ('arm.output: "joint_trajectory"', 'arm.output: "follow_joint_trajectory"'),
        (
            'arm.topic: "arm_controller/joint_trajectory"',
            'arm.action: "arm_controller/follow_joint_trajectory"',
        ),
    )
    teleop = endpoint('/teleop', 'trajectory_msgs/msg/JointTrajectory')
    row = only(arm, publishers(healthy(arm), '/arm_controller/joint_trajectory', teleop))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'rivals', 'arm')


@pytest.mark.parametrize('state', ['inactive', 'unconfigured', 'finalized'])
def test_a_controller_that_is_not_active_fails_though_it_listens(arm, state):
    controllers = (Controller(name='arm_controller', state=state, type='jtc/JTC'),)
    row = only(arm, changed(healthy(arm), controllers=controllers))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'controller', 'arm')
    assert row.found == f'arm_controller (jtc/JTC) is {state}'
    active = (dataclasses.replace(controllers[0], state='active'),)
    assert rows(arm, changed(healthy(arm), controllers=active)) == []


@pytest.mark.parametrize('flag', ['interpolate_from_desired_state', 'open_loop_control'])
def test_a_controller_that_begins_trajectories_where_it_is_measured_is_warned_of(arm, flag):
    def with_flag(value):
        found = {'/arm_controller': {flag: value, 'joints': ['a']}, '/other': {flag: False}}
        return changed(healthy(arm), controller_parameters=found)

    row = only(arm, with_flag(False))
    assert (row.verdict, row.check, row.subject) == (Verdict.WARN, 'trajectory', 'arm')
    assert row.expected == f'{flag}: true'
    assert rows(arm, with_flag(True)) == []
    (good,) = rows(arm, with_flag(True), Verdict.OK, 'trajectory')
    assert good.found == 'arm_controller goes on from its last command'


def test_one_of_the_two_flags_is_enough_and_other_controllers_have_none(arm):
    both = {'interpolate_from_desired_state': True, 'open_loop_control': False}
    for parameters in (both, {'joints': ['a']}):
        graph = changed(healthy(arm), controller_parameters={'/arm_controller': parameters})
        assert rows(arm, graph) == []


def test_controllers_of_one_name_are_told_apart_by_their_manager():
    aloha = load(ROBOT_FILE.with_name('aloha.yaml'), paths.embodiment_file('aloha_stationary'))

    def controllers(**states):
        return tuple(
            Controller(name=n, state=s, type='t', manager=f'/follower_{side}/controller_manager')
            for side, s in states.items()
            for n in ('arm_controller', 'gripper_controller')
        )

    graph = healthy(aloha)
    found = rows(aloha, changed(graph, controllers=controllers(left='inactive', right='active')))
    assert [(f.verdict, f.check, f.subject) for f in found] == [
        (Verdict.FAIL, 'controller', 'left_arm'),
        (Verdict.FAIL, 'controller', 'left_gripper'),
    ]
    assert found[0].found == 'follower_left/arm_controller (t) is inactive'
    assert '-c /follower_left/controller_manager arm_controller active' in found[0].advice
    fine = changed(graph, controllers=controllers(left='active', right='active'))
    assert rows(aloha, fine) == []


def test_controllers_that_cannot_be_asked_are_warned_of(arm):
    row = only(arm, changed(healthy(arm), controllers_problem='no controller_manager_msgs here'))
    assert (row.verdict, row.check) == (Verdict.WARN, 'controller')


def test_an_action_without_server_or_of_another_type_fails(tmp_path, monkeypatch):
    install_control_msgs(monkeypatch)
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
    kind = 'control_msgs/action/ParallelGripperCommand'
    other = {'/gripper/cmd/_action/send_goal': (f'{kind}_SendGoal', '/gripper')}
    row = only(arm, changed(graph, services=services | other))
    assert (row.verdict, row.expected) == (Verdict.FAIL, 'control_msgs/action/GripperCommand')
    assert row.found == f'/gripper offers {kind} as /gripper/cmd'
    assert row.advice == 'choose another `gripper.output` in the parameter file'
