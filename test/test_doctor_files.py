"""`faster-vla doctor`: what it reads (parameter file, checkpoint, URDF) and how it reports."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from doctor_helpers import (
    ARM_URDF,
    healthy,
    install_control_msgs,
    r1_lite,
    ROBOT_FILE,
    rows,
    small_arm,
)

from faster_core import paths
from faster_core.errors import CheckpointError, ConfigError, ObservationError
from faster_core.execution.config import robot_file_parameters
from faster_core.policy.state import REFUSED_ABS, StateNormalizer
from faster_vla_ros.cli import main
from faster_vla_ros.doctor import checkpoint, judged, limits, report
from faster_vla_ros.doctor.expected import load
from faster_vla_ros.doctor.report import fail, info, ok, Verdict, warn
from faster_vla_ros.graph import r1lite_wbc

pytestmark = pytest.mark.ros
DEMO = paths.demo_checkpoint()


@pytest.fixture
def folder(tmp_path):
    """Return a copy of the shipped checkpoint's small files."""
    path = tmp_path / 'checkpoint'
    path.mkdir()
    for name in ('embodiment.yaml', 'normalization.json', 'config.json', 'metadata.json'):
        shutil.copy(DEMO / name, path)
    return path


# --- parameter file ---------------------------------------------------------------------------


def test_the_shipped_files_are_what_both_nodes_would_accept():
    expected = r1_lite()
    assert [(f.verdict, f.check) for f in expected.findings] == [
        (Verdict.OK, 'checkpoint'),
        (Verdict.OK, 'parameters'),
        (Verdict.OK, 'parameters'),
    ]


@pytest.mark.parametrize(
    ('change', 'node', 'text'),
    [
        (('blend_steps: 3', 'blend_stepz: 3'), 'action_dispatcher', 'blend_stepz'),
        (('base.output: "twist_stamped"', 'base.output: "wheels"'), 'action_dispatcher', 'wheels'),
        (('torso.size: [4]', 'torso.size: [3]'), 'policy_node', 'at least 4'),
        (('reference_camera: "head"', 'reference_camera: "x"'), 'policy_node', "found 'x'"),
        (
            ('"torso", "base"]\n      left_arm.topic: "/h', '"torso"]\n      left_arm.topic: "/h'),
            'policy_node',
            'base.field',
        ),
    ],
)
def test_what_a_node_would_refuse_fails_with_its_own_words(tmp_path, change, node, text):
    expected = r1_lite(tmp_path, change)
    (row,) = [f for f in expected.findings if f.verdict is Verdict.FAIL]
    assert (row.check, row.subject) == ('parameters', node)
    assert text in row.found
    assert (expected.policy is None) == (node == 'policy_node')
    assert (expected.dispatcher is None) == (node == 'action_dispatcher')


def test_cameras_other_than_the_embodiments_fail(tmp_path):
    expected = small_arm(tmp_path, ('scene', 'front'))
    (row,) = [f for f in expected.findings if f.verdict is Verdict.FAIL]
    assert row.found == 'cameras: expected those of the embodiment, scene; found front'


def test_a_trajectory_without_acceleration_limit_fails(tmp_path):
    expected = small_arm(tmp_path, ('arm.max_acceleration: [2.0, 2.0]', ''))
    (row,) = [f for f in expected.findings if f.verdict is Verdict.FAIL]
    assert 'arm.max_acceleration: missing' in row.found


def test_a_file_without_a_node_fails_for_that_node_only(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text(ROBOT_FILE.read_text().replace('policy_node:', 'another_node:'))
    expected = load(path, DEMO)
    assert {f.subject: f.verdict for f in expected.findings if f.check == 'parameters'} == {
        'policy_node': Verdict.FAIL,
        'action_dispatcher': Verdict.OK,
    }
    assert [i.subject for i in expected.inputs] == [
        'left_arm',
        'left_gripper',
        'right_arm',
        'right_gripper',
    ]


def test_absolute_names_of_the_robot_file_move_into_the_namespace_as_up_moves_them(tmp_path):
    graph = r1lite_wbc(namespace='robot1')
    moved = dict(r for r in graph.nodes[-1].remappings if r[0].startswith('/'))
    here, there = load(ROBOT_FILE, DEMO), load(ROBOT_FILE, DEMO, namespace='/robot1')
    assert [i.topic for i in there.inputs] == [f'/robot1/{moved[i.topic]}' for i in here.inputs]
    for name in ('/motion_target/target_speed_chassis', '/motion_target/brake_mode'):
        assert there.name(name) == f'/robot1{name}'
    assert there.forbidding == ('/robot1/controller', '/robot1/guard/state')
    assert rows(there, healthy(there)) == []
    # What the file does not have stays where it is.
    assert there.name('/clock') == '/clock'
    assert there.name('action_dispatcher') == '/robot1/action_dispatcher'


def test_one_topic_of_several_components_is_one_input_with_the_shortest_timeout(tmp_path):
    change = (
        'joints: ["a", "b"]\n      gripper',
        'joints: ["a", "b"]\n      gripper.timeout: 0.07\n      gripper',
    )
    arm = small_arm(tmp_path, change)
    (joints,) = [i for i in arm.inputs if not i.camera]
    assert (joints.subject, joints.timeout) == ('arm +1', 0.07)
    assert list(joints.sources) == ['arm', 'gripper', 'arm feedback', 'gripper feedback']


# --- checkpoint -------------------------------------------------------------------------------


def test_statistics_and_image_size_are_those_the_policy_uses():
    found = checkpoint.load(DEMO)
    raw = json.loads((DEMO / 'normalization.json').read_text())
    own = StateNormalizer.from_dict(raw, found.embodiment.state_dim)
    assert np.array_equal(found.statistics.centre, own.centre)
    assert np.array_equal(found.statistics.half_range, own.half_range)
    assert found.image_size == 96


def test_the_limit_is_the_one_at_which_the_policy_refuses():
    assert checkpoint.REFUSED_ABS == REFUSED_ABS
    own = StateNormalizer(centre=np.zeros(1), half_range=np.ones(1))
    own.check(np.array([checkpoint.REFUSED_ABS - 0.01]), ['a'])
    with pytest.raises(ObservationError):
        own.check(np.array([checkpoint.REFUSED_ABS]), ['a'])


@pytest.mark.parametrize('name', ['embodiment.yaml', 'normalization.json', 'config.json'])
def test_a_file_that_was_changed_fails_and_the_other_checks_go_on(folder, name):
    with (folder / name).open('a') as file:
        file.write('\n')
    with pytest.raises(CheckpointError, match=f'{name}: sha256 .* is not the'):
        checkpoint.load(folder)
    expected = load(ROBOT_FILE, folder)
    assert [f.check for f in expected.findings if f.verdict is Verdict.FAIL] == ['checkpoint']
    assert expected.checkpoint.statistics is None
    assert len(expected.inputs) == 9


def test_a_folder_with_the_embodiment_alone_is_that_of_a_remote_policy(folder):
    for name in ('metadata.json', 'normalization.json', 'config.json'):
        (folder / name).unlink()
    found = checkpoint.load(folder)
    assert (found.statistics, found.image_size) == (None, None)


def test_an_embodiment_file_stands_in_for_a_checkpoint():
    expected = load(ROBOT_FILE, paths.embodiment_file('r1_lite'))
    assert expected.dispatcher.embodiment == expected.embodiment
    assert expected.checkpoint.statistics is None
    assert len(expected.inputs) == 9


@pytest.mark.parametrize('name', ['franka_fr3', 'ur5e', 'xarm7', 'aloha', 'trossen'])
def test_the_files_of_every_shipped_robot_can_be_read(name, monkeypatch):
    install_control_msgs(monkeypatch)
    embodiment = {'aloha': 'aloha_stationary', 'trossen': 'trossen_stationary'}.get(name, name)
    robot = ROBOT_FILE.with_name(f'{name}.yaml')
    expected = load(robot, paths.embodiment_file(embodiment))
    assert [f.found for f in expected.findings if f.verdict is Verdict.FAIL] == []
    assert rows(expected, healthy(expected)) == []


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        ({'vision': {'image_size': 64}}, 64),
        ({'backbone': 'paligemma', 'vlm': {'vision_config': {'image_size': 224}}}, 224),
        ({'backbone': 'internvl', 'vlm': {'vision_config': {'image_size': [448, 448]}}}, 448),
        ({'backbone': 'qwen2_5_vl', 'vlm': {'vision_config': {}}, 'image_pixels': 336}, 336),
    ],
)
def test_the_image_size_of_every_family_is_found(tmp_path, config, size):
    (tmp_path / 'config.json').write_text(json.dumps(config))
    assert checkpoint._image_size(tmp_path / 'config.json') == size


@pytest.mark.parametrize(
    'text',
    ['', '[]', '{}', '{"centre": [0], "half_range": [0]}', '{"centre": [1], "half_range": [NaN]}'],
)
def test_broken_statistics_are_refused(tmp_path, text):
    path = tmp_path / 'normalization.json'
    path.write_text(text)
    with pytest.raises(CheckpointError, match='normalization'):
        checkpoint._statistics(path, 1)


# --- URDF -------------------------------------------------------------------------------------


def test_only_joints_that_move_by_themselves_have_limits_to_compare():
    assert list(limits._motors(ARM_URDF)) == ['a', 'b', 'finger']


def test_limits_that_are_no_numbers_are_no_licence(tmp_path):
    nan = small_arm(tmp_path, urdf=ARM_URDF.replace('lower="0"', 'lower="nan"'))
    (row,) = rows(nan, healthy(nan))
    assert (row.verdict, row.check, row.subject) == (Verdict.FAIL, 'limits', 'URDF')
    assert 'finger: lower: expected a finite number' in row.found


# --- what a graph is judged against -----------------------------------------------------------

UR5E = ROBOT_FILE.with_name('gazebo') / 'ur5e.yaml'


def running(file, embodiment, **changes):
    """Return the parameters of a dispatcher that was started with a robot file."""
    given = robot_file_parameters(file, 'action_dispatcher')
    return given | {'embodiment': str(embodiment), 'use_sim_time': False} | changes


def test_a_running_dispatcher_says_which_robot_is_judged():
    embodiment = paths.embodiment_file('ur5e')
    found = judged.choose(None, None, running(UR5E, embodiment, dispatch_rate=10.0))
    assert (found.robot_file, found.source) == (UR5E, embodiment)
    assert [f.found for f in found.findings] == [
        f'{UR5E}: nearest to what the dispatcher runs with',
        f'{embodiment}: what the dispatcher runs with',
    ]
    # With a checkpoint its whole folder is known.
    assert judged.choose(None, None, running(ROBOT_FILE, DEMO / 'embodiment.yaml')).source == DEMO
    # A file of another computer: only a robot file that agrees in everything is the right one.
    elsewhere = running(UR5E, '/elsewhere/embodiment.yaml')
    assert judged.choose(None, None, elsewhere).robot_file == UR5E
    with pytest.raises(ConfigError, match='give the robot file with --params'):
        judged.choose(None, None, elsewhere | {'dispatch_rate': 10.0})


def test_a_robot_of_the_users_own_is_not_judged_as_another(tmp_path):
    own = tmp_path / 'own.yaml'
    text = paths.embodiment_file('ur5e').read_text()
    own.write_text(text.replace('name: ur5e', 'name: own'))
    with pytest.raises(ConfigError, match='of no shipped robot'):
        judged.choose(None, None, running(UR5E, own))
    found = judged.choose(UR5E, None, running(UR5E, own))
    assert (found.robot_file, found.source) == (UR5E, own)


def test_without_a_dispatcher_the_default_is_judged_and_said():
    found = judged.choose(None, None, None)
    assert (found.robot_file, found.source) == (ROBOT_FILE, DEMO)
    assert 'the default: no dispatcher runs' in found.findings[0].found
    assert '--params' in found.findings[0].advice
    assert judged.choose(UR5E, None, None).source == paths.embodiment_file('ur5e')


def test_a_shipped_robot_file_is_found_by_its_name(capsys, monkeypatch):
    seen = []

    def choose(robot_file, source, running):
        seen.append(robot_file)
        raise ConfigError('enough')

    monkeypatch.setattr(judged, 'choose', choose)
    for name in ('ur5e.yaml', 'gazebo/ur5e.yaml'):
        assert main(['doctor', '--params', name, '--checkpoint', str(DEMO)]) == 2
    assert seen == [ROBOT_FILE.with_name('ur5e.yaml'), UR5E]


# --- report -----------------------------------------------------------------------------------

ROWS = [
    ok('rate', 'head', '30.0 Hz'),
    info('limits', 'URDF', 'none', 'give --urdf FILE'),
    warn('rate', 'base', '4 Hz', expected='at least 10 Hz', advice='look at the driver'),
    fail(
        'command',
        'left_gripper feedback',
        'nobody listens to /a/very/long/topic/that/does/not/fit/beside/the/rest/of/it ' * 2,
        expected='a subscription',
        advice='start it',
    ),
]


def test_only_a_failure_makes_the_status_1():
    assert report.exit_status(ROWS) == 1
    assert report.exit_status(ROWS[:3]) == 0
    assert report.exit_status([]) == 0


def test_the_table_fits_100_columns_and_says_what_to_do_where_something_is_wrong():
    lines = report.to_table(ROWS, []).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == 'OK   rate        head               30.0 Hz'
    at = lines[0].index('30.0')
    assert [line.index(':') + 2 for line in lines if line.startswith(' ') and ':' in line] == (
        [at] * 5
    )
    text = ' '.join(' '.join(lines).split())
    assert 'WARN rate base 4 Hz expected: at least 10 Hz do: look at the driver' in text
    assert lines[-1] == '1 FAIL, 1 WARN, 1 INFO, 1 OK'


def test_a_proposal_stands_below_the_table():
    lines = report.to_table(ROWS[:1], ['arm.joints: ["a"]']).splitlines()
    assert lines[-3] == '  arm.joints: ["a"]'


def test_json_holds_every_row_and_the_verdict():
    found = json.loads(report.to_json(ROWS, ['line']))
    assert found['ok'] is False
    assert found['counts'] == {'OK': 1, 'INFO': 1, 'WARN': 1, 'FAIL': 1}
    assert found['proposal'] == ['line']
    assert found['findings'][2] == {
        'verdict': 'WARN',
        'check': 'rate',
        'subject': 'base',
        'found': '4 Hz',
        'expected': 'at least 10 Hz',
        'advice': 'look at the driver',
    }


# --- command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--params', 'nowhere.yaml'], 'no file nowhere.yaml'),
        (['--urdf', 'nowhere.urdf'], 'no file nowhere.urdf'),
        (['--checkpoint', 'nowhere'], 'no checkpoint in nowhere'),
    ],
)
def test_a_file_that_is_not_there_ends_with_status_2(capsys, options, message):
    assert main(['doctor', *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'options', [['--seconds', '0'], ['--seconds', 'x'], ['--seconds', '61'], ['--namespace', '1']]
)
def test_wrong_options_end_with_status_2(options):
    with pytest.raises(SystemExit) as ending:
        main(['doctor', *options])
    assert ending.value.code == 2
