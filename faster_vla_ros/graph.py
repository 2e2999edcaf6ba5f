"""The one description of what runs: nodes, executables, parameters, remappings, arguments.

The launch file and `faster-vla up` both read it and add nothing of their own. It imports no ROS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from faster_core import paths
from faster_core.errors import ConfigError

PACKAGE = 'faster_vla_ros'


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One process of the graph.

    Attributes:
        name: node name.
        executable: console script of the package; the module is `faster_vla_ros.<executable>`.
        parameter_files: YAML files, applied in order.
        parameters: applied after the files; no empty lists (they have no type).
        remappings: (from, to) pairs.
        ready_topic: latched topic on which the node says that it works (see `session.py`).
        safe_stop: the node has commands to send before it ends; it must not be killed at once.
    """

    name: str
    executable: str
    parameter_files: tuple[pathlib.Path, ...] = ()
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    ready_topic: str = ''
    safe_stop: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """What runs together.

    Attributes:
        nodes: in starting order.
        stop_order: names, first to be ended first. The policy ends before the dispatcher, so that
            no chunk follows the safe commands; the robot ends last, so that it hears them.
        environment: variables every process gets unless they are set already.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    stop_order: tuple[str, ...]
    environment: Mapping[str, str]

    def node(self, name: str) -> NodeSpec:
        """Return the node of that name; KeyError if the graph has none."""
        return {n.name: n for n in self.nodes}[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of the launch file and of `faster-vla up`; the default gives the type."""

    name: str
    default: bool | int | str
    help: str

    def parse(self, text: str) -> bool | int | str:
        """Read a value as launch passes it: text.

        Raises:
            ConfigError: not a value of the argument's type.
        """
        if isinstance(self.default, bool):
            if text.lower() not in ('true', 'false'):
                raise ConfigError(f'{self.name}: expected true or false, found {text!r}')
            return text.lower() == 'true'
        if isinstance(self.default, int):
            try:
                return int(text)
            except ValueError as e:
                raise ConfigError(f'{self.name}: expected a whole number, found {text!r}') from e
        return text

    @property
    def default_text(self) -> str:
        """The default as launch writes it."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return str(self.default)


ARGUMENTS = (
    Argument(name='sim', default=True, help='start the simulated robot; false: a real one'),
    Argument(name='checkpoint', default='', help='folder; empty: the shipped demo checkpoint'),
    Argument(
        name='remote',
        default='',
        help='host:port of a policy server; of the checkpoint only embodiment.yaml is read then',
    ),
    Argument(name='engine', default='auto', help='runs the policy: auto, eager, openvino, …'),
    Argument(name='params_file', default='', help='robot parameters; empty: config/robots'),
    Argument(name='dry_run', default=False, help='compute everything, command nothing'),
    Argument(
        name='auto_enable',
        default='sim',
        help='motion without an explicit enable; "sim": only in simulation (the default)',
    ),
    Argument(name='instruction', default='', help='carried out from the start, if not empty'),
    Argument(name='seed', default=0, help='scene of the simulation at the start'),
    Argument(name='task', default='', help='task of the simulation; empty: chosen by the seed'),
    Argument(name='vendor_images', default=False, help='simulate the vendor camera resolution'),
    Argument(name='use_sim_time', default=False, help='simulated robot publishes /clock'),
)

# Resolution of the real cameras, (width, height): head as documented, wrists a usual one.
VENDOR_SIZES = {'head_size': [1280, 720], 'wrist_size': [640, 480]}
STOP_ORDER = ('policy_node', 'action_dispatcher', 'mujoco_robot')


def r1lite_wbc(*, nodes: Sequence[str] | None = None, **arguments: Any) -> Graph:
    """Describe the Galaxea R1 Lite under whole-body control.

    Args:
        nodes: leave out every node that is not named here; None keeps all.
        arguments: values of `ARGUMENTS`; what is not given has its default.

    Raises:
        ConfigError: unknown argument or node, a file that does not exist, or motion without an
            explicit enable asked for on a real robot.
    """
    values = _with_defaults(arguments)
    sim, sim_time = values['sim'], {'use_sim_time': values['use_sim_time']}
    if values['use_sim_time'] and not sim:
        raise ConfigError('use_sim_time: only a simulated robot publishes /clock')
    parameter_file = _existing(
        values['params_file'] or paths.share_dir() / 'config' / 'robots' / 'r1_lite.yaml',
        'params_file',
    )
    checkpoint = pathlib.Path(values['checkpoint'] or paths.demo_checkpoint())
    embodiment = checkpoint / 'embodiment.yaml'
    if not embodiment.is_file():
        embodiment = paths.embodiment_file('r1_lite')
    all_nodes = {
        'mujoco_robot': NodeSpec(
            name='mujoco_robot',
            executable='mujoco_robot',
            parameters={
                'seed': values['seed'],
                'task': values['task'],
                'publish_clock': values['use_sim_time'],
                **(VENDOR_SIZES if values['vendor_images'] else {}),
            },
            ready_topic='/mujoco_robot/task_success',
        ),
        'action_dispatcher': NodeSpec(
            name='action_dispatcher',
            executable='action_dispatcher',
            parameter_files=(parameter_file,),
            parameters={
                'embodiment': str(embodiment.resolve()),
                'require_enable': not _auto_enable(values),
                'dry_run': values['dry_run'],
                **sim_time,
            },
            remappings=(('action_chunk', '/policy_node/action_chunk'),),
            ready_topic='/action_dispatcher/state',
            safe_stop=True,
        ),
        'policy_node': NodeSpec(
            name='policy_node',
            executable='policy_node',
            parameter_files=(parameter_file,),
            parameters={
                **_policy_source(values, checkpoint, embodiment),
                'default_instruction': values['instruction'],
                **sim_time,
            },
            ready_topic='/policy_node/status',
        ),
    }
    if not sim:
        del all_nodes['mujoco_robot']
    chosen = _choose(all_nodes, nodes)
    return Graph(
        name='r1lite_wbc',
        nodes=chosen,
        stop_order=tuple(n for n in STOP_ORDER if n in {c.name for c in chosen}),
        environment={
            'FASTDDS_DEFAULT_PROFILES_FILE': str(fastdds_profile()),
            'RCUTILS_LOGGING_BUFFERED_STREAM': '0',
            'PYTHONUNBUFFERED': '1',
        },
    )


GRAPHS = {'r1lite_wbc': r1lite_wbc}


def fastdds_profile() -> pathlib.Path:
    """Return the profile without which Fast DDS loses images: its default segment is too small."""
    return _existing(paths.share_dir() / 'config' / 'fastdds_shm.xml', 'Fast DDS profile')


def checkpoint_needed(graph: Graph) -> pathlib.Path | None:
    """Return the checkpoint folder a graph's policy loads; None without a policy of its own."""
    for node in graph.nodes:
        if 'checkpoint_path' in node.parameters:
            return pathlib.Path(node.parameters['checkpoint_path'])
    return None


def _with_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {a.name: a.default for a in ARGUMENTS}
    if unknown := set(arguments) - set(defaults):
        raise ConfigError(
            f'unknown arguments {", ".join(sorted(unknown))}; known: {", ".join(defaults)}'
        )
    for name, value in arguments.items():
        if not isinstance(value, type(defaults[name])) and name != 'auto_enable':
            raise ConfigError(f'{name}: expected {type(defaults[name]).__name__}, found {value!r}')
    return defaults | dict(arguments)


def _policy_source(
    values: Mapping[str, Any], checkpoint: pathlib.Path, embodiment: pathlib.Path
) -> dict[str, str]:
    """Parameters that say where the policy is: here, or in a server for the dispatcher's robot."""
    if not values['remote']:
        return {'checkpoint_path': str(checkpoint.resolve()), 'engine': values['engine']}
    if values['engine'] != 'auto':
        raise ConfigError(f'engine {values["engine"]}: a remote policy is run by its server')
    return {'remote': values['remote'], 'remote_embodiment': str(embodiment.resolve())}


def _auto_enable(values: Mapping[str, Any]) -> bool:
    wish = str(values['auto_enable']).lower()
    if wish not in ('sim', 'true', 'false'):
        raise ConfigError(f'auto_enable: expected sim, true or false, found {wish!r}')
    if wish == 'true' and not values['sim']:
        raise ConfigError(
            'auto_enable: a real robot moves after an explicit enable only '
            '(`faster-vla enable` or a goal with enable_motion)'
        )
    return values['sim'] if wish == 'sim' else wish == 'true'


def _existing(path: str | pathlib.Path, what: str) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f'{what}: no file {path}')
    return path.resolve()


def _choose(nodes: dict[str, NodeSpec], wanted: Sequence[str] | None) -> tuple[NodeSpec, ...]:
    if wanted is None:
        return tuple(nodes.values())
    if unknown := [n for n in wanted if n not in nodes]:
        raise ConfigError(f'unknown nodes {", ".join(unknown)}; known: {", ".join(nodes)}')
    return tuple(spec for name, spec in nodes.items() if name in wanted)
