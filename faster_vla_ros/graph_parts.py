"""What a graph is made of: nodes, arguments, the graph itself. It imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from faster_core.errors import ConfigError

PACKAGE = 'faster_vla_ros'
# A remapping from this sets the namespace of a node.
NAMESPACE = '__ns'


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One process of the graph.

    Attributes:
        name: node name.
        executable: console script of the package; the module is `faster_vla_ros.<executable>`.
        parameter_files: YAML files, applied in order.
        parameters: applied after the files; no empty lists (they have no type).
        remappings: (from, to) pairs; from `__ns` to the namespace if there is one.
        ready_topic: latched topic on which the node says that it works (see `session.py`); empty:
            it works as soon as it runs.
        safe_stop: the node has commands to send before it ends; it must not be killed at once.
        realtime_priority: under SCHED_FIFO; 0: none.
    """

    name: str
    executable: str
    parameter_files: tuple[pathlib.Path, ...] = ()
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    ready_topic: str = ''
    safe_stop: bool = False
    realtime_priority: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """What runs together.

    Attributes:
        name: of the graph.
        nodes: in starting order.
        stop_order: names, first to be ended first. The policy ends before the dispatcher, so that
            no chunk follows the safe commands; the guard outlives the dispatcher; the robot ends
            last, so that it hears them.
        environment: variables every process gets unless they are set already.
        namespace: of all nodes; '' or '/robot1'.
        rviz: layout for RViz, to be shown beside the nodes; None: not wanted.
        simulated: parameters of the simulated robot, to describe it (`faster_core/sim/urdf.py`);
            None without one.
        use_sim_time: whether the nodes go by /clock.
        warnings: sentences for whoever starts it.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    stop_order: tuple[str, ...]
    environment: Mapping[str, str]
    namespace: str = ''
    rviz: pathlib.Path | None = None
    simulated: Mapping[str, Any] | None = None
    use_sim_time: bool = False
    warnings: tuple[str, ...] = ()

    def node(self, name: str) -> NodeSpec:
        """Return the node of that name; KeyError if the graph has none."""
        return {n.name: n for n in self.nodes}[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of a launch file and of `faster-vla up`; the default gives the type.

    Attributes:
        name: as it is typed.
        default: if it is not.
        help: one line.
        choices: allowed values; empty: any.
        bounds: lowest and highest allowed number; None: any.
        launch_only: `faster-vla up` has no such option.
    """

    name: str
    default: bool | int | str
    help: str
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int] | None = None
    launch_only: bool = False

    def parse(self, text: str) -> bool | int | str:
        """Read a value as launch passes it: text.

        Raises:
            ConfigError: not a value of the argument's type, or not an allowed one.
        """
        if isinstance(self.default, bool):
            if text.lower() not in ('true', 'false'):
                raise ConfigError(f'{self.name}: expected true or false, found {text!r}')
            return text.lower() == 'true'
        if isinstance(self.default, int):
            try:
                number = int(text)
            except ValueError as e:
                raise ConfigError(f'{self.name}: expected a whole number, found {text!r}') from e
            return self.check(number)
        return self.check(text)

    def check(self, value: Any) -> Any:
        """Return a value of the right type; ConfigError names the argument and what it takes."""
        if type(value) is not type(self.default):
            expected = type(self.default).__name__
            raise ConfigError(f'{self.name}: expected {expected}, found {value!r}')
        if self.choices and value not in self.choices:
            known = ', '.join(self.choices)
            raise ConfigError(f'{self.name}: expected one of {known}, found {value!r}')
        low, high = self.bounds or (value, value)
        if not low <= value <= high:
            raise ConfigError(f'{self.name}: expected {low} to {high}, found {value}')
        return value

    @property
    def default_text(self) -> str:
        """The default as launch writes it."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return str(self.default)
