"""What `policy_node` can be told; the names are those of docs and robot files."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from rclpy.node import Node

from faster_core.errors import ConfigError
from faster_vla_ros import parameters
from faster_vla_ros.parameters import Spec
from faster_vla_ros.sensors.images import TYPES
from faster_vla_ros.sensors.state import READERS, SourceConfig

TABLE = {
    'autostart': Spec(type=bool, default=True, help='configure and activate at start'),
    'checkpoint_path': Spec(
        type=str, default='', help='folder of the policy; required without `remote`'
    ),
    'remote': Spec(
        type=str, default='', help='host:port of a policy server, in place of a checkpoint'
    ),
    'remote_timeout': Spec(type=float, default=2.0, above=0.0, help='s for a call of it'),
    'remote_images': Spec(
        type=str, default='jpeg', one_of=('jpeg', 'raw'), help='how raw images are sent'
    ),
    'remote_embodiment': Spec(
        type=str, default='', help='file the server must have the same of; empty: any'
    ),
    'device': Spec(type=str, default='auto', help='auto, cpu, cuda, cuda:1, ...'),
    'dtype': Spec(type=str, default='auto', help='auto, float32 or bfloat16'),
    'engine': Spec(
        type=str,
        default='auto',
        help='auto, eager, static, compile, cuda_graph or openvino (docs/policy.md)',
    ),
    'num_threads': Spec(type=int, default=1, at_least=1, help='torch threads on the CPU'),
    'warmup_iterations': Spec(type=int, default=3, at_least=0, help='inferences at configure'),
    'seed': Spec(type=int, default=0, at_least=0, help='of sampling'),
    'temperature': Spec(type=float, default=0.0, at_least=0.0, help='0: greedy'),
    'cameras': Spec(type=tuple, item=str, help='ids, equal to those of the embodiment'),
    'reference_camera': Spec(type=str, help='its stamp becomes the stamp of the chunk'),
    'state_sources': Spec(
        type=tuple, item=str, help='ids, the state components of the embodiment'
    ),
    'sync_slop': Spec(type=float, default=0.05, at_least=0.0, help='s, inputs to reference'),
    'use_receive_time': Spec(
        type=bool,
        default=False,
        help='ignore stamps of broken drivers: one that repeats its last message passes for alive',
    ),
    'trigger': Spec(
        type=str,
        default='continuous',
        one_of=('continuous', 'on_demand'),
        help='on_demand: inference only while a goal runs',
    ),
    'min_replan_period': Spec(
        type=float, default=0.0, at_least=0.0, help='s between the starts of two inferences'
    ),
    'frame_id': Spec(
        type=str, default='base_link', help='of Cartesian values in chunks: that of the dispatcher'
    ),
    'min_confidence': Spec(
        type=float,
        default=None,
        help='mean log-probability per code (nats, at most 0); a chunk below it is not sent',
    ),
    'publish_coarse': Spec(
        type=bool, default=False, help='send the first level of a chunk before the whole chunk'
    ),
    'default_instruction': Spec(
        type=str, default='', help='carried out after activation, or by ~/start_instruction'
    ),
    'done_topic': Spec(
        type=str, default='', help='Bool; from false to true while a goal runs: it has succeeded'
    ),
    'enable_service': Spec(
        type=str, default='action_dispatcher/enable', help='called for enable_motion'
    ),
    'state_topic': Spec(
        type=str,
        default='action_dispatcher/state',
        help='of the dispatcher: who disables motion ends the goal; empty: it goes on',
    ),
    'max_decode_failures': Spec(
        type=int, default=3, at_least=1, help='in a row, or chunks held back, end a goal'
    ),
    'observation_timeout': Spec(type=float, default=5.0, above=0.0, help='s, ends a goal'),
    'latency.warn': Spec(type=float, default=0.3, at_least=0.0, help='s, diagnostics'),
    'latency.error': Spec(type=float, default=0.6, at_least=0.0, help='s, diagnostics'),
    'input_rate.warn_ratio': Spec(
        type=float, default=0.7, at_least=0.0, help='of the action frequency, diagnostics'
    ),
}
# May be changed while the node is configured, beside the time-outs of cameras and sources.
CHANGEABLE = (
    'sync_slop',
    'min_replan_period',
    'default_instruction',
    'latency.warn',
    'latency.error',
    'input_rate.warn_ratio',
)
# What the policy server is told in place of the node.
OF_THE_SERVER = (
    'checkpoint_path',
    'device',
    'dtype',
    'engine',
    'num_threads',
    'seed',
    'temperature',
)
CAMERA_TABLE = {
    'topic': Spec(type=str, default='', help='default: <camera>/image_raw'),
    'transport': Spec(type=str, default='raw', one_of=tuple(TYPES), help='raw or compressed'),
    'timeout': Spec(type=float, default=0.2, above=0.0, help='s until stale'),
}
SOURCE_TABLE = {
    'topic': Spec(type=str, default='joint_states', help='of the messages'),
    'type': Spec(type=str, default='joint_state', one_of=tuple(READERS), help='message'),
    'field': Spec(
        type=str, default='position', one_of=('position', 'velocity', 'effort'), help='field'
    ),
    'mapping': Spec(type=str, default='by_name', one_of=('by_name', 'by_index'), help='how'),
    'joints': Spec(type=tuple, item=str, default=None, help='names, by_name'),
    'size': Spec(type=tuple, item=int, default=None, help='accepted lengths, by_index'),
    'axes': Spec(type=tuple, item=str, default=None, help='of odometry and twist: vx, wz, ...'),
    'scale': Spec(type=float, default=1.0, help='to SI'),
    'offset': Spec(type=float, default=0.0, help='to SI'),
    'interpolate': Spec(type=bool, default=False, help='between two messages; else the nearest'),
    'timeout': Spec(type=float, default=0.1, above=0.0, help='s until stale'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where a camera's images come from."""

    topic: str
    transport: str
    timeout: float


@dataclasses.dataclass(kw_only=True)
class PolicyNodeConfig:
    """Checked parameters in force: plain ones in `values`, cameras and sources by id.

    Read it anew where a value is used: the changeable ones may change at any time.
    """

    values: dict[str, Any]
    cameras: dict[str, CameraConfig]
    sources: dict[str, SourceConfig]

    def __getitem__(self, name: str) -> Any:
        """Return a plain parameter."""
        return self.values[name]

    def changeable(self) -> dict[str, Spec]:
        """Return the parameters that may change while the node is configured."""
        table = {name: TABLE[name] for name in CHANGEABLE}
        table |= {f'{c}.timeout': CAMERA_TABLE['timeout'] for c in self.cameras}
        return table | {f'{s}.timeout': SOURCE_TABLE['timeout'] for s in self.sources}

    def change(self, new: Mapping[str, Any]) -> None:
        """Take over changeable parameters that were checked one by one.

        Raises:
            ConfigError: they do not go together; nothing has changed.
        """
        values = self.values | {name: v for name, v in new.items() if name in self.values}
        _check(values)
        self.values = values
        for group in (self.cameras, self.sources):
            for name, config in group.items():
                timeout = new.get(f'{name}.timeout', config.timeout)
                group[name] = dataclasses.replace(config, timeout=timeout)


def read(node: Node) -> PolicyNodeConfig:
    """Read and check all parameters of a policy node (ConfigError)."""
    given = parameters.overrides(node)
    cameras, sources = _ids(given, 'cameras'), _ids(given, 'state_sources')
    if both := [c for c in cameras if c in sources]:
        raise ConfigError(f'cameras and state_sources: {", ".join(both)} cannot be both')
    table = dict(TABLE)
    table |= {f'{c}.{k}': spec for c in cameras for k, spec in CAMERA_TABLE.items()}
    table |= {f'{s}.{k}': spec for s in sources for k, spec in SOURCE_TABLE.items()}
    values = parameters.read(node, table)
    _check(values)
    _check_policy(values)
    if values['reference_camera'] not in values['cameras']:
        raise ConfigError(
            f'reference_camera: expected one of {", ".join(cameras)}, '
            f'found {values["reference_camera"]!r}'
        )
    return PolicyNodeConfig(
        values={k: values[k] for k in TABLE},
        cameras={
            c: CameraConfig(
                topic=values[f'{c}.topic'] or f'{c}/image_raw',
                transport=values[f'{c}.transport'],
                timeout=values[f'{c}.timeout'],
            )
            for c in values['cameras']
        },
        sources={
            s: SourceConfig(
                **{
                    k: () if values[f'{s}.{k}'] is None else values[f'{s}.{k}']
                    for k in SOURCE_TABLE
                }
            )
            for s in values['state_sources']
        },
    )


def _check(values: Mapping[str, Any]) -> None:
    """Refuse values that do not go together."""
    if values['latency.warn'] > values['latency.error']:
        raise ConfigError(
            f'latency.warn: expected at most latency.error ({values["latency.error"]} s), found '
            f'{values["latency.warn"]} s'
        )
    if (least := values['min_confidence']) is None:
        return
    if least > 0.0:
        raise ConfigError(f'min_confidence: expected at most 0.0 (a logarithm), found {least}')
    if values['publish_coarse']:
        raise ConfigError(
            'publish_coarse: expected false with min_confidence: a coarse chunk has none yet'
        )


def _check_policy(values: Mapping[str, Any]) -> None:
    """Refuse neither checkpoint nor server, and a server told what it decides by itself."""
    if not values['remote']:
        if not values['checkpoint_path']:
            raise ConfigError(
                'parameter checkpoint_path is required (folder of the policy), or remote '
                '(host:port of a policy server)'
            )
    elif given := [n for n in OF_THE_SERVER if values[n] != TABLE[n].default]:
        raise ConfigError(
            f'remote: {", ".join(given)} cannot be given with it: the policy server decides that'
        )


def _ids(given: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Check a list of ids before the parameters named after them."""
    if given.get(name) is None:
        raise ConfigError(f'parameter {name} is required ({TABLE[name].help})')
    ids = TABLE[name].check(name, given[name])
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ConfigError(f'{name}: named twice: {", ".join(twice)}')
    return ids
