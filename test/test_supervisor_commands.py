"""What a process of a graph gets: command line, parameter file, environment."""

import dataclasses
import pathlib
import sys

import pytest
import yaml

from faster_vla_ros.graph import NodeSpec, r1lite_wbc
from faster_vla_ros.supervisor import command_line, environment_of, Supervisor, write_overrides


def test_every_process_gets_the_graphs_environment(monkeypatch):
    graph = r1lite_wbc()
    for name in graph.environment:
        monkeypatch.delenv(name, raising=False)
    environment = environment_of(graph)
    assert {n: environment[n] for n in graph.environment} == dict(graph.environment)


def test_what_the_user_has_set_wins_unless_it_is_empty(monkeypatch):
    """An empty value would switch the Fast DDS profile off without a word."""
    monkeypatch.setenv('PYTHONUNBUFFERED', '2')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '')
    environment = environment_of(r1lite_wbc(), {'ROS_DOMAIN_ID': '43'})
    assert environment['PYTHONUNBUFFERED'] == '2'
    assert environment['FASTDDS_DEFAULT_PROFILES_FILE'].endswith('fastdds_shm.xml')
    assert environment['ROS_DOMAIN_ID'] == '43'


def test_command_line_names_module_node_files_and_remappings_in_this_order():
    spec = NodeSpec(
        name='left',
        executable='action_dispatcher',
        parameter_files=(pathlib.Path('/robot.yaml'),),
        remappings=(('a', '/b'),),
    )
    assert command_line(spec, pathlib.Path('/own.yaml')) == [
        sys.executable,
        *('-m', 'faster_vla_ros.action_dispatcher', '--ros-args', '-r', '__node:=left'),
        *('--params-file', '/robot.yaml', '--params-file', '/own.yaml', '-r', 'a:=/b'),
    ]


def test_a_realtime_priority_stands_before_the_command():
    spec = NodeSpec(name='left', executable='guard')
    plain = command_line(spec)
    assert command_line(dataclasses.replace(spec, realtime_priority=5)) == [
        *('chrt', '-f', '5'),
        *plain,
    ]


def test_a_node_without_parameters_has_no_overrides_file(tmp_path):
    assert write_overrides(NodeSpec(name='n', executable='n'), tmp_path) is None


def test_the_overrides_file_is_there_while_the_process_runs_and_gone_afterwards():
    seen = []

    def note(spec, overrides):
        seen.append((overrides, yaml.safe_load(overrides.read_text())))
        return ['sleep', '600']

    graph = r1lite_wbc(nodes=['mujoco_robot'], seed=7, task='pick_red')
    with Supervisor(graph, command=note):
        assert seen[0][0].exists()
    path, values = seen[0]
    assert not path.exists()
    assert values['/**']['mujoco_robot']['ros__parameters'] == graph.nodes[0].parameters


@pytest.mark.ros
def test_ros_reads_every_parameter_as_what_it_is(tmp_path):
    from rclpy.context import Context
    from rclpy.node import Node

    texts = ['', 'y', 'no', '1e3', 'inf', '0x10', '12', '~', "it's", 'a: b # c', 'grün "x" \\n']
    values = {f't{i}': text for i, text in enumerate(texts)}
    values |= {'i': 3, 'f': 1.0, 'b': True, 'sizes': [1280, 720]}
    shipped = tmp_path / 'shipped.yaml'
    shipped.write_text('/**:\n  node_a:\n    ros__parameters: {i: 5, only_here: 1}')
    spec = NodeSpec(name='node_a', executable='x', parameter_files=(shipped,), parameters=values)
    arguments = command_line(spec, write_overrides(spec, tmp_path))[3:]
    context = Context()
    context.init(arguments, domain_id=43)
    try:
        node = Node('x', context=context, automatically_declare_parameters_from_overrides=True)
        found = {n: p.value for n, p in node.get_parameters_by_prefix('').items() if n != 'sizes'}
        assert node.get_name() == 'node_a'
        assert list(node.get_parameter('sizes').value) == values.pop('sizes')
        # The node's own parameters win over the files.
        expected = values | {'only_here': 1}
        assert {n: found[n] for n in expected} == expected
        assert {n: type(found[n]) for n in values} == {n: type(v) for n, v in values.items()}
        node.destroy_node()
    finally:
        context.shutdown()
