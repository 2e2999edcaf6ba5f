"""What `action_dispatcher` can be told; the names are those of docs and robot files."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from rclpy.node import Node

from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.errors import ConfigError
from faster_core.execution.config import DispatcherConfig
from faster_vla_ros import outputs, parameters
from faster_vla_ros.graph_guard import KINDS as GUARDED_KINDS
from faster_vla_ros.outputs import Output, OutputConfig
from faster_vla_ros.outputs.protocol import TRAJECTORY
from faster_vla_ros.parameters import Spec
from faster_vla_ros.sensors.state import SourceConfig, StateSource


def _rule(name: str, kind: type, text: str) -> Spec:
    """Return a parameter of the rules of execution; the core has defaults and ranges."""
    return Spec(type=kind, default=getattr(DispatcherConfig, name), help=text)


RULES_TABLE = {
    'dispatch_rate': _rule('dispatch_rate', float, 'Hz of commands, watchdog and states'),
    'min_lead': _rule('min_lead', float, 's, rows due sooner are dropped; 0: one step period'),
    'blend_steps': _rule('blend_steps', int, 'rows over which plans fade; 0: off'),
    'max_chunk_age': _rule('max_chunk_age', float, 's, older observations are rejected'),
    'feedback_timeout': _rule('feedback_timeout', float, 's, older positions stop the robot'),
    'excess_tolerance': _rule('excess_tolerance', float, 'share of a limit clipped, not refused'),
    'consecutive_violation_threshold': _rule(
        'consecutive_violation_threshold', int, 'rejected chunks in a row that do not stop yet'
    ),
    'stop_pub_timeout': _rule(
        'stop_pub_timeout', float, 's of safe commands after a stop; 0: until the node ends'
    ),
    'require_enable': _rule('require_enable', bool, 'start disarmed'),
    'components': Spec(type=tuple, help='ids, the action components of the embodiment'),
}
NODE_TABLE = {
    'embodiment': Spec(type=str, help='embodiment file; its checksum must be that of the chunks'),
    'dry_run': Spec(type=bool, default=False, help='compute everything, command nothing'),
    'autostart': Spec(type=bool, default=True, one_of=(True,), help='there are no transitions'),
    'brake.topic': Spec(type=str, default='', help='Bool, false is sent when motion is enabled'),
    'acceleration_limit.topic': Spec(
        type=str, default='', help='TwistStamped, sent when motion is enabled'
    ),
    'acceleration_limit.values': Spec(
        type=tuple, item=float, default=(), help='m/s², m/s², rad/s² along x, y and about z'
    ),
    'estop.enable': Spec(type=bool, default=False, help='listen to the topic estop (Bool)'),
    'estop.timeout': Spec(type=float, default=0.0, at_least=0.0, help='s of silence; 0: any'),
    'takeover.topics': Spec(
        type=tuple, item=str, default=(), help='whoever speaks there takes the robot over'
    ),
    'takeover.publishers': Spec(
        type=bool, default=True, help='so does whoever else publishes, or has a goal, where we do'
    ),
    'takeover.timeout': Spec(
        type=float, default=0.5, above=0.0, help='s of silence after which one may enable again'
    ),
    'permit.topic': Spec(type=str, default='', help='where the remote control tells its mode'),
    'permit.field': Spec(type=str, default='data', help='of its messages, with dots'),
    'permit.value': Spec(type=int, default=1, help='the mode in which programs may move'),
    'permit.timeout': Spec(type=float, default=1.0, above=0.0, help='s until it is unknown'),
    'guard.topic': Spec(
        type=str, default='', help='state of the guard, which must hear us; empty: there is none'
    ),
    'guard.timeout': Spec(
        type=float,
        default=2.5,
        at_least=1.0,
        help='s after which motion ends that it does not hear',
    ),
    'exclusive_topics': Spec(
        type=tuple, item=str, default=(), help='nobody may publish there when motion is enabled'
    ),
}
COMPONENT_TABLE = {
    'output': Spec(type=str, help=f'one of {", ".join([*outputs.OUTPUTS, outputs.NONE])}'),
}
# Read by the core.
LIMIT_TABLE = {
    'max_velocity': Spec(type=tuple, help='per dimension'),
    'max_acceleration': Spec(
        type=tuple, default=None, help='per dimension; required for trajectories'
    ),
    'max_jerk': Spec(type=tuple, default=None, help='per dimension; needs ruckig'),
    'on_stale': Spec(
        type=str, default=None, help='hold, zero or stop; default: hold positions, zero velocities'
    ),
    'stop_pub_timeout': Spec(type=float, default=None, help='s; default: that of the node'),
}
POSITION_TABLE = {
    'position_limits': Spec(type=tuple, default=None, help='[lower, upper], or one per dimension'),
    'max_start_offset': Spec(
        type=float, default=None, help='first set-point to measured; default: 0.15, grippers 0.05'
    ),
}
OUTPUT_TABLE = {
    'topic': Spec(type=str, help='of the commands'),
    'action': Spec(type=str, help='of the goals, for outputs that are actions'),
    'joints': Spec(type=tuple, default=None, help='names to send; default: the embodiment'),
    'axes': Spec(type=tuple, default=None, help='of the twist; default: the embodiment'),
    'frame_id': Spec(type=str, default='base_link', help='of Cartesian values, as in chunks'),
    'scale': Spec(type=float, default=1.0, help='from SI to the wire'),
    'offset': Spec(type=float, default=0.0, help='from SI to the wire'),
    'deadband': Spec(
        type=float, default=0.0, at_least=0.0, help='a goal that differs by less is not sent'
    ),
    'max_effort': Spec(
        type=float, default=0.0, at_least=0.0, help="N or N m of a gripper; 0: its controller's"
    ),
}
# Positions are measured: where motion may start, and whether the robot is still there.
FEEDBACK_TABLE = {
    'topic': Spec(type=str, default='joint_states', help='of JointState messages'),
    'mapping': Spec(type=str, default='by_name', one_of=('by_name', 'by_index'), help='how'),
    'joints': Spec(type=tuple, default=None, help='names, by_name; default: those sent'),
    'size': Spec(type=tuple, default=None, help='accepted lengths, by_index'),
    'scale': Spec(type=float, default=1.0, help='to SI'),
    'offset': Spec(type=float, default=0.0, help='to SI'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DispatcherNodeConfig:
    """Checked parameters.

    Attributes:
        values: those of `NODE_TABLE`, by name.
        embodiment: the robot's.
        rules: what the core reads.
        outputs: component -> (output, its configuration); components without output are missing.
        parameters: all of them, flat, as the core takes them.
        sources: position component -> how it is measured.
        frame_id: frame of the Cartesian components, in chunks and commands.
    """

    values: Mapping[str, Any]
    embodiment: Embodiment
    rules: DispatcherConfig
    outputs: Mapping[str, tuple[Output, OutputConfig]]
    parameters: Mapping[str, Any]
    sources: Mapping[str, StateSource]
    frame_id: str

    def __getitem__(self, name: str) -> Any:
        """Return a parameter of `NODE_TABLE`."""
        return self.values[name]

    @property
    def trajectories(self) -> tuple[str, ...]:
        """Components that go out as trajectories."""
        return tuple(n for n, (output, _) in self.outputs.items() if output.TAKES == TRAJECTORY)

    @property
    def driving(self) -> tuple[str, ...]:
        """Topics of velocities that a guard can listen for, as the parameters name them."""
        return tuple(
            wired.topic
            for name, (_, wired) in self.outputs.items()
            if self.parameters[f'{name}.output'] in GUARDED_KINDS
            and not self.embodiment.action_component(name).kind.is_position
        )


def read(node: Node) -> DispatcherNodeConfig:
    """Read and check all parameters of a dispatcher and its embodiment file.

    Raises:
        ConfigError, EmbodimentError: names the parameter or file and what was expected.
    """
    given = parameters.overrides(node)
    path = given.get('embodiment')
    if not isinstance(path, str) or not path:
        raise ConfigError(f'parameter embodiment is required ({NODE_TABLE["embodiment"].help})')
    embodiment = Embodiment.load(path)
    expected, found = [c.name for c in embodiment.action], given.get('components')
    found = list(found) if isinstance(found, (list, tuple)) else found
    if found is not None and found != expected:
        raise ConfigError(
            f'components: found {found!r}, the embodiment {embodiment.name} has {expected}'
        )
    table = RULES_TABLE | NODE_TABLE
    for c in embodiment.action:
        table |= _component_table(c, given.get(f'{c.name}.output'))
    values = parameters.read(node, table)
    _check_scales(values)
    _check_acceleration_limit(values)
    _check_guarded(embodiment, values)
    to_core = {k: v for k, v in values.items() if v is not None}
    sent = {c.name: _output(c, values) for c in embodiment.action}
    return DispatcherNodeConfig(
        values={k: values[k] for k in NODE_TABLE},
        embodiment=embodiment,
        rules=DispatcherConfig.from_parameters(to_core, embodiment),
        parameters=to_core,
        outputs={name: output for name, output in sent.items() if output is not None},
        sources={c.name: _source(c, values) for c in embodiment.action if c.kind.is_position},
        frame_id=_frame_id(embodiment, values),
    )


def _component_table(c: Component, output: Any) -> dict[str, Spec]:
    # First of all: which other parameters exist depends on it.
    spec = COMPONENT_TABLE['output']
    if output is None:
        raise ConfigError(f'parameter {c.name}.output is required ({spec.help})')
    used = outputs.keys(spec.check(f'{c.name}.output', output), c.name)
    table = COMPONENT_TABLE | LIMIT_TABLE | {key: OUTPUT_TABLE[key] for key in used}
    if c.kind.is_position:
        table |= POSITION_TABLE
        table |= {f'feedback.{key}': spec for key, spec in FEEDBACK_TABLE.items()}
    else:
        table.pop('offset', None)  # zero must be zero on the wire
    return {f'{c.name}.{key}': spec for key, spec in table.items()}


def _check_scales(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        last = name.rpartition('.')[2]
        if last == 'scale' and not (math.isfinite(value) and value != 0.0):
            raise ConfigError(f'{name}: expected a finite number other than 0, found {value!r}')
        if last == 'offset' and not math.isfinite(value):
            raise ConfigError(f'{name}: expected a finite number, found {value!r}')
        if last in ('topic', 'action') and not value and name not in NODE_TABLE:
            raise ConfigError(f'{name}: expected the name of a {last}, found {value!r}')


def _check_acceleration_limit(values: Mapping[str, Any]) -> None:
    found = values['acceleration_limit.values']
    if values['acceleration_limit.topic'] and not (
        len(found) == 3 and all(math.isfinite(v) and v > 0 for v in found)
    ):
        raise ConfigError(
            f'acceleration_limit.values: expected three numbers > 0, found {list(found)}'
        )


def _check_guarded(embodiment: Embodiment, values: Mapping[str, Any]) -> None:
    for c in embodiment.action if values['guard.topic'] and not values['dry_run'] else ():
        found, heard = values[f'{c.name}.output'], (*GUARDED_KINDS, 'none')
        if not c.kind.is_position and found not in heard:
            raise ConfigError(
                f'{c.name}.output: expected one of {", ".join(heard)} with guard.topic, as a '
                f'guard listens for nothing else, found {found!r}'
            )


def _output(c: Component, values: Mapping[str, Any]) -> tuple[Output, OutputConfig] | None:
    found = {key: values.get(f'{c.name}.{key}') for key in OUTPUT_TABLE}
    config = OutputConfig(**{k: v for k, v in found.items() if v is not None})
    output = outputs.create(values[f'{c.name}.output'], c, config)
    return None if output is None else (output, config)


def _source(c: Component, values: Mapping[str, Any]) -> StateSource:
    found = {key: values[f'{c.name}.feedback.{key}'] for key in FEEDBACK_TABLE}
    if found['joints'] is None and found['mapping'] == 'by_name':
        found['joints'] = values.get(f'{c.name}.joints')
    config = SourceConfig(**{key: v for key, v in found.items() if v is not None})
    try:
        return StateSource(c, config)
    except ConfigError as e:
        raise ConfigError(str(e).replace(f'{c.name}.', f'{c.name}.feedback.', 1)) from e


def _frame_id(embodiment: Embodiment, values: Mapping[str, Any]) -> str:
    frames = {
        c.name: values[f'{c.name}.frame_id']
        for c in embodiment.action
        if c.kind in (Kind.TWIST, Kind.EE_POSE, Kind.EE_DELTA) and f'{c.name}.frame_id' in values
    }
    if len(set(frames.values())) > 1:
        found = ', '.join(f'{name}: {frame}' for name, frame in frames.items())
        raise ConfigError(f'frame_id: all components of a chunk share one frame, found {found}')
    return next(iter(frames.values()), OUTPUT_TABLE['frame_id'].default)
