"""Says a graph in the words of the launch system; the launch files are calls of `describe`."""

from __future__ import annotations

from collections.abc import Mapping
import os
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from faster_core.errors import ConfigError
from faster_vla_ros import realtime
from faster_vla_ros.graph_parts import Argument, Graph, NAMESPACE, NodeSpec, PACKAGE
from launch import LaunchDescription

# Seconds until launch sends SIGTERM: the dispatcher needs them to send its safe commands.
STOP_TIMEOUT = '8'
# `faster-vla up` has an option of its own for it.
NODES = Argument(name='nodes', default='', help='only these, separated by commas; empty: all')
# A simulated robot tells its joints by name there, and latches its description itself: two
# publishers of one description are one too many.
_OF_SIMULATED = [
    ('joint_states', 'mujoco_robot/joint_states'),
    ('robot_description', 'robot_state_publisher/robot_description'),
]
# Of a second robot they must not be the first one's.
_TF = [('/tf', 'tf'), ('/tf_static', 'tf_static')]


def describe(graph: Any) -> LaunchDescription:
    """Return what a launch file gives for a `GraphDescription`.

    Its arguments are declared; the nodes follow once their values are known.
    """
    arguments = [*graph.arguments, NODES]
    declared = [
        DeclareLaunchArgument(a.name, default_value=a.default_text, description=a.help)
        for a in arguments
    ]

    def start(context: Any) -> list[Any]:
        values = {a.name: a.parse(LaunchConfiguration(a.name).perform(context)) for a in arguments}
        nodes = [n.strip() for n in values.pop('nodes').split(',') if n.strip()]
        return actions(graph(nodes=nodes or None, **values))

    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def actions(graph: Graph) -> list[Any]:
    """Return the actions that start a graph, and what is shown of it.

    Raises:
        ConfigError: RViz is wanted and not installed, or a real-time priority and not allowed.
    """
    realtime.require_priorities(graph)
    said = [LogInfo(msg=f'warning: {text}') for text in graph.warnings]
    # What the user has set wins; an empty value would switch Fast DDS profiles off silently.
    variables = [
        SetEnvironmentVariable(name, os.environ.get(name) or value)
        for name, value in graph.environment.items()
    ]
    return [*variables, *said, *map(_node, graph.nodes), *_description(graph), *_rviz(graph)]


def _node(spec: NodeSpec) -> Node:
    return Node(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        namespace=dict(spec.remappings).get(NAMESPACE, ''),
        parameters=[*map(str, spec.parameter_files), _typed(spec.parameters)],
        remappings=[r for r in spec.remappings if r[0] != NAMESPACE],
        prefix=' '.join(realtime.prefix(spec.realtime_priority)) or None,
        output='screen',
        sigterm_timeout=STOP_TIMEOUT,
        # One process less is not the same robot: end the others, with their safe commands.
        on_exit=Shutdown(reason=f'{spec.name} ended'),
    )


def _typed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    # Launch reads bare strings as YAML: an instruction 'yes' would become a boolean.
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def _description(graph: Graph) -> list[Node]:
    """Return a robot_state_publisher for a simulated robot, where there is one."""
    if 'mujoco_robot' not in {n.name for n in graph.nodes} or not installed(
        'robot_state_publisher'
    ):
        return []
    from faster_core.sim.urdf import description

    clock = {'use_sim_time': graph.use_sim_time}
    return [
        Node(
            package='robot_state_publisher',
            executable='robot_state_publisher',
            namespace=graph.namespace,
            parameters=[_typed({'robot_description': description(graph.simulated), **clock})],
            remappings=[*_OF_SIMULATED, *(_TF if graph.namespace else [])],
            output='screen',
        )
    ]


def _rviz(graph: Graph) -> list[Node]:
    if graph.rviz is None:
        return []
    if not installed('rviz2'):
        raise ConfigError('rviz: expected the package rviz2, found none; install it or leave out')
    return [
        Node(
            package='rviz2',
            executable='rviz2',
            namespace=graph.namespace,
            arguments=['-d', str(graph.rviz)],
            parameters=[{'use_sim_time': graph.use_sim_time}],
            remappings=_TF if graph.namespace else [],
            output='screen',
        )
    ]


def installed(package: str) -> bool:
    """Return whether ROS knows a package."""
    from ament_index_python.packages import get_package_prefix, PackageNotFoundError

    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
