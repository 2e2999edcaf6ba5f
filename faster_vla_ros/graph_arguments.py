"""The arguments of the graphs: of all, of the demonstration, and what chooses the robot."""

from __future__ import annotations

from faster_vla_ros import realtime
from faster_vla_ros.graph_parts import Argument
from faster_vla_ros.graph_robots import GraphRobots

_SHARED = (
    Argument(name='sim', default=True, help='start the simulated robot; false: a real one'),
    Argument(
        name='checkpoint',
        default='',
        help='folder; empty: the shipped demo checkpoint, in its simulation',
    ),
    Argument(
        name='embodiment',
        default='',
        help='file, where no checkpoint brings its own; empty: the shipped one of the robot',
    ),
    Argument(
        name='remote',
        default='',
        help='host:port of a policy server; of the checkpoint only embodiment.yaml is read then',
    ),
    Argument(name='engine', default='auto', help='runs the policy: auto, eager, openvino, …'),
    Argument(
        name='params_file', default='', help='robot parameters: a path, or one below config/robots'
    ),
    Argument(name='namespace', default='', help='of all nodes, for a second robot: robot1'),
    Argument(name='dry_run', default=False, help='compute everything, command nothing'),
    Argument(
        name='auto_enable',
        default='sim',
        choices=('sim', 'true', 'false'),
        help='motion without an explicit enable; "sim": only in simulation (the default)',
    ),
    Argument(name='instruction', default='', help='carried out from the start, if not empty'),
    Argument(name='seed', default=0, help='scene of the simulation at the start'),
    Argument(
        name='realtime_priority',
        default=0,
        bounds=(0, realtime.HIGHEST),
        help='of dispatcher and guard under SCHED_FIFO (chrt -f): 1 to 99; 0: none',
    ),
    Argument(name='use_sim_time', default=False, help='simulated robot publishes /clock'),
    Argument(name='rviz', default=False, help='show config/rviz in RViz too', launch_only=True),
)
_OF_THE_DEMO = (
    Argument(name='task', default='', help='task of the simulation; empty: chosen by the seed'),
    Argument(name='vendor_images', default=False, help='simulate the vendor camera resolution'),
)


def arguments_of(kind: GraphRobots) -> tuple[Argument, ...]:
    """Return what a graph can be told."""
    return (*_choices(kind), *_SHARED, *(_OF_THE_DEMO if kind.demo else ()))


def _choices(kind: GraphRobots) -> tuple[Argument, ...]:
    """Return the arguments that choose the robot and how it is played, where there is a choice."""
    robots = tuple(r.name for r in kind.robots)
    dialects = tuple(dict.fromkeys(d for r in kind.robots for d in r.simulated))
    found = []
    if len(robots) > 1:
        text = f'which one: {", ".join(robots)}'
        found.append(Argument(name='robot', default=robots[0], choices=robots, help=text))
    if len(dialects) > 1:
        text = f'topics of the simulated robot: {", ".join(dialects)}'
        found.append(Argument(name='dialect', default=dialects[0], choices=dialects, help=text))
    return tuple(found)
