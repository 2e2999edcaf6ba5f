"""The description of the graph: one place for nodes, parameters, remappings and arguments."""

import pathlib
import subprocess
import sys

from project_files import module_file, ROOT
import pytest
import yaml

from faster_core.errors import ConfigError
from faster_vla_ros.graph import (
    ARGUMENTS,
    checkpoint_needed,
    dual_arm,
    fastdds_profile,
    GRAPHS,
    r1lite_wbc,
    single_arm,
)
from faster_vla_ros.graph_namespace import absolute_names

NAMES = ('mujoco_robot', 'guard', 'action_dispatcher', 'policy_node')
# (graph, arguments) of every robot that is there, as it is simulated and as it is real.
ARMS = {'single_arm': ('franka_fr3', 'ur5e', 'xarm7'), 'dual_arm': ('aloha', 'trossen')}
SIMULATED = [
    ('single_arm', {'robot': 'franka_fr3'}),
    ('single_arm', {'robot': 'ur5e'}),
    ('single_arm', {'robot': 'xarm7'}),
    ('single_arm', {'robot': 'franka_fr3', 'dialect': 'isaac'}),
    ('single_arm', {'robot': 'ur5e', 'dialect': 'isaac'}),
    ('single_arm', {'robot': 'xarm7', 'dialect': 'isaac'}),
    ('dual_arm', {'robot': 'aloha'}),
    ('dual_arm', {'robot': 'trossen'}),
    ('dual_arm', {'robot': 'aloha', 'dialect': 'isaac'}),
    ('dual_arm', {'robot': 'trossen', 'dialect': 'isaac'}),
    ('r1lite_wbc', {}),
]
REAL = [('r1lite_wbc', {})] + [(g, {'robot': r}) for g, names in ARMS.items() for r in names]


def _name(value):
    if isinstance(value, dict):
        return '-'.join(map(str, value.values())) or 'default'
    return str(value)


simulated_ones = pytest.mark.parametrize(('graph', 'arguments'), SIMULATED, ids=_name)
real_ones = pytest.mark.parametrize(('graph', 'arguments'), REAL, ids=_name)


def _dispatcher(**arguments):
    return r1lite_wbc(**arguments).node('action_dispatcher').parameters


def test_simulation_runs_robot_dispatcher_and_policy_as_three_processes():
    assert tuple(n.name for n in r1lite_wbc().nodes) == NAMES


def test_a_real_robot_starts_no_simulator():
    graph = r1lite_wbc(sim=False, checkpoint='.')
    assert {n.name for n in graph.nodes} == {'guard', 'action_dispatcher', 'policy_node'}
    assert 'mujoco_robot' not in graph.stop_order


def test_the_policy_ends_first_and_the_robot_last_so_that_safe_commands_are_heard():
    assert r1lite_wbc().stop_order == ('policy_node', 'action_dispatcher', 'guard', 'mujoco_robot')


def test_dispatcher_and_guard_have_commands_to_send_before_they_end():
    assert [n.name for n in r1lite_wbc().nodes if n.safe_stop] == ['guard', 'action_dispatcher']


def test_every_node_has_a_ready_topic_of_its_own():
    for node in r1lite_wbc().nodes:
        assert node.ready_topic.startswith(f'/{node.name}/')


def test_every_executable_is_a_console_script_of_setup_py_and_a_module():
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    for node in r1lite_wbc().nodes:
        assert f"f'{node.executable} = {{NAME}}.{node.executable}:main'" in setup
        path = module_file(f'faster_vla_ros.{node.executable}')
        assert path is not None
        assert "__name__ == '__main__'" in path.read_text(encoding='utf-8')


def test_chunks_reach_the_dispatcher_by_a_remapping():
    remappings = r1lite_wbc().node('action_dispatcher').remappings
    assert ('action_chunk', 'policy_node/action_chunk') in remappings


# --- motion needs an explicit enable ----------------------------------------------------------


def test_simulation_enables_motion_by_itself_and_a_robot_does_not():
    assert _dispatcher(sim=True)['require_enable'] is False
    assert _dispatcher(sim=False, checkpoint='.')['require_enable'] is True


def test_auto_enable_can_be_switched_off_in_simulation():
    assert _dispatcher(auto_enable='false')['require_enable'] is True


def test_auto_enable_is_refused_on_a_real_robot():
    with pytest.raises(ConfigError, match='explicit enable'):
        r1lite_wbc(sim=False, auto_enable='true')


def test_auto_enable_refuses_other_words():
    with pytest.raises(ConfigError, match='one of sim, true, false'):
        r1lite_wbc(auto_enable='perhaps')


@pytest.mark.parametrize('dry_run', [False, True])
def test_dry_run_reaches_the_dispatcher(dry_run):
    assert _dispatcher(dry_run=dry_run)['dry_run'] is dry_run


# --- real-time priority -----------------------------------------------------------------------


def test_a_realtime_priority_is_of_what_commands_the_robot_and_of_nothing_else():
    graph = r1lite_wbc(realtime_priority=5)
    assert {n.name: n.realtime_priority for n in graph.nodes} == {
        'mujoco_robot': 0,
        'guard': 5,
        'action_dispatcher': 5,
        'policy_node': 0,
    }
    assert not any(n.realtime_priority for n in r1lite_wbc().nodes)


@pytest.mark.parametrize('name', GRAPHS)
@pytest.mark.parametrize('priority', [-1, 100])
def test_priorities_that_linux_does_not_have_are_refused(name, priority):
    with pytest.raises(
        ConfigError, match=f'realtime_priority: expected 0 to 99, found {priority}'
    ):
        GRAPHS[name](realtime_priority=priority)
    for known in (1, 99):
        made = GRAPHS[name](realtime_priority=known)
        assert made.node('action_dispatcher').realtime_priority == known


# --- arguments --------------------------------------------------------------------------------


def test_unknown_argument_is_refused_and_known_ones_are_named():
    with pytest.raises(ConfigError, match=r'colour.*checkpoint'):
        r1lite_wbc(colour='red')


@pytest.mark.parametrize('wrong', [{'sim': 'yes'}, {'seed': 'one'}, {'checkpoint': 3}])
def test_argument_of_another_type_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        r1lite_wbc(**wrong)


def test_missing_params_file_is_named():
    with pytest.raises(ConfigError, match=r'no file .*nowhere.yaml'):
        r1lite_wbc(params_file='nowhere.yaml')


def test_own_params_file_replaces_the_shipped_one(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('/**: {guard: {ros__parameters: {topics: [cmd_vel]}}}')
    graph = r1lite_wbc(params_file=str(path))
    for name in ('action_dispatcher', 'policy_node', 'guard'):
        assert graph.node(name).parameter_files == (path.resolve(),)


def test_a_params_file_may_be_named_as_it_lies_below_config_robots():
    graph = single_arm(params_file='gazebo/ur5e.yaml', nodes=['action_dispatcher'])
    (file,) = graph.nodes[0].parameter_files
    assert file == ROOT / 'config' / 'robots' / 'gazebo' / 'ur5e.yaml'


def test_unknown_node_is_refused_and_known_ones_are_named():
    with pytest.raises(ConfigError, match='dispatcher; known: mujoco_robot'):
        r1lite_wbc(nodes=['dispatcher'])


def test_simulated_robot_is_no_node_of_a_real_graph():
    with pytest.raises(ConfigError, match='mujoco_robot'):
        r1lite_wbc(sim=False, nodes=['mujoco_robot'])


def test_nodes_can_be_left_out():
    graph = r1lite_wbc(nodes=['mujoco_robot', 'action_dispatcher'])
    assert graph.stop_order == ('action_dispatcher', 'mujoco_robot')
    assert checkpoint_needed(graph) is None


def test_sim_time_is_for_simulation_only():
    with pytest.raises(ConfigError, match='use_sim_time'):
        r1lite_wbc(sim=False, use_sim_time=True)


def test_another_simulator_has_its_own_file_and_may_have_its_own_clock():
    graph = single_arm(
        sim=False,
        use_sim_time=True,
        params_file='gazebo/franka_fr3.yaml',
        nodes=['action_dispatcher'],
    )
    assert graph.nodes[0].parameters['use_sim_time'] is True
    assert graph.nodes[0].parameters['require_enable'] is True


def test_sim_time_makes_the_robot_publish_the_clock_and_the_others_follow_it():
    graph = r1lite_wbc(use_sim_time=True)
    assert graph.node('mujoco_robot').parameters['publish_clock'] is True
    for name in ('action_dispatcher', 'policy_node'):
        assert graph.node(name).parameters['use_sim_time'] is True


def test_the_engine_is_the_policy_nodes_and_a_server_has_its_own():
    assert r1lite_wbc().node('policy_node').parameters['engine'] == 'auto'
    assert r1lite_wbc(engine='openvino').node('policy_node').parameters['engine'] == 'openvino'
    assert 'engine' not in r1lite_wbc(remote='127.0.0.1:1').node('policy_node').parameters
    with pytest.raises(ConfigError, match='engine openvino: a remote policy'):
        r1lite_wbc(engine='openvino', remote='127.0.0.1:1')


def test_vendor_images_have_the_vendor_resolution():
    assert r1lite_wbc(vendor_images=True).node('mujoco_robot').parameters['head_size'] == [
        1280,
        720,
    ]
    assert 'head_size' not in r1lite_wbc().node('mujoco_robot').parameters


def test_checkpoint_and_instruction_reach_the_policy(tmp_path):
    graph = r1lite_wbc(checkpoint=str(tmp_path), instruction='pick up the red block')
    assert checkpoint_needed(graph) == tmp_path.resolve()
    assert graph.node('policy_node').parameters['default_instruction'] == 'pick up the red block'


def test_the_dispatcher_gets_the_checkpoints_own_embodiment_file(tmp_path):
    (tmp_path / 'embodiment.yaml').write_text('name: mine')
    assert _dispatcher(checkpoint=str(tmp_path))['embodiment'] == str(tmp_path / 'embodiment.yaml')
    assert _dispatcher()['embodiment'].endswith('.yaml')


@pytest.mark.parametrize('name', GRAPHS)
def test_defaults_of_the_arguments_survive_the_way_through_text(name):
    for argument in GRAPHS[name].arguments:
        assert argument.parse(argument.default_text) == argument.default


@pytest.mark.parametrize(
    ('name', 'text'), [('sim', 'maybe'), ('sim', ''), ('seed', 'one'), ('seed', '1.5')]
)
def test_wrong_text_of_an_argument_is_refused(name, text):
    argument = {a.name: a for a in ARGUMENTS}[name]
    with pytest.raises(ConfigError, match=name):
        argument.parse(text)


@pytest.mark.parametrize('name', GRAPHS)
def test_arguments_have_names_once_and_a_help(name):
    arguments = GRAPHS[name].arguments
    assert len({a.name for a in arguments}) == len(arguments)
    assert all(a.help for a in arguments)


# --- robots -----------------------------------------------------------------------------------


@simulated_ones
def test_a_simulated_robot_is_played_in_the_dialect_that_its_file_speaks(graph, arguments):
    made = GRAPHS[graph](nodes=['mujoco_robot', 'action_dispatcher'], **arguments)
    robot, dispatcher = made.nodes
    (file,) = dispatcher.parameter_files
    folder = {'ros2_control': 'gazebo', 'isaac': 'isaac', 'vendor': 'robots'}
    assert file.parent.name == folder[robot.parameters['dialect']]
    assert dispatcher.parameters['require_enable'] is False


@real_ones
def test_a_real_robot_has_its_own_file_and_waits_to_be_enabled(graph, arguments):
    nodes = ['action_dispatcher']
    dispatcher = GRAPHS[graph](sim=False, nodes=nodes, **arguments).nodes[0]
    (file,) = dispatcher.parameter_files
    assert file.parent.name == 'robots'
    assert file.stem == arguments.get('robot', 'r1_lite_hardware')
    assert dispatcher.parameters['require_enable'] is True


@pytest.mark.parametrize('graph', ARMS)
def test_another_dialect_is_refused_and_the_known_ones_are_named(graph):
    with pytest.raises(ConfigError, match=r'dialect: .* ros2_control, isaac, found .vendor'):
        GRAPHS[graph](dialect='vendor', nodes=['mujoco_robot'])


def test_another_robot_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match=r'robot: expected one of aloha, trossen, found .pr2'):
        dual_arm(robot='pr2')


def test_arguments_of_the_demo_are_not_those_of_other_graphs():
    with pytest.raises(ConfigError, match='unknown arguments task'):
        single_arm(task='pick_red')
    with pytest.raises(ConfigError, match='unknown arguments robot'):
        r1lite_wbc(robot='r1_lite')


@pytest.mark.parametrize('graph', ARMS)
def test_without_a_shipped_checkpoint_a_policy_needs_one_and_is_told_how(graph, tmp_path):
    for wrong in ({'sim': False}, {'nodes': ['policy_node']}):
        with pytest.raises(ConfigError, match=r'checkpoint: none ships.*faster-vla policy train'):
            GRAPHS[graph](**wrong)
    made = GRAPHS[graph](checkpoint=str(tmp_path))
    assert checkpoint_needed(made) == tmp_path.resolve()
    assert not made.warnings
    remote = GRAPHS[graph](remote='workstation:7447')
    assert remote.node('policy_node').parameters['remote_embodiment'].endswith('.yaml')


@simulated_ones
def test_in_simulation_every_graph_starts_by_its_name_and_says_if_it_has_no_policy(
    graph, arguments
):
    made = GRAPHS[graph](**arguments)
    if graph == 'r1lite_wbc':
        assert made.node('policy_node') and not made.warnings
        return
    nodes = ['mujoco_robot', 'action_dispatcher']
    asked_for = GRAPHS[graph](nodes=nodes, **arguments)
    assert not asked_for.warnings
    assert made.nodes == asked_for.nodes and len(made.nodes) == 2
    (warning,) = made.warnings
    assert f'policy_node is left out, as no checkpoint ships for {graph}' in warning
    assert 'checkpoint' in warning and 'remote' in warning


def test_a_real_robot_never_gets_the_checkpoint_of_the_simulation_unasked(tmp_path):
    assert checkpoint_needed(r1lite_wbc()).name == 'r1_lite_demo'
    with pytest.raises(ConfigError, match=r'checkpoint: the shipped one knows the built-in sim'):
        r1lite_wbc(sim=False)
    assert checkpoint_needed(r1lite_wbc(sim=False, checkpoint=str(tmp_path))) == tmp_path
    remote = r1lite_wbc(sim=False, remote='workstation:7447')
    shipped = str(ROOT / 'config' / 'embodiments' / 'r1_lite.yaml')
    assert remote.node('policy_node').parameters['remote_embodiment'] == shipped
    # Without a policy it needs none.
    dispatcher = r1lite_wbc(sim=False, nodes=['action_dispatcher']).nodes[0]
    assert dispatcher.parameters['embodiment'] == shipped


# --- a robot of one's own ---------------------------------------------------------------------


@pytest.mark.parametrize('sim', [True, False])
def test_an_embodiment_file_takes_the_place_of_the_robots(tmp_path, sim):
    path = tmp_path / 'mine.yaml'
    path.write_text('name: mine')
    graph = single_arm(sim=sim, embodiment=str(path), nodes=['action_dispatcher'])
    assert graph.nodes[0].parameters['embodiment'] == str(path)
    remote = single_arm(sim=sim, embodiment=str(path), remote='workstation:7447')
    assert remote.node('policy_node').parameters['remote_embodiment'] == str(path)
    with pytest.raises(ConfigError, match=r'embodiment: no file nowhere\.yaml'):
        single_arm(sim=sim, embodiment='nowhere.yaml', nodes=['action_dispatcher'])


def test_a_checkpoints_own_embodiment_cannot_be_replaced(tmp_path):
    (tmp_path / 'embodiment.yaml').write_text('name: mine')
    with pytest.raises(ConfigError, match='embodiment: the checkpoint has its own'):
        single_arm(embodiment=str(tmp_path / 'embodiment.yaml'), checkpoint=str(tmp_path))
    with pytest.raises(ConfigError, match='embodiment: the checkpoint has its own'):
        r1lite_wbc(embodiment=str(tmp_path / 'embodiment.yaml'))


# --- guard ------------------------------------------------------------------------------------


def robot_file(folder, *, guard=None, output='twist', topic='cmd_vel', **more):
    """Return the file of a robot with a base, and with a guard if there are parameters of one."""
    base = {'components': ['base'], 'base.output': output, 'base.topic': topic, **more}
    nodes = {'action_dispatcher': {'ros__parameters': base}}
    if guard is not None:
        nodes['guard'] = {'ros__parameters': guard}
    path = folder / 'mine.yaml'
    path.write_text(yaml.safe_dump({'/**': nodes}))
    return str(path)


@pytest.mark.parametrize('sim', [True, False])
def test_a_robot_file_with_a_guard_gets_one(tmp_path, sim):
    file = robot_file(tmp_path, guard={'topics': ['cmd_vel']})
    graph = single_arm(sim=sim, params_file=file, checkpoint='.')
    assert 'guard' in {n.name for n in graph.nodes}
    assert graph.stop_order.index('guard') > graph.stop_order.index('action_dispatcher')
    without = robot_file(tmp_path)
    assert 'guard' not in {
        n.name for n in single_arm(sim=sim, params_file=without, checkpoint='.').nodes
    }


@pytest.mark.parametrize('kind', ['twist', 'twist_stamped'])
@pytest.mark.parametrize('topic', ['cmd_vel', '/cmd_vel'])
def test_the_guard_listens_for_what_the_dispatcher_sends(tmp_path, kind, topic):
    def added(guard):
        file = robot_file(tmp_path, guard=guard, output=kind, topic=topic)
        return dict(single_arm(params_file=file, nodes=['guard']).nodes[0].parameters)

    assert added({'topics': ['cmd_vel']}) == {'types': [kind]}
    assert added({'timeout': 0.2}) == {'topics': [topic], 'types': [kind]}
    assert added({'topics': ['cmd_vel'], 'types': [kind]}) == {}


@pytest.mark.parametrize(
    ('guard', 'words'),
    [
        ({'topics': ['cmd_vel'], 'types': ['twist_stamped']}, 'the dispatcher sends twist there'),
        ({'topics': ['speed']}, 'every topic the base is driven by, and cmd_vel is missing'),
    ],
)
def test_a_guard_that_would_hear_nothing_is_refused(tmp_path, guard, words):
    file = robot_file(tmp_path, guard=guard)
    with pytest.raises(ConfigError, match=words):
        single_arm(params_file=file, nodes=['guard'])
    # Left out on purpose, it is not judged.
    assert single_arm(params_file=file, nodes=['action_dispatcher']).nodes


def test_a_guard_with_less_patience_than_commands_take_is_refused(tmp_path):
    def added(rate, **guard):
        file = robot_file(tmp_path, guard={'topics': ['cmd_vel'], **guard}, dispatch_rate=rate)
        return single_arm(params_file=file, nodes=['guard']).nodes

    with pytest.raises(ConfigError, match=r'guard.timeout: expected at least 0.3 s.* found 0.15'):
        added(10.0)
    assert added(10.0, timeout=0.3)
    assert added(20.0)
    with pytest.raises(ConfigError, match=r'expected at least 0.03 s.* found 0.02'):
        added(100.0, timeout=0.02)


def test_a_guard_of_a_topic_with_arrays_has_to_say_so(tmp_path):
    guard = {'topics': ['cmd_vel']}
    file = robot_file(tmp_path, guard=guard, output='float64_array')
    with pytest.raises(ConfigError, match='the dispatcher sends float64_array there'):
        single_arm(params_file=file, nodes=['guard'])
    told = robot_file(tmp_path, guard=guard | {'types': ['float64_array']}, output='float64_array')
    assert single_arm(params_file=told, nodes=['guard']).node('guard').parameters == {}


@pytest.mark.parametrize('wrong', [{'components': 6}, {'base.topic': ['cmd_vel']}])
def test_a_dispatcher_with_wrong_values_has_no_outputs_to_guard(tmp_path, wrong):
    base = {'components': ['base'], 'base.output': 'twist', 'base.topic': 'cmd_vel', **wrong}
    guard = {'topics': ['cmd_vel'], 'types': ['twist']}
    nodes = {'action_dispatcher': {'ros__parameters': base}, 'guard': {'ros__parameters': guard}}
    path = tmp_path / 'wrong.yaml'
    path.write_text(yaml.safe_dump({'/**': nodes}))
    # The dispatcher itself says what is wrong with them.
    assert single_arm(params_file=str(path), nodes=['guard']).node('guard').parameters == {}


def test_the_guard_knows_the_kinds_of_its_parameter():
    pytest.importorskip('rclpy')
    from faster_vla_ros import graph_guard, guard

    assert graph_guard.KINDS == tuple(guard.KINDS)


def test_a_graph_without_its_guard_warns_that_nothing_moves_before_there_is_one():
    (warning,) = r1lite_wbc(nodes=['mujoco_robot', 'action_dispatcher']).warnings
    assert 'guard is left out: nothing moves before' in warning
    assert not r1lite_wbc(nodes=['guard', 'action_dispatcher']).warnings
    assert not r1lite_wbc(nodes=['mujoco_robot', 'guard']).warnings


def test_the_r1_lites_file_says_all_its_guard_needs():
    assert r1lite_wbc().node('guard').parameters == {}


@real_ones
def test_only_robots_with_a_base_are_guarded(graph, arguments):
    made = GRAPHS[graph](sim=False, checkpoint='.', **arguments)
    assert ('guard' in {n.name for n in made.nodes}) is (graph == 'r1lite_wbc')


def test_a_robot_file_without_a_guard_is_refused_where_a_base_must_be_watched(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('/**: {}')
    for sim in (True, False):
        with pytest.raises(ConfigError, match='says nothing of the guard'):
            r1lite_wbc(params_file=str(path), sim=sim, checkpoint='.')
    # Left out on purpose, it is not missed.
    assert r1lite_wbc(params_file=str(path), nodes=['action_dispatcher', 'policy_node']).nodes


# --- namespaces -------------------------------------------------------------------------------


@pytest.mark.parametrize(('text', 'found'), [('', ''), ('/', ''), ('robot1', '/robot1')])
def test_a_namespace_is_of_every_node_and_of_every_ready_topic(text, found):
    graph = single_arm(namespace=text, nodes=['mujoco_robot', 'action_dispatcher'])
    assert graph.namespace == found
    for node in graph.nodes:
        assert dict(node.remappings).get('__ns', '') == found
        assert node.ready_topic.startswith(f'{found}/{node.name}/')


@pytest.mark.parametrize('text', ['robot 1', '1robot', 'a//b', 'robot1/', '~', '-r'])
def test_what_is_no_namespace_is_refused(text):
    with pytest.raises(ConfigError, match='namespace: expected'):
        single_arm(namespace=text, nodes=['mujoco_robot'])


def test_remappings_are_relative_so_that_two_namespaces_are_two_robots():
    for name in GRAPHS:
        for node in GRAPHS[name](namespace='robot1', checkpoint='.').nodes:
            for source, target in node.remappings:
                assert source == '__ns' or not target.startswith('/'), (name, node.name, source)


def test_a_vendors_absolute_names_move_into_the_namespace_for_all_nodes_alike():
    graph = r1lite_wbc(namespace='robot1')
    moved = [tuple(r for r in n.remappings if r[0].startswith('/')) for n in graph.nodes]
    assert len(set(moved)) == 1
    names = dict(moved[0])
    for name in (
        '/hdas/feedback_arm_left',
        '/hdas/camera_head/left_raw/image_raw_color/compressed',
        '/motion_target/target_speed_chassis',
        '/motion_target/brake_mode',
        '/motion_target/target_joint_state_torso',
    ):
        assert names[name] == name[1:]
    assert not [r for n in r1lite_wbc().nodes for r in n.remappings if r[0].startswith('/')]


def test_absolute_services_and_flags_move_into_the_namespace_too(tmp_path):
    names = {'enable_service': '/ours/enable', 'done_topic': '/done', 'state_topic': 'relative'}
    file = tmp_path / 'mine.yaml'
    file.write_text(yaml.safe_dump({'/**': {'policy_node': {'ros__parameters': names}}}))
    assert set(absolute_names(file)) == {'/ours/enable', '/done'}


# --- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', GRAPHS)
def test_rviz_is_shown_with_the_layout_of_the_graph_if_it_is_wanted(name):
    assert GRAPHS[name](checkpoint='.').rviz is None
    assert GRAPHS[name](checkpoint='.', rviz=True).rviz.name == f'{name}.rviz'


# --- what a ROS parameter file cannot hold -----------------------------------------------------


@pytest.mark.parametrize('name', GRAPHS)
@pytest.mark.parametrize('sim', [True, False])
def test_parameters_are_plain_values_without_empty_lists(name, sim):
    for node in GRAPHS[name](sim=sim, checkpoint='.').nodes:
        for name, value in node.parameters.items():
            assert isinstance(value, (bool, int, float, str, list)), name
            assert value != []
            assert yaml.safe_load(yaml.safe_dump({name: value})) == {name: value}


def test_fast_dds_profile_has_room_for_a_vga_image_and_is_set_for_every_process():
    text = fastdds_profile().read_text(encoding='utf-8')
    segment = int(text.split('<segment_size>')[1].split('<')[0])
    assert segment >= 20 * 640 * 480 * 3
    variable = r1lite_wbc().environment['FASTDDS_DEFAULT_PROFILES_FILE']
    assert pathlib.Path(variable).is_file()


def test_the_description_is_readable_without_ros():
    code = (
        'import sys\n'
        'from faster_vla_ros.graph import r1lite_wbc\n'
        'r1lite_wbc()\n'
        'assert not {"rclpy", "torch", "launch", "mujoco"} & set(sys.modules)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
