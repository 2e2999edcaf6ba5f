"""Outputs of the dispatcher: one file per kind of message, one protocol, one registry."""

from __future__ import annotations

from typing import NamedTuple

from faster_core.embodiment import Component
from faster_core.errors import ConfigError
from faster_vla_ros.outputs.float64_array import Float64Array
from faster_vla_ros.outputs.follow_joint_trajectory import FollowJointTrajectoryOutput
from faster_vla_ros.outputs.gripper_command import GripperCommandOutput
from faster_vla_ros.outputs.joint_state_stream import JointStateStream
from faster_vla_ros.outputs.joint_trajectory import JointTrajectoryOutput
from faster_vla_ros.outputs.parallel_gripper_command import ParallelGripperCommandOutput
from faster_vla_ros.outputs.protocol import is_action, Output, OutputConfig, TRAJECTORY
from faster_vla_ros.outputs.twist import TwistOutput
from faster_vla_ros.outputs.twist_stamped import TwistStampedOutput

__all__ = ['NONE', 'OUTPUTS', 'Output', 'OutputConfig', 'Ways', 'create', 'keys', 'ways_in']

# Topic and action of joint_trajectory_controller, below its name.
_TRAJECTORY_WAYS = ('joint_trajectory', 'follow_joint_trajectory')
# The component is computed, checked and reported, but sent nowhere.
NONE = 'none'
OUTPUTS: dict[str, type[Output]] = {
    'joint_state_stream': JointStateStream,
    'joint_trajectory': JointTrajectoryOutput,
    'follow_joint_trajectory': FollowJointTrajectoryOutput,
    'parallel_gripper_command': ParallelGripperCommandOutput,
    'gripper_command': GripperCommandOutput,
    'twist_stamped': TwistStampedOutput,
    'twist': TwistOutput,
    'float64_array': Float64Array,
}


class Ways(NamedTuple):
    """Full names of topics and actions by which something can be commanded."""

    topics: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


def keys(output: str, component: str) -> tuple[str, ...]:
    """Return the parameters an output reads beside `output`.

    Raises:
        ConfigError: no such output; names component and available outputs.
    """
    if output == NONE:
        return ()
    if output not in OUTPUTS:
        raise ConfigError(
            f'{component}.output: expected one of {", ".join([*OUTPUTS, NONE])}, found {output!r}'
        )
    chosen = OUTPUTS[output]
    return ('action' if is_action(chosen) else 'topic', *chosen.KEYS)


def create(output: str, component: Component, config: OutputConfig) -> Output | None:
    """Return the output of a component, None for `none` (ConfigError if they do not fit)."""
    keys(output, component.name)
    return None if output == NONE else OUTPUTS[output](component, config)


def ways_in(output: Output, name: str) -> Ways:
    """Return by which topics and actions anybody can command what an output commands.

    A joint_trajectory_controller takes trajectories by both.

    Args:
        output: of a component.
        name: full name of the topic or action it goes to.
    """
    controller, _, last = name.rpartition('/')
    if output.TAKES == TRAJECTORY and last in _TRAJECTORY_WAYS:
        topic, action = _TRAJECTORY_WAYS
        return Ways((f'{controller}/{topic}',), (f'{controller}/{action}',))
    return Ways(actions=(name,)) if is_action(output) else Ways(topics=(name,))
