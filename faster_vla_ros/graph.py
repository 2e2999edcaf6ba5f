"""The one description of what runs: nodes, executables, parameters, remappings, arguments.

The launch files and `faster-vla up` both read it and add nothing of their own. It imports no ROS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NoReturn

from faster_core import paths
from faster_core.errors import ConfigError
from faster_vla_ros.compat.fastdds import profile_variable
from faster_vla_ros.graph_arguments import arguments_of
from faster_vla_ros.graph_guard import completed, guard_part
from faster_vla_ros.graph_namespace import absolute_names, parsed_namespace, placed
from faster_vla_ros.graph_parts import Argument, Graph, NAMESPACE, NodeSpec, PACKAGE
from faster_vla_ros.graph_robots import (
    DUAL_ARM,
    GraphRobots,
    R1LITE_WBC,
    Robot,
    SimulatedRobot,
    SINGLE_ARM,
)

__all__ = [
    'ARGUMENTS',
    'GRAPHS',
    'NAMESPACE',
    'PACKAGE',
    'Argument',
    'Graph',
    'GraphDescription',
    'NodeSpec',
    'checkpoint_needed',
    'dual_arm',
    'fastdds_profile',
    'r1lite_wbc',
    'single_arm',
]

# Resolution of the real cameras, (width, height): head as documented, wrists a usual one.
VENDOR_SIZES = {'head_size': [1280, 720], 'wrist_size': [640, 480]}
STOP_ORDER = ('policy_node', 'action_dispatcher', 'guard', 'mujoco_robot')


class GraphDescription:
    """One kind of graph; called with values of its arguments it gives the `Graph`.

    Attributes:
        name: of the graph and its launch file.
        help: one line.
        arguments: what it can be told.
    """

    def __init__(self, kind: GraphRobots) -> None:
        """Take the robots."""
        self.name, self.help, self._kind = kind.name, kind.help, kind
        self._robots = {r.name: r for r in kind.robots}
        self.arguments = arguments_of(kind)

    def __call__(self, *, nodes: Sequence[str] | None = None, **arguments: Any) -> Graph:
        """Describe the graph.

        Args:
            nodes: leave out every node that is not named here; None keeps all.
            arguments: values of `arguments`; what is not given has its default.

        Raises:
            ConfigError: unknown argument or node, a file that does not exist, a robot that is not
                simulated, a policy without checkpoint (but in simulation, where it is left out
                unless `nodes` names it), a guard that would not watch the base, or motion without
                an explicit enable asked for on a real robot.
        """
        values = self._with_defaults(arguments)
        robot = self._robots[values.get('robot', self._kind.robots[0].name)]
        simulated = _simulated(robot, values)
        file = _robot_file(values['params_file'] or (simulated or robot).parameter_file)
        namespace = parsed_namespace(values['namespace'])
        known = self._nodes(values, robot, simulated, file, namespace)
        warnings = []
        if self._checkpoint(values) is None and not values['remote']:
            if simulated is not None and nodes is None:
                nodes = [n for n in known if n != 'policy_node']
                warnings.append(self._without_policy())
            elif nodes is None or 'policy_node' in nodes:
                self._refuse_policy()
        chosen = _choose(known, nodes)
        chosen = tuple(_with_guard(spec, file) for spec in chosen)
        names = {n.name for n in chosen}
        if 'action_dispatcher' in names and 'guard' in known and 'guard' not in names:
            warnings.append(
                'guard is left out: nothing moves before one elsewhere says that it hears the '
                'dispatcher, if the parameter file has guard.topic'
            )
        return Graph(
            name=self.name,
            nodes=chosen,
            stop_order=tuple(n for n in STOP_ORDER if n in names),
            environment={
                profile_variable(): str(fastdds_profile()),
                'RCUTILS_LOGGING_BUFFERED_STREAM': '0',
                'PYTHONUNBUFFERED': '1',
            },
            namespace=namespace,
            rviz=self._layout() if values['rviz'] else None,
            simulated=simulated and simulated.parameters,
            use_sim_time=values['use_sim_time'],
            warnings=tuple(warnings),
        )

    def _with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known = {a.name: a for a in self.arguments}
        if unknown := set(arguments) - set(known):
            raise ConfigError(
                f'unknown arguments {", ".join(sorted(unknown))}; known: {", ".join(known)}'
            )
        given = {name: known[name].check(value) for name, value in arguments.items()}
        return {a.name: a.default for a in self.arguments} | given

    def _nodes(
        self,
        values: Mapping[str, Any],
        robot: Robot,
        simulated: SimulatedRobot | None,
        file: pathlib.Path,
        namespace: str,
    ) -> dict[str, NodeSpec]:
        """Return all nodes that these arguments ask for, by name and in starting order."""
        checkpoint = self._checkpoint(values)
        embodiment = _embodiment(values, checkpoint, robot)
        shared = {'use_sim_time': values['use_sim_time']}
        specs = []
        if simulated is not None:
            specs.append(
                NodeSpec(
                    name='mujoco_robot',
                    executable='mujoco_robot',
                    parameters={
                        **simulated.parameters,
                        'seed': values['seed'],
                        'publish_clock': values['use_sim_time'],
                        **_of_the_demo(values),
                    },
                    ready_topic='mujoco_robot/task_success',
                )
            )
        must = robot.guarded_in_simulation if simulated is not None else robot.guarded
        if must or guard_part(file) is not None:
            # It has zeros to send: when all are ended, because the dispatcher was killed.
            guard = NodeSpec(
                name='guard',
                executable='guard',
                parameter_files=(file,),
                ready_topic='guard/state',
                safe_stop=True,
                realtime_priority=values['realtime_priority'],
            )
            specs.append(guard)
        specs += [
            NodeSpec(
                name='action_dispatcher',
                executable='action_dispatcher',
                parameter_files=(file,),
                parameters={
                    'embodiment': str(embodiment.resolve()),
                    'require_enable': not _auto_enable(values),
                    'dry_run': values['dry_run'],
                    **(simulated.interlocks if simulated is not None else {}),
                    **shared,
                },
                remappings=(('action_chunk', 'policy_node/action_chunk'),),
                ready_topic='action_dispatcher/state',
                safe_stop=True,
                realtime_priority=values['realtime_priority'],
            ),
            NodeSpec(
                name='policy_node',
                executable='policy_node',
                parameter_files=(file,),
                parameters={
                    **_policy_source(values, checkpoint, embodiment),
                    'default_instruction': values['instruction'],
                    **shared,
                },
                ready_topic='policy_node/status',
            ),
        ]
        absolute = absolute_names(file) if namespace else ()
        return {s.name: placed(s, namespace, absolute) for s in specs}

    def _checkpoint(self, values: Mapping[str, Any]) -> pathlib.Path | None:
        if values['checkpoint']:
            return pathlib.Path(values['checkpoint'])
        # It knows the built-in simulation only: a real robot must not get it unasked.
        return paths.demo_checkpoint() if self._kind.demo and values['sim'] else None

    def _without_policy(self) -> str:
        return (
            f'policy_node is left out, as no checkpoint ships for {self.name}: give a folder '
            '(checkpoint) or a policy server (remote) to have one (docs/robots.md)'
        )

    def _refuse_policy(self) -> NoReturn:
        shipped = f'none ships for {self.name}'
        if self._kind.demo:
            shipped = 'the shipped one knows the built-in simulation only, not a real robot'
        raise ConfigError(
            f'checkpoint: {shipped}. Record episodes (docs/data.md), train one with '
            '`faster-vla policy train CONFIG` (docs/training.md) and give its folder, give a '
            'policy server (remote), or leave the policy out (`faster-vla up --nodes`, '
            '`nodes:=`)'
        )

    def _layout(self) -> pathlib.Path:
        return _existing(
            paths.share_dir() / 'config' / 'rviz' / f'{self.name}.rviz', 'layout for RViz'
        )


def fastdds_profile() -> pathlib.Path:
    """Return the profile without which Fast DDS loses images: its default segment is too small."""
    return _existing(paths.share_dir() / 'config' / 'fastdds_shm.xml', 'Fast DDS profile')


def checkpoint_needed(graph: Graph) -> pathlib.Path | None:
    """Return the checkpoint folder a graph's policy loads; None without a policy of its own."""
    for node in graph.nodes:
        if 'checkpoint_path' in node.parameters:
            return pathlib.Path(node.parameters['checkpoint_path'])
    return None


def _simulated(robot: Robot, values: Mapping[str, Any]) -> SimulatedRobot | None:
    """Return how the robot is played, None for a real one."""
    if not values['sim']:
        if values['use_sim_time'] and not values['params_file']:
            raise ConfigError(
                'use_sim_time: only a simulated robot publishes /clock; with another simulator '
                'give its params_file, e.g. gazebo/franka_fr3.yaml'
            )
        return None
    return robot.simulated[values.get('dialect', next(iter(robot.simulated)))]


def _of_the_demo(values: Mapping[str, Any]) -> dict[str, Any]:
    if 'task' not in values:
        return {}
    return {'task': values['task'], **(VENDOR_SIZES if values['vendor_images'] else {})}


def _with_guard(spec: NodeSpec, file: pathlib.Path) -> NodeSpec:
    """Return the guard with what its file leaves out; ConfigError if it would not guard."""
    if spec.name != 'guard':
        return spec
    if guard_part(file) is None:
        raise ConfigError(
            f'params_file: {file} says nothing of the guard, which must watch the base of this '
            'robot (expected /**: guard: ros__parameters)'
        )
    return dataclasses.replace(spec, parameters=completed(file))


def _embodiment(
    values: Mapping[str, Any], checkpoint: pathlib.Path | None, robot: Robot
) -> pathlib.Path:
    """Return the embodiment file of the dispatcher; a checkpoint's cannot be replaced."""
    own = None if checkpoint is None else checkpoint / 'embodiment.yaml'
    if own is not None and not own.is_file():
        own = None
    if values['embodiment']:
        if own is not None and not values['remote']:
            raise ConfigError('embodiment: the checkpoint has its own, give one of the two')
        return _existing(values['embodiment'], 'embodiment')
    return own or paths.embodiment_file(robot.embodiment)


def _policy_source(
    values: Mapping[str, Any], checkpoint: pathlib.Path | None, embodiment: pathlib.Path
) -> dict[str, str]:
    """Parameters that say where the policy is: here, or in a server for the dispatcher's robot."""
    if not values['remote']:
        if checkpoint is None:
            return {}  # this node is left out, or refused
        return {'checkpoint_path': str(checkpoint.resolve()), 'engine': values['engine']}
    if values['engine'] != 'auto':
        raise ConfigError(f'engine {values["engine"]}: a remote policy is run by its server')
    return {'remote': values['remote'], 'remote_embodiment': str(embodiment.resolve())}


def _auto_enable(values: Mapping[str, Any]) -> bool:
    wish = values['auto_enable']
    if wish == 'true' and not values['sim']:
        raise ConfigError(
            'auto_enable: a real robot moves after an explicit enable only '
            '(`faster-vla enable` or a goal with enable_motion)'
        )
    return values['sim'] if wish == 'sim' else wish == 'true'


def _robot_file(name: str) -> pathlib.Path:
    """Return a robot file: a path, or one below `config/robots`."""
    shipped = paths.share_dir() / 'config' / 'robots' / name
    return _existing(shipped if shipped.is_file() else name, 'params_file')


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


single_arm = GraphDescription(SINGLE_ARM)
dual_arm = GraphDescription(DUAL_ARM)
r1lite_wbc = GraphDescription(R1LITE_WBC)
GRAPHS = {g.name: g for g in (single_arm, dual_arm, r1lite_wbc)}
# Of the graph that demo and evaluation run.
ARGUMENTS = r1lite_wbc.arguments
