"""What should be there: robot parameter file, checkpoint and URDF, read as the nodes read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.qos import QoSProfile

from faster_core.embodiment import Embodiment
from faster_core.errors import CheckpointError, ConfigError, FasterVlaError
from faster_core.execution.config import check_braking, robot_file_parameters
from faster_vla_ros import dispatcher_parameters, policy_parameters, qos
from faster_vla_ros.dispatcher_parameters import DispatcherNodeConfig
from faster_vla_ros.doctor import checkpoint
from faster_vla_ros.doctor.checkpoint import Checkpoint
from faster_vla_ros.doctor.inputs import DISPATCHER, Input, inputs, POLICY
from faster_vla_ros.doctor.overrides import overridden
from faster_vla_ros.doctor.report import fail, Finding, ok
from faster_vla_ros.graph_guard import completed, guard_part
from faster_vla_ros.graph_namespace import absolute_names
from faster_vla_ros.interlocks.takeover import GUARD
from faster_vla_ros.policy_parameters import PolicyNodeConfig
from faster_vla_ros.sensors.state import StateSource

__all__ = ['DISPATCHER', 'GUARD', 'POLICY', 'Expected', 'Input', 'embodiment_file', 'load']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What the files say.

    Attributes:
        namespace: of our nodes, '' or '/name'.
        moved: absolute names that `faster-vla up --namespace` moves along.
        raw: node -> flat parameters of the file.
        policy, dispatcher: checked parameters; None if the node would refuse them.
        sources: state component -> how the policy reads it.
        inputs: everything both nodes listen to, cameras first.
        guarded: whether the file has a part of the guard.
        urdf: text of a file; empty without one.
        findings: what came of reading the files.
    """

    namespace: str = ''
    moved: frozenset[str] = frozenset()
    embodiment: Embodiment
    checkpoint: Checkpoint
    raw: Mapping[str, Mapping[str, Any]]
    policy: PolicyNodeConfig | None
    dispatcher: DispatcherNodeConfig | None
    sources: Mapping[str, StateSource]
    inputs: tuple[Input, ...]
    guarded: bool = False
    urdf: str = ''
    findings: tuple[Finding, ...] = ()

    def name(self, relative: str) -> str:
        """Return the full name of a topic, service, action or node."""
        return _full_name(self.namespace, self.moved, relative)

    @property
    def forbidding(self) -> tuple[str, ...]:
        """Full names of the topics on which somebody can forbid motion."""
        values = {} if self.dispatcher is None else self.dispatcher.values
        found = [values['permit.topic']] if values.get('permit.topic') else []
        found += ['estop'] if values.get('estop.enable') else []
        found += [values['guard.topic']] if values.get('guard.topic') else []
        return tuple(map(self.name, found))

    def qos(self, node: str, topic: str, side: str, profile: QoSProfile) -> QoSProfile:
        """Return the profile of a node's 'publisher' or 'subscription' of a full topic."""
        return overridden(profile, self.raw.get(node, {}), topic, side)


def _full_name(namespace: str, moved: frozenset[str], relative: str) -> str:
    """Return a name as ROS resolves it in a namespace ('' or '/name') for nodes of `up`."""
    stays = relative.startswith('/') and relative not in moved
    return relative if stays else f'{namespace}/{relative.removeprefix("/")}'


class _FileNode:
    """In place of a node: parameters of a file, none of which is declared anywhere."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {n: _Value(v) for n, v in values.items()}

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, _Value]:
        start = f'{prefix}.' if prefix else ''
        return {n.removeprefix(start): v for n, v in self._values.items() if n.startswith(start)}

    def has_parameter(self, name: str) -> bool:
        return True

    def describe_parameter(self, name: str) -> ParameterDescriptor:
        return ParameterDescriptor()


@dataclasses.dataclass(frozen=True)
class _Value:
    value: Any


def load(
    robot_file: pathlib.Path,
    source: pathlib.Path,
    *,
    urdf: pathlib.Path | None = None,
    namespace: str = '',
) -> Expected:
    """Read all files.

    Args:
        robot_file: robot parameter file.
        source: folder of a checkpoint, or an embodiment file where there is none.
        urdf: URDF file; None: what is latched on `robot_description`.
        namespace: of both nodes.

    Raises:
        ConfigError, CheckpointError: a file was named that is not there.
    """
    for path in (robot_file, urdf):
        if path is not None and not path.is_file():
            raise ConfigError(f'no file {path}')
    file = embodiment_file(source)
    folder = file.parent
    findings: list[Finding] = []
    given = None
    if not source.is_file():
        given = _tried(findings, 'checkpoint', folder.name, lambda: checkpoint.load(folder))
    if given is None:
        given = Checkpoint(embodiment=Embodiment.load(file), statistics=None, image_size=None)
    raw = {
        node: _tried(
            findings, 'parameters', node, functools.partial(_parameters, robot_file, node), {}
        )
        for node in (POLICY, DISPATCHER)
    }
    ours = {
        POLICY: {'checkpoint_path': str(folder)},
        DISPATCHER: {'embodiment': str(file)},
    }
    nodes = {n: _FileNode(raw[n] | ours[n]) for n in raw}
    policy = dispatcher = None
    sources: dict[str, StateSource] = {}
    if raw[POLICY]:
        read = functools.partial(_policy, nodes[POLICY], given.embodiment)
        policy, sources = _tried(findings, 'parameters', POLICY, read, (None, {}))
    if raw[DISPATCHER]:
        read = functools.partial(_dispatcher, nodes[DISPATCHER])
        dispatcher = _tried(findings, 'parameters', DISPATCHER, read)
    guarded = guard_part(robot_file) is not None
    if guarded:
        _tried(findings, 'parameters', GUARD, functools.partial(completed, robot_file))
    moved = frozenset(absolute_names(robot_file) if namespace else ())
    resolve = functools.partial(_full_name, namespace, moved)
    return Expected(
        namespace=namespace,
        moved=moved,
        embodiment=given.embodiment,
        checkpoint=given,
        raw=raw,
        policy=policy,
        dispatcher=dispatcher,
        sources=sources,
        inputs=inputs(policy, dispatcher, sources, raw, resolve),
        guarded=guarded,
        urdf=urdf.read_text(encoding='utf-8', errors='replace') if urdf else '',
        findings=tuple(findings),
    )


def embodiment_file(source: pathlib.Path) -> pathlib.Path:
    """Return the embodiment file of a checkpoint folder, or the file itself.

    Raises:
        CheckpointError: there is none.
    """
    file = source if source.is_file() else source / 'embodiment.yaml'
    if not file.is_file():
        raise CheckpointError(f'no checkpoint in {file.parent}: embodiment.yaml is missing')
    return file


def _tried(
    findings: list[Finding],
    check: str,
    subject: str,
    read: Callable[[], Any],
    otherwise: Any = None,
) -> Any:
    """Return what was read; an error of ours becomes a row."""
    try:
        value = read()
    except FasterVlaError as e:
        findings.append(
            fail(
                check,
                subject,
                str(e),
                expected=f'what {subject} would accept at its start'
                if check == 'parameters'
                else 'a whole checkpoint',
                advice='correct the parameter file (docs/ros.md lists the parameters)'
                if check == 'parameters'
                else 'copy the checkpoint folder again',
            )
        )
        return otherwise
    if not isinstance(value, dict):
        findings.append(ok(check, subject, 'can be read and fits the embodiment'))
    return value


def _parameters(path: pathlib.Path, node: str) -> dict[str, Any]:
    values = robot_file_parameters(path, node)
    if not values:
        raise ConfigError(f'{path}: no parameters of {node}')
    return values


def _policy(node: Any, embodiment: Embodiment) -> tuple[PolicyNodeConfig, dict[str, StateSource]]:
    """Check what the policy node checks when it is configured."""
    config = policy_parameters.read(node)
    qos._check_overrides(node)
    for what, found, wanted in (
        ('cameras', config.cameras, embodiment.cameras),
        ('state_sources', config.sources, tuple(c.name for c in embodiment.state)),
    ):
        if set(found) != set(wanted):
            raise ConfigError(
                f'{what}: expected those of the embodiment, {", ".join(wanted)}; found '
                f'{", ".join(found)}'
            )
    return config, {c.name: StateSource(c, config.sources[c.name]) for c in embodiment.state}


def _dispatcher(node: Any) -> DispatcherNodeConfig:
    """Check what the dispatcher checks when it starts."""
    config = dispatcher_parameters.read(node)
    qos._check_overrides(node)
    check_braking(config.rules, config.trajectories)
    return config
