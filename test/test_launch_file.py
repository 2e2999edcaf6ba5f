"""The launch files say what `faster_vla_ros/graph.py` says, for every set of arguments.

Everywhere: against small recorders in place of the launch system. Where launch and launch_ros are
installed: against the real ones, up to what the started processes get.
"""

import importlib
import json
import os
import pathlib
import runpy
import stat
import sys
import types

from project_files import ROOT
import pytest

from faster_core.errors import ConfigError
from faster_vla_ros import realtime
from faster_vla_ros.graph import GRAPHS, NAMESPACE, PACKAGE, r1lite_wbc

R1_LITE = 'r1lite_wbc'
# Graph, and arguments as a person types them after `ros2 launch`.
ARGUMENT_SETS = [
    (R1_LITE, {}),
    (R1_LITE, {'sim': 'false', 'checkpoint': '.'}),
    (R1_LITE, {'dry_run': 'true', 'auto_enable': 'false'}),
    (R1_LITE, {'sim': 'false', 'dry_run': 'true', 'nodes': 'guard,action_dispatcher'}),
    (R1_LITE, {'sim': 'false', 'remote': 'pc:7447', 'instruction': 'drive to the yellow post'}),
    (R1_LITE, {'use_sim_time': 'true', 'vendor_images': 'true', 'seed': '7', 'task': 'pick_red'}),
    (R1_LITE, {'instruction': 'yes', 'task': '', 'namespace': 'robot1'}),
    (R1_LITE, {'sim': 'false', 'checkpoint': '.', 'realtime_priority': '5'}),
    ('single_arm', {}),
    ('single_arm', {'nodes': 'mujoco_robot, action_dispatcher'}),
    ('single_arm', {'robot': 'xarm7', 'sim': 'false', 'checkpoint': '.'}),
    ('single_arm', {'robot': 'xarm7', 'nodes': 'mujoco_robot, action_dispatcher'}),
    ('single_arm', {'robot': 'ur5e', 'dialect': 'isaac', 'checkpoint': '.'}),
    ('dual_arm', {'checkpoint': '.', 'namespace': 'robot1'}),
    ('dual_arm', {'robot': 'trossen', 'sim': 'false', 'nodes': 'action_dispatcher'}),
    ('dual_arm', {'robot': 'trossen', 'dialect': 'isaac'}),
]
REFUSED = [
    ({'sim': 'false', 'auto_enable': 'true'}, 'explicit enable'),
    ({'sim': 'false', 'use_sim_time': 'true'}, 'use_sim_time'),
    ({'sim': 'false'}, 'checkpoint: the shipped one'),
    ({'sim': 'maybe'}, 'sim: expected true or false'),
    ({'seed': 'one'}, 'seed: expected a whole number'),
    ({'params_file': 'nowhere.yaml'}, 'no file'),
    ({'nodes': 'coffee_machine'}, 'unknown nodes coffee_machine'),
    ({'namespace': 'a b'}, 'namespace: expected'),
    ({'realtime_priority': '100'}, 'realtime_priority: expected 0 to 99, found 100'),
    ({'realtime_priority': 'high'}, 'realtime_priority: expected a whole number'),
]


def launch_file(name):
    return ROOT / 'launch' / f'{name}.launch.py'


def _name(values):
    if isinstance(values, str):
        return values
    return ' '.join(f'{k}:={v}' for k, v in values.items()) or 'defaults'


all_sets = pytest.mark.parametrize(('name', 'values'), ARGUMENT_SETS, ids=_name)
refused = pytest.mark.parametrize(
    ('values', 'message'), REFUSED, ids=[_name(values) for values, _ in REFUSED]
)


def graph_of(name, values):
    known = {a.name: a for a in GRAPHS[name].arguments}
    nodes = [n.strip() for n in values.get('nodes', '').split(',') if n]
    given = {n: known[n].parse(text) for n, text in values.items() if n != 'nodes'}
    return GRAPHS[name](nodes=nodes or None, **given)


def test_every_graph_has_a_launch_file_and_every_launch_file_a_graph():
    found = {p.name.removesuffix('.launch.py') for p in (ROOT / 'launch').glob('*.launch.py')}
    assert found == set(GRAPHS)


@pytest.fixture
def clean_environment(monkeypatch):
    for name in r1lite_wbc().environment:
        monkeypatch.delenv(name, raising=False)


# --- recorders in place of the launch system ----------------------------------------------------


class _Recorder:
    """Keeps its keyword arguments; refuses what the real class does not know."""

    positional, known, required = (), (), ()

    def __init__(self, *args, **kwargs):
        assert len(args) <= len(self.positional)
        given = dict(zip(self.positional, args, strict=False)) | kwargs
        assert set(self.required) <= set(given) <= {*self.positional, *self.known}, given
        vars(self).update(given)


class LaunchDescription(_Recorder):
    positional = ('entities',)


class DeclareLaunchArgument(_Recorder):
    positional = required = ('name',)
    known = ('default_value', 'description', 'choices')


class LogInfo(_Recorder):
    known = required = ('msg',)


class OpaqueFunction(_Recorder):
    known, required = ('function', 'args', 'kwargs'), ('function',)


class SetEnvironmentVariable(_Recorder):
    positional = required = ('name', 'value')


class Shutdown(_Recorder):
    known = ('reason',)


class Node(_Recorder):
    required = ('executable',)
    known = (
        *('package', 'executable', 'name', 'namespace', 'exec_name', 'parameters', 'remappings'),
        *('ros_arguments', 'arguments', 'output', 'on_exit', 'additional_env', 'respawn'),
        *('sigterm_timeout', 'sigkill_timeout', 'emulate_tty', 'cwd', 'env', 'prefix'),
    )


class ParameterValue(_Recorder):
    positional, known, required = ('value',), ('value_type', 'description'), ('value',)


class LaunchConfiguration(_Recorder):
    positional = required = ('variable_name',)

    def perform(self, context):
        return context.launch_configurations[self.variable_name]


@pytest.fixture
def recorders(monkeypatch, clean_environment):
    """Give the set of packages that are to be taken for installed."""

    def module(name, *contents):
        made = types.ModuleType(name)
        made.__dict__.update({c.__name__: c for c in contents})
        monkeypatch.setitem(sys.modules, name, made)

    module('launch', LaunchDescription)
    module(
        'launch.actions',
        *(DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable, Shutdown),
    )
    module('launch.substitutions', LaunchConfiguration)
    module('launch_ros')
    module('launch_ros.actions', Node)
    module('launch_ros.parameter_descriptions', ParameterValue)
    # Imported anew, with the recorders, and never again with them.
    sys.modules.pop('faster_vla_ros.launching', None)
    launching = importlib.import_module('faster_vla_ros.launching')
    packages = set()
    monkeypatch.setattr(launching, 'installed', lambda package: package in packages)
    monkeypatch.setattr(launching.realtime, 'require_priorities', lambda graph: None)
    yield packages
    sys.modules.pop('faster_vla_ros.launching', None)


def described(values, name=R1_LITE):
    """Return (arguments, environment, nodes) the launch file describes for these values."""
    declared, made = made_of(values, name)
    variables = {v.name: v.value for v in made if isinstance(v, SetEnvironmentVariable)}
    nodes = [n for n in made if isinstance(n, Node)]
    others = [m for m in made if not isinstance(m, (Node, LogInfo))]
    assert made[: len(variables)] == others, 'variables must be set before nodes start'
    return declared, variables, nodes


def made_of(values, name):
    """Return (arguments, actions) of the launch file for these values."""
    entities = runpy.run_path(str(launch_file(name)))['generate_launch_description']().entities
    declared = [e for e in entities if isinstance(e, DeclareLaunchArgument)]
    (start,) = [e for e in entities if isinstance(e, OpaqueFunction)]
    assert entities.index(start) == len(declared), 'arguments must be declared first'
    configurations = {d.name: d.default_value for d in declared} | values
    context = types.SimpleNamespace(launch_configurations=configurations)
    return declared, start.function(context)


@pytest.mark.parametrize('name', GRAPHS)
def test_every_argument_of_the_graph_is_declared_with_default_and_help(recorders, name):
    declared, _, _ = described({'nodes': 'action_dispatcher'}, name)
    *own, nodes = [(d.name, d.default_value, d.description) for d in declared]
    assert own == [(a.name, a.default_text, a.help) for a in GRAPHS[name].arguments]
    assert nodes[:2] == ('nodes', '') and nodes[2]


@all_sets
def test_nodes_are_those_of_the_graph(recorders, name, values):
    _, _, nodes = described(values, name)
    for node, spec in zip(nodes, graph_of(name, values).nodes, strict=True):
        assert (node.package, node.executable, node.name) == (PACKAGE, spec.executable, spec.name)
        given = dict(spec.remappings)
        assert node.namespace == given.pop(NAMESPACE, '')
        assert dict(node.remappings) == given
        priority = spec.realtime_priority
        assert node.prefix == (f'chrt -f {priority}' if priority else None)
        *files, own = node.parameters
        assert files == [str(f) for f in spec.parameter_files]
        plain = {k: v.value if isinstance(v, ParameterValue) else v for k, v in own.items()}
        assert plain == spec.parameters
        assert {k: type(v) for k, v in plain.items()} == {
            k: type(v) for k, v in spec.parameters.items()
        }


@pytest.mark.parametrize('name', ['single_arm', 'dual_arm'])
def test_a_policy_left_out_is_told_before_the_nodes_start(recorders, name):
    _, made = made_of({}, name)
    (at,) = [i for i, m in enumerate(made) if isinstance(m, LogInfo)]
    assert 'warning: policy_node is left out' in made[at].msg
    assert not any(isinstance(m, Node) for m in made[:at])
    assert {m.name for m in made[at + 1 :]} == {'mujoco_robot', 'action_dispatcher'}
    _, made = made_of({'checkpoint': '.'}, name)
    assert not any(isinstance(m, LogInfo) for m in made)


def test_texts_stay_texts_whatever_yaml_makes_of_them(recorders):
    _, _, nodes = described({'instruction': 'yes'})
    for node in nodes:
        for value in node.parameters[-1].values():
            assert not isinstance(value, str)
            assert not isinstance(value, ParameterValue) or value.value_type is str


def test_one_node_less_ends_the_launch_and_the_dispatcher_gets_time_for_its_commands(recorders):
    _, _, nodes = described({})
    assert all(isinstance(n.on_exit, Shutdown) for n in nodes)
    assert len({id(n.on_exit) for n in nodes}) == len(nodes)
    assert all(float(n.sigterm_timeout) >= 5.0 for n in nodes)


def test_the_graphs_environment_is_set_unless_the_user_has_set_it(recorders, monkeypatch):
    assert described({})[1] == r1lite_wbc().environment
    monkeypatch.setenv('PYTHONUNBUFFERED', '2')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '')
    variables = described({})[1]
    assert variables['PYTHONUNBUFFERED'] == '2'
    assert variables['FASTDDS_DEFAULT_PROFILES_FILE'].endswith('fastdds_shm.xml')


@refused
def test_wrong_arguments_start_nothing(recorders, values, message):
    with pytest.raises(ConfigError, match=message):
        described(values)


# --- what is shown beside the nodes -------------------------------------------------------------


JOINTS = [('single_arm', 'fr3_joint1'), ('dual_arm', 'waist'), (R1_LITE, 'left_arm_joint1')]


@pytest.mark.parametrize(('name', 'joint'), JOINTS)
def test_a_simulated_robot_is_described_where_robot_state_publisher_is_installed(
    recorders, name, joint
):
    values = {'nodes': 'mujoco_robot', 'namespace': 'robot1', 'use_sim_time': 'true'}
    assert [n.package for n in described(values, name)[2]] == [PACKAGE]
    recorders.add('robot_state_publisher')
    robot, publisher = described(values, name)[2]
    assert robot.executable == 'mujoco_robot'
    assert publisher.package == publisher.executable == 'robot_state_publisher'
    assert joint in publisher.parameters[0]['robot_description'].value
    assert publisher.parameters[0]['use_sim_time'] is True
    assert publisher.namespace == '/robot1'
    assert dict(publisher.remappings) == {
        'joint_states': 'mujoco_robot/joint_states',
        'robot_description': 'robot_state_publisher/robot_description',
        '/tf': 'tf',
        '/tf_static': 'tf_static',
    }


@pytest.mark.parametrize('name', GRAPHS)
def test_frames_of_the_only_robot_keep_their_topics(recorders, name):
    recorders.add('robot_state_publisher')
    _, publisher = described({'nodes': 'mujoco_robot'}, name)[2]
    assert not {'/tf', '/tf_static'} & {old for old, _ in publisher.remappings}


@pytest.mark.parametrize('name', GRAPHS)
def test_a_real_robot_is_described_by_its_own_driver(recorders, name):
    recorders.add('robot_state_publisher')
    values = {'sim': 'false', 'nodes': 'action_dispatcher'}
    assert [n.package for n in described(values, name)[2]] == [PACKAGE]


@pytest.mark.parametrize('name', GRAPHS)
def test_rviz_starts_with_the_graphs_layout_if_it_is_wanted_and_there(recorders, name):
    values = {'rviz': 'true', 'nodes': 'action_dispatcher'}
    with pytest.raises(ConfigError, match='rviz2'):
        described(values, name)
    recorders.add('rviz2')
    *_, rviz = described(values, name)[2]
    assert (rviz.package, rviz.executable) == ('rviz2', 'rviz2')
    assert rviz.parameters == [{'use_sim_time': False}]
    assert rviz.arguments == ['-d', str(ROOT / 'config' / 'rviz' / f'{name}.rviz')]
    assert not hasattr(rviz, 'on_exit'), 'closing its window must not end the robot'


# --- the real launch system ---------------------------------------------------------------------

# In place of every node: writes down what it got, and how it ended. The simulated robot (or the
# dispatcher of a real one) ends by itself once all have written.
_STUB = """#!{python}
import json, os, pathlib, signal, sys, time
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

folder = pathlib.Path(os.environ['DUMP'])
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
node = Node('unnamed', automatically_declare_parameters_from_overrides=True)
names = {names}
parameters = {{n: p.value for n, p in node.get_parameters_by_prefix('').items()}}
got = {{
    'name': node.get_name(),
    'executable': pathlib.Path(sys.argv[0]).name,
    'chunks': node.resolve_topic_name('action_chunk'),
    'priority': os.sched_getparam(0).sched_priority,
    'environment': {{n: os.environ.get(n) for n in names}},
    'parameters': {{n: v if isinstance(v, (bool, int, float, str)) else list(v)
                   for n, v in parameters.items() if v is not None}},
}}
(folder / 'new').with_suffix(f'.{{os.getpid()}}').write_text(json.dumps(got))
(folder / 'new').with_suffix(f'.{{os.getpid()}}').rename(folder / f'{{node.get_name()}}.json')
first = got['executable'] == '{first}'
while len(list(folder.glob('*.json'))) < {count} or not first:
    time.sleep(0.05)
"""


@pytest.fixture
def launched(tmp_path, monkeypatch, clean_environment):
    """Return a function that launches stubs and gives (what each got by name, exit status)."""
    before = dict(os.environ)
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'log'))

    def launch_stubs(name, values):
        from launch.actions import IncludeLaunchDescription
        from launch.launch_description_sources import PythonLaunchDescriptionSource

        from launch import LaunchService

        graph = graph_of(name, values)
        index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages' / PACKAGE
        index.parent.mkdir(parents=True)
        index.touch()
        (tmp_path / 'lib' / PACKAGE).mkdir(parents=True)
        (tmp_path / 'dump').mkdir()
        for spec in graph.nodes:
            path = tmp_path / 'lib' / PACKAGE / spec.executable
            text = _STUB.format(
                python=sys.executable,
                names=[*graph.environment],
                first=graph.nodes[0].executable,
                count=len(graph.nodes),
            )
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        prefixes = [str(tmp_path), os.environ.get('AMENT_PREFIX_PATH', '')]
        monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(filter(None, prefixes)))
        monkeypatch.setenv('DUMP', str(tmp_path / 'dump'))
        monkeypatch.setenv('ROS_DOMAIN_ID', '43')
        service = LaunchService(noninteractive=True)
        source = PythonLaunchDescriptionSource(str(launch_file(name)))
        service.include_launch_description(
            IncludeLaunchDescription(source, launch_arguments=list(values.items()))
        )
        status = service.run()
        got = [json.loads(p.read_text()) for p in (tmp_path / 'dump').glob('*.json')]
        return {g['name']: g for g in got}, status

    yield launch_stubs
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.launch
@pytest.mark.parametrize('name', GRAPHS)
def test_the_launch_system_lists_the_arguments(name):
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchContext

    context = LaunchContext()
    source = PythonLaunchDescriptionSource(str(launch_file(name)))
    arguments = source.get_launch_description(context).get_launch_arguments()

    def text(substitutions):
        return ''.join(s.perform(context) for s in substitutions)

    *own, _ = [(a.name, text(a.default_value), a.description) for a in arguments]
    assert own == [(a.name, a.default_text, a.help) for a in GRAPHS[name].arguments]


@pytest.mark.launch
@pytest.mark.ros
@all_sets
def test_launched_processes_get_what_the_graph_says(launched, name, values):
    graph = graph_of(name, values)
    try:
        realtime.require_priorities(graph)
    except ConfigError as e:
        pytest.skip(str(e))
    got, status = launched(name, values)
    assert status == 0
    assert set(got) == {spec.name for spec in graph.nodes}
    for spec in graph.nodes:
        process = got[spec.name]
        assert process['executable'] == spec.executable
        assert process['priority'] == spec.realtime_priority
        found = process['parameters']
        assert {n: found.get(n) for n in spec.parameters} == dict(spec.parameters)
        topic = dict(spec.remappings).get('action_chunk', 'action_chunk')
        assert process['chunks'] == f'{graph.namespace}/{topic}'
        assert process['environment'] == dict(graph.environment)
        for path in spec.parameter_files:
            assert pathlib.Path(path).is_file()
    # Of the shipped file.
    rate = got['action_dispatcher']['parameters']['dispatch_rate']
    assert rate == (100.0 if name == 'dual_arm' else 50.0)


@pytest.mark.launch
@refused
def test_wrong_arguments_launch_nothing(launched, caplog, values, message):
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchService

    service = LaunchService(noninteractive=True)
    source = PythonLaunchDescriptionSource(str(launch_file(R1_LITE)))
    service.include_launch_description(
        IncludeLaunchDescription(source, launch_arguments=list(values.items()))
    )
    assert service.run() == 1
    assert message in caplog.text
    assert 'process started' not in caplog.text
