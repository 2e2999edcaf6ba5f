"""`faster-vla draft-robot`: two files from a URDF that our own readers accept."""

import pytest
from robot_files import as_dispatcher, as_guard, as_policy_node
import yaml

pytest.importorskip('rclpy')

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_vla_ros.cli import main
from faster_vla_ros.draft import urdf
from faster_vla_ros.draft.files import free_range, speed
from faster_vla_ros.draft.layout import layout
from faster_vla_ros.graph import single_arm

pytestmark = pytest.mark.ros


def joint(name, kind, parent, child, limit='', mimic=''):
    limit = f'<limit {limit} effort="1"/>' if limit else ''
    mimic = f'<mimic joint="{mimic}"/>' if mimic else ''
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'{limit}{mimic}</joint>'
    )


def robot(*joints, name='toy'):
    return f'<?xml version="1.0"?><robot name="{name}">{"".join(joints)}</robot>'


def arm(prefix='', root='base_link', joints=3):
    """Return an arm: fixed foot, joints in an order that is not that of the chain, a tool."""
    made = [joint(f'{prefix}foot', 'fixed', root, f'{prefix}link0')]
    for i in range(joints, 0, -1):
        limit = f'lower="-{i}" upper="{i}" velocity="2.5"'
        link, child = f'{prefix}link{i - 1}', f'{prefix}link{i}'
        made.append(joint(f'{prefix}j{i}', 'revolute', link, child, limit))
    made.append(joint(f'{prefix}flange', 'fixed', f'{prefix}link{joints}', f'{prefix}tool'))
    return made


def hand(prefix=''):
    """Return two sliding fingers of which one follows the other."""
    limit = 'lower="0" upper="0.04" velocity="0.2"'
    tool = f'{prefix}tool'
    return [
        joint(f'{prefix}finger1', 'prismatic', tool, f'{prefix}f1', limit),
        joint(f'{prefix}finger2', 'prismatic', tool, f'{prefix}f2', limit, f'{prefix}finger1'),
    ]


@pytest.fixture
def draft(tmp_path, capsys):
    """Return a function: (URDF, options) -> exit status, paths of both files, what was said."""

    def run(text, *options, name='toy'):
        path = tmp_path / 'robot.urdf'
        path.write_text(text)
        command = ['draft-robot', str(path), '--name', name, '--out', str(tmp_path), *options]
        status = main(command)
        said = capsys.readouterr()
        files = (tmp_path / f'{name}_embodiment.yaml', tmp_path / f'{name}_robot.yaml')
        return status, files, said.out + said.err

    return run


def read(files):
    """Return what all our readers make of the files."""
    embodiment = Embodiment.load(files[0])
    return embodiment, as_dispatcher(files[1], files[0]), as_policy_node(files[1], files[0])


# --- what is drafted --------------------------------------------------------------------------


def test_an_arm_with_a_gripper_becomes_two_files_that_our_readers_accept(draft):
    status, files, said = draft(robot(*arm(), *hand()))
    assert status == 0
    embodiment, dispatcher, (policy, _) = read(files)
    assert [(c.name, c.names) for c in embodiment.action] == [
        ('arm', ('j1', 'j2', 'j3')),
        ('gripper', ('finger1',)),
    ]
    assert embodiment.state == embodiment.action
    assert embodiment.tokenizer_groups == (('arm',), ('gripper',))
    assert dispatcher.parameters['arm.joints'] == ('j1', 'j2', 'j3')
    assert policy['cameras'] == ('scene', 'wrist')
    assert all(str(file) in said for file in files)


def test_joints_come_in_the_order_of_the_chain_not_of_the_file(draft):
    _, files, _ = draft(robot(*reversed(arm(joints=5)), *hand()))
    assert read(files)[0].action[0].names == ('j1', 'j2', 'j3', 'j4', 'j5')


def test_limits_keep_a_distance_from_those_of_the_urdf(draft):
    _, files, _ = draft(robot(*arm(), *hand()))
    limits = read(files)[1].rules.components
    assert limits['arm'].max_velocity.tolist() == [0.75] * 3  # 30 % of 2.5
    assert limits['arm'].upper.tolist() == pytest.approx([0.96, 1.92, 2.88])
    assert limits['arm'].lower.tolist() == pytest.approx([-0.96, -1.92, -2.88])
    assert limits['gripper'].upper.tolist() == pytest.approx([0.0392])
    assert limits['gripper'].max_start_offset == pytest.approx(0.04)


@pytest.mark.parametrize('velocity', [0.011, 0.7, 3.14159, 2.175])
def test_a_speed_is_never_rounded_up(velocity):
    (j,) = urdf.parse(
        robot(joint('j', 'revolute', 'a', 'b', f'lower="0" upper="1" velocity="{velocity}"'))
    ).joints.values()
    assert 0.8 * 0.3 * velocity < speed(j) <= 0.3 * velocity
    assert free_range(j) == (0.02, 0.98)


def test_two_arms_get_the_names_of_their_sides(draft):
    joints = [*arm('right_'), *hand('right_'), *arm('left_'), *hand('left_')]
    _, files, _ = draft(robot(*joints), '--arm', 'left_tool', '--arm', 'right_tool')
    assert [c.name for c in read(files)[0].action] == [
        *('left_arm', 'left_gripper', 'right_arm', 'right_gripper')
    ]


def test_two_arms_without_sides_are_numbered(draft):
    joints = [*arm('a_'), *arm('b_')]
    _, files, _ = draft(robot(*joints), '--arm', 'a_tool', '--arm', 'b_tool')
    assert [c.name for c in read(files)[0].action] == ['arm1_arm', 'arm2_arm']


def test_a_base_is_added_if_it_is_asked_for_with_its_guard(draft):
    _, files, said = draft(robot(*arm()), '--base')
    embodiment, dispatcher, _ = read(files)
    assert embodiment.action[-1].names == ('vx', 'vy', 'wz')
    assert dispatcher.rules.components['base'].on_stale == 'zero'
    assert as_guard(files[1])['topics'] == (dispatcher.outputs['base'][1].topic,)
    assert as_guard(files[1])['types'] == ('twist_stamped',)
    assert 'base.max_velocity' in said and 'as base.output' in said


def test_the_guard_of_a_drafted_base_is_started(draft):
    _, files, _ = draft(robot(*arm()), '--base')
    graph = single_arm(
        sim=False,
        params_file=str(files[1]),
        embodiment=str(files[0]),
        nodes=['guard', 'action_dispatcher'],
    )
    assert [n.name for n in graph.nodes] == ['guard', 'action_dispatcher']
    files[1].write_text(
        files[1].read_text().replace('base.output: "twist_stamped"', 'base.output: "twist"')
    )
    with pytest.raises(ConfigError, match='the dispatcher sends twist there'):
        single_arm(params_file=str(files[1]), nodes=['guard'])


def test_cameras_rate_and_horizon_are_those_asked_for(draft):
    options = ('--camera', 'top', '--camera', 'hand', '--rate', '30', '--horizon', '16')
    _, files, _ = draft(robot(*arm()), *options)
    embodiment, _, (policy, _) = read(files)
    assert (embodiment.cameras, embodiment.action_frequency) == (('top', 'hand'), 30.0)
    assert (embodiment.action_horizon, policy['reference_camera']) == (16, 'top')


# --- grippers ---------------------------------------------------------------------------------


def test_a_turning_joint_that_others_mimic_is_a_gripper(draft):
    """As the Robotiq's knuckle."""
    limit = 'lower="0" upper="0.8" velocity="0.5"'
    knuckles = [
        joint('knuckle', 'revolute', 'tool', 'k1', limit),
        joint('other', 'revolute', 'tool', 'k2', limit, 'knuckle'),
        joint('tip', 'revolute', 'k1', 't1', limit, 'knuckle'),
    ]
    _, files, _ = draft(robot(*arm(), *knuckles))
    gripper = read(files)[0].action[1]
    assert (gripper.name, gripper.names) == ('gripper', ('knuckle',))


def test_a_hand_of_several_motors_is_refused_and_named(draft):
    limit = 'lower="0" upper="1" velocity="1"'
    fingers = [joint(f'thumb{i}', 'revolute', 'tool', f't{i}', limit) for i in range(2)]
    status, files, said = draft(robot(*arm(), *fingers), '--arm', 'tool')
    assert status == 2 and 'several motors (thumb0, thumb1)' in said
    assert not any(f.exists() for f in files)


def test_the_end_of_an_arm_may_be_named_by_a_finger(draft):
    _, files, _ = draft(robot(*arm(), *hand()), '--arm', 'f1')
    assert [c.name for c in read(files)[0].action] == ['arm', 'gripper']


def test_a_joint_that_slides_on_the_way_to_a_named_end_is_the_arms_own(draft):
    """As the last one of a SCARA: R R R P."""
    scara = [*arm(), joint('z', 'prismatic', 'tool', 'l4', 'lower="0" upper="0.2" velocity="1"')]
    scara.append(joint('flange4', 'fixed', 'l4', 'tool0'))
    for end in ('l4', 'tool0'):
        _, files, _ = draft(robot(*scara), '--arm', end, name=f'to_{end}')
        embodiment, dispatcher, _ = read(files)
        assert [(c.name, c.names[-1]) for c in embodiment.action] == [('arm', 'z')]
        assert dispatcher.rules.components['arm'].max_start_offset <= 0.05  # m for one of them
        assert 'rad and m' in files[1].read_text()


# --- what is not there ------------------------------------------------------------------------


def test_missing_limits_are_slow_marked_and_told(draft):
    bare = [
        joint('j1', 'revolute', 'base', 'l1'),
        joint('j2', 'continuous', 'l1', 'l2', 'velocity="1"'),
        joint('j3', 'revolute', 'l2', 'l3', 'lower="0" upper="0" velocity="0"'),
    ]
    status, files, said = draft(robot(*bare))
    assert status == 0
    limits = read(files)[1].rules.components['arm']
    assert limits.max_velocity.tolist() == [0.3, 0.3, 0.3]
    assert 'TODO: the URDF has none for j1, j3' in said
    assert 'no range for j1, j2, j3' in said


def test_one_endless_joint_leaves_the_others_their_ranges(draft):
    """As Kinova's Gen3: every second joint turns without end."""
    joints = [
        joint('j1', 'continuous', 'base', 'l1', 'velocity="1"'),
        joint('j2', 'revolute', 'l1', 'l2', 'lower="-2" upper="2" velocity="1"'),
    ]
    status, files, said = draft(robot(*joints))
    assert status == 0
    limits = read(files)[1].rules.components['arm']
    assert (limits.lower[1], limits.upper[1]) == (-1.92, 1.92)
    assert -10 < limits.lower[0] < -6 and 6 < limits.upper[0] < 10
    (told,) = [line for line in said.splitlines() if 'position_limits' in line]
    assert 'TODO: the URDF has no range for j1;' in told


def test_rate_horizon_and_cameras_of_the_embodiment_are_to_be_answered(draft):
    _, _, said = draft(robot(*arm()))
    assert 'nothing' not in said
    for word in ('action_frequency: 15.0', 'action_horizon: 20', 'cameras: [scene, wrist]'):
        assert any(word in line and 'TODO' in line for line in said.splitlines()), word


def test_every_mark_in_the_files_is_told_with_its_line(draft):
    _, files, said = draft(robot(*arm(), *hand()), '--base')
    for file in files:
        lines = file.read_text().splitlines()
        marked = [i for i, line in enumerate(lines, 1) if 'TODO' in line and line[0] != '#']
        assert marked
        for number in marked:
            assert f'  {number}: {lines[number - 1].strip()}' in said
    assert 'arm.topic' in said and 'arm.max_acceleration' in said


def test_joints_that_are_left_out_are_told(draft):
    torso = joint('lift', 'prismatic', 'base_link', 'mast', 'lower="0" upper="1" velocity="1"')
    _, _, said = draft(robot(torso, *arm()), '--arm', 'tool')
    assert 'left out, no arm and no gripper: lift' in said


def test_names_that_yaml_would_read_otherwise_stay_names(draft):
    limit = 'lower="-1" upper="1" velocity="1"'
    joints = [joint('yes', 'revolute', 'a', 'b', limit), joint('1e3', 'revolute', 'b', 'c', limit)]
    _, files, _ = draft(robot(*joints))
    assert read(files)[0].action[0].names == ('yes', '1e3')


# --- refused ----------------------------------------------------------------------------------

XACRO = 'xmlns:xacro="http://www.ros.org/wiki/xacro"'
BOMB = (
    '<!DOCTYPE robot [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<robot name="&b;"/>'
)
FILE = '<!DOCTYPE robot [<!ENTITY a SYSTEM "file:///etc/passwd">]><robot name="x">&a;</robot>'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'expected XML'),
        ('not xml', 'expected XML'),
        ('<robot><joint></robot>', 'expected XML'),
        ('<sdf version="1.7"/>', 'expected <robot> at the top, found <sdf>'),
        ('<robot name="x"/>', 'expected joints that move, found none'),
        (BOMB, 'found the entity a'),
        (FILE, 'found the entity a'),
        (f'<robot {XACRO} name="x"><xacro:arm/></robot>', '<xacro:arm>: this is a xacro'),
        (
            f'<robot {XACRO} name="x">'
            + joint('${prefix}j', 'revolute', 'a', 'b', 'lower="0" upper="1" velocity="1"')
            + '</robot>',
            r'${prefix}j: this is a xacro, expand it first (`xacro robot.urdf.xacro',
        ),
        (
            robot(joint('j', 'revolute', 'a', 'b', 'lower="${-pi}" upper="1" velocity="1"')),
            '${-pi}: this is a xacro',
        ),
        (
            robot(joint('j', 'revolute', 'a', 'b', 'lower="low" upper="1" velocity="1"')),
            "joint j: lower: expected a number, found 'low'",
        ),
        (
            robot(joint('j', 'revolute', 'a', 'b', 'lower="0" upper="nan" velocity="1"')),
            "joint j: upper: expected a finite number, found 'nan'",
        ),
        ('<robot><joint name="j" type="revolute"/></robot>', 'joint j: expected <parent link='),
        (robot(*arm(), *arm()), 'joints named twice'),
        (
            robot(joint('i', 'revolute', 'a', 'b'), joint('j', 'revolute', 'c', 'b')),
            'links with two parents: b',
        ),
        (
            robot(joint('i', 'revolute', 'a', 'b'), joint('j', 'revolute', 'b', 'a')),
            'its parents go round in a circle',
        ),
        (
            robot(*arm(), joint('m', 'revolute', 'tool', 'x', mimic='nobody')),
            'joint m mimics nobody, which does not exist',
        ),
        (robot(*arm('l_'), *arm('r_')), 'several arms of 3 joints'),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_what_is_no_urdf_of_a_robot_is_refused_and_nothing_is_written(draft, text, message):
    status, files, said = draft(text)
    assert status == 2
    assert message in said
    assert 'Traceback' not in said
    assert not any(f.exists() for f in files)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--arm', 'nowhere'), 'link nowhere: expected one of the URDF, such as tool'),
        (('--arm', 'link0'), '--arm link0: expected a link that joints turn'),
        (('--arm', 'tool', '--arm', 'link2'), 'share j1'),
        (('--rate', '0'), 'action_frequency: expected a positive number'),
        (('--horizon', '-1'), 'action_horizon: expected a positive integer'),
        (('--camera', 'Top Camera'), 'cameras[0]'),
        (('--camera', 'arm'), '--camera arm: expected another name than those of the parts'),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(draft, options, message):
    status, files, said = draft(robot(*arm()), *options)
    assert status == 2
    assert message in said
    assert not any(f.exists() for f in files)


@pytest.mark.parametrize('name', ['Toy', 'to/y', '../toy', ''])
def test_a_name_is_no_path(tmp_path, capsys, name):
    path = tmp_path / 'robot.urdf'
    path.write_text(robot(*arm()))
    assert main(['draft-robot', str(path), '--name', name, '--out', str(tmp_path)]) == 2
    assert '--name: expected' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['robot.urdf']


@pytest.mark.parametrize('there', [0, 1])
def test_nothing_is_overwritten(draft, there):
    _, files, _ = draft(robot(*arm()))
    files[1 - there].unlink()
    before = files[there].read_text()
    status, files, said = draft(robot(*arm(), *hand()))
    assert status == 2 and 'is there already' in said
    assert files[there].read_text() == before
    assert not files[1 - there].exists()


def test_a_folder_that_is_not_there_and_a_file_that_is_not_there_are_named(draft, tmp_path):
    status, _, said = draft(robot(*arm()), '--out', str(tmp_path / 'nowhere'))
    assert status == 2 and 'nowhere' in said
    with pytest.raises(ConfigError, match=r'gone\.urdf'):
        urdf.load(tmp_path / 'gone.urdf')


def test_a_file_that_is_far_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(urdf, 'MAX_BYTES', 10)
    path = tmp_path / 'large.urdf'
    path.write_text(robot(*arm()))
    with pytest.raises(ConfigError, match='at most 10 bytes'):
        urdf.load(path)


# --- a real one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('parameters', 'arms', 'expected'),
    [
        ({'robot': 'single_arm', 'arm_model': 'fr3'}, (), 'franka_fr3'),
        ({'robot': 'single_arm', 'arm_model': 'ur5e'}, (), 'ur5e'),
        ({'robot': 'single_arm', 'arm_model': 'xarm7'}, (), 'xarm7'),
        ({'robot': 'dual_arm'}, ('left_hand', 'right_hand'), 'aloha_stationary'),
        (
            {'robot': 'dual_arm', 'arm_model': 'wxai'},
            ('left_hand', 'right_hand'),
            'trossen_stationary',
        ),
    ],
)
def test_a_simulated_arm_is_drafted_as_the_shipped_embodiment_lays_it_out(
    parameters, arms, expected
):
    pytest.importorskip('mujoco')
    from faster_core.paths import embodiment_file
    from faster_core.sim.urdf import description

    parts = layout(urdf.parse(description(parameters)), arms)
    shipped = Embodiment.load(embodiment_file(expected))
    assert [(p.name, len(p.joints)) for p in parts] == [(c.name, c.size) for c in shipped.action]


def test_drafts_are_yaml_that_ros_reads_with_types_it_knows(draft):
    _, files, _ = draft(robot(*arm(), *hand()), '--base')
    values = yaml.safe_load(files[1].read_text())['/**']
    for node in values.values():
        for name, value in node['ros__parameters'].items():
            if isinstance(value, list):
                assert value and len({type(v) for v in value}) == 1, name
