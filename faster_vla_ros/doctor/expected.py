"""What should be there: robot parameter file, checkpoint and URDF, read as the nodes read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from faster_core.embodiment import Embodiment
from faster_core.errors import CheckpointError, ConfigError, FasterVlaError
from faster_core.execution.config import check_braking, robot_file_parameters
from faster_vla_ros import dispatcher_parameters, policy_parameters, qos
from faster_vla_ros.dispatcher_parameters import DispatcherNodeConfig
from faster_vla_ros.doctor import checkpoint
from faster_vla_ros.doctor.checkpoint import Checkpoint
from faster_vla_ros.doctor.report import fail, Finding, ok
from faster_vla_ros.outputs.protocol import TRAJECTORY
from faster_vla_ros.policy_parameters import PolicyNodeConfig
from faster_vla_ros.sensors.images import TYPES
from faster_vla_ros.sensors.state import StateSource

POLICY, DISPATCHER = 'policy_node', 'action_dispatcher'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """A topic that policy node or dispatcher read.

    Attributes:
        subject: for the table.
        topic: full name.
        kind: message class.
        qos: of our subscription.
        camera: id, of an image topic.
        sources: name for the table -> how a component is read, of any other topic.
        timeout: seconds of silence after which an input is stale.
        stamped: whether the stamps are used.
    """

    subject: str
    topic: str
    kind: type
    qos: QoSProfile
    camera: str = ''
    sources: Mapping[str, StateSource] = dataclasses.field(default_factory=dict)
    timeout: float
    stamped: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What the files say.

    Attributes:
        namespace: of both nodes, '' or '/name'.
        raw: node -> flat parameters of the file.
        policy, dispatcher: checked parameters; None if the node would refuse them.
        sources: state component -> how the policy reads it.
        inputs: everything both nodes listen to, cameras first.
        urdf: text of a file; empty without one.
        findings: what came of reading the files.
    """

    namespace: str = ''
    embodiment: Embodiment
    checkpoint: Checkpoint
    raw: Mapping[str, Mapping[str, Any]]
    policy: PolicyNodeConfig | None
    dispatcher: DispatcherNodeConfig | None
    sources: Mapping[str, StateSource]
    inputs: tuple[Input, ...]
    urdf: str = ''
    findings: tuple[Finding, ...] = ()

    def name(self, relative: str) -> str:
        """Return the full name of a topic, service, action or node."""
        return full_name(relative, self.namespace)


def full_name(relative: str, namespace: str) -> str:
    """Return a name as ROS resolves it in a namespace ('' or '/name')."""
    return relative if relative.startswith('/') else f'{namespace}/{relative}'


class _FileNode:
    """In place of a node: parameters of a file, none of which is declared anywhere."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {n: _Value(v) for n, v in values.items()}

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, _Value]:
        return {n: v for n, v in self._values.items() if n.startswith(prefix)}

    def has_parameter(self, name: str) -> bool:
        return True


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
    folder, file = (source.parent, source) if source.is_file() else (source, None)
    file = file or folder / 'embodiment.yaml'
    if not file.is_file():
        raise CheckpointError(f'no checkpoint in {folder}: embodiment.yaml is missing')
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
    return Expected(
        namespace=namespace,
        embodiment=given.embodiment,
        checkpoint=given,
        raw=raw,
        policy=policy,
        dispatcher=dispatcher,
        sources=sources,
        inputs=inputs(policy, dispatcher, sources, namespace),
        urdf=urdf.read_text(encoding='utf-8', errors='replace') if urdf else '',
        findings=tuple(findings),
    )


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
    check_braking(
        config.rules, [n for n, (o, _) in config.outputs.items() if o.TAKES == TRAJECTORY]
    )
    return config


def inputs(
    policy: PolicyNodeConfig | None,
    dispatcher: DispatcherNodeConfig | None,
    sources: Mapping[str, StateSource],
    namespace: str,
) -> tuple[Input, ...]:
    """Return one input per camera and per topic of states."""
    stamped = policy is None or not policy['use_receive_time']
    found = [
        Input(
            subject=name,
            topic=full_name(camera.topic, namespace),
            kind=TYPES[camera.transport],
            qos=qos.IMAGE,
            camera=name,
            timeout=camera.timeout,
            stamped=stamped,
        )
        for name, camera in (policy.cameras if policy else {}).items()
    ]
    # A topic that fills several components is one input.
    by_topic: dict[tuple[str, type], dict[str, StateSource]] = {}
    for name, source in sources.items():
        key = (full_name(source.config.topic, namespace), source.message_type)
        by_topic.setdefault(key, {})[name] = source
    for name, source in (dispatcher.sources if dispatcher else {}).items():
        key = (full_name(source.config.topic, namespace), JointState)
        by_topic.setdefault(key, {})[f'{name} feedback'] = source
    for (topic, kind), users in by_topic.items():
        timeouts = [s.config.timeout for n, s in users.items() if n in sources]
        if dispatcher is not None and len(timeouts) < len(users):
            timeouts.append(dispatcher.rules.feedback_timeout)
        found.append(
            Input(
                subject=_subject(users),
                topic=topic,
                kind=kind,
                qos=qos.STATE,
                sources=users,
                timeout=min(timeouts),
                stamped=stamped and any(n in sources for n in users),
            )
        )
    return tuple(found)


def _subject(users: Mapping[str, StateSource]) -> str:
    components = list(dict.fromkeys(n.removesuffix(' feedback') for n in users))
    return components[0] if len(components) == 1 else f'{components[0]} +{len(components) - 1}'
