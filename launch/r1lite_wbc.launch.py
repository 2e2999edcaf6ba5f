"""R1 Lite under whole-body control: `ros2 launch faster_vla_ros r1lite_wbc.launch.py`.

What runs stands in `faster_vla_ros/graph.py`, which `faster-vla up r1lite_wbc` reads too; this
file only says it in the words of the launch system.
"""

import os

from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from faster_vla_ros.graph import ARGUMENTS, PACKAGE, r1lite_wbc
from launch import LaunchDescription

# Seconds until launch sends SIGTERM: the dispatcher needs them to send its safe commands.
STOP_TIMEOUT = '8'


def generate_launch_description():
    """Declare the graph's arguments; the nodes follow once their values are known."""
    arguments = [
        DeclareLaunchArgument(a.name, default_value=a.default_text, description=a.help)
        for a in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _start(context):
    values = {a.name: a.parse(LaunchConfiguration(a.name).perform(context)) for a in ARGUMENTS}
    graph = r1lite_wbc(**values)
    # What the user has set wins; an empty value would switch Fast DDS profiles off silently.
    variables = [
        SetEnvironmentVariable(name, os.environ.get(name) or value)
        for name, value in graph.environment.items()
    ]
    return [*variables, *map(_node, graph.nodes)]


def _node(spec):
    return Node(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        parameters=[*map(str, spec.parameter_files), _typed(spec.parameters)],
        remappings=list(spec.remappings),
        output='screen',
        sigterm_timeout=STOP_TIMEOUT,
        # One process less is not the same robot: end the others, with their safe commands.
        on_exit=Shutdown(reason=f'{spec.name} ended'),
    )


def _typed(parameters):
    # Launch reads bare strings as YAML: an instruction 'yes' would become a boolean.
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }
