"""Reads robot files as the nodes read them, without a node."""

import dataclasses
import pathlib
import types
from typing import Any

from project_files import ROOT

from faster_core.embodiment import Embodiment
from faster_core.execution.config import check_braking, robot_file_parameters

ROBOTS = ROOT / 'config' / 'robots'
EMBODIMENTS = ROOT / 'config' / 'embodiments'
# Robot file below config/robots, and the embodiment it is for.
SHIPPED = {
    'aloha.yaml': 'aloha_stationary',
    'franka_fr3.yaml': 'franka_fr3',
    'gazebo/aloha.yaml': 'aloha_stationary',
    'gazebo/franka_fr3.yaml': 'franka_fr3',
    'gazebo/trossen.yaml': 'trossen_stationary',
    'gazebo/ur5e.yaml': 'ur5e',
    'gazebo/xarm7.yaml': 'xarm7',
    'isaac/aloha.yaml': 'aloha_stationary',
    'isaac/franka_fr3.yaml': 'franka_fr3',
    'isaac/trossen.yaml': 'trossen_stationary',
    'isaac/ur5e.yaml': 'ur5e',
    'isaac/xarm7.yaml': 'xarm7',
    'r1_lite.yaml': 'r1_lite',
    'r1_lite_hardware.yaml': 'r1_lite',
    'trossen.yaml': 'trossen_stationary',
    'ur5e.yaml': 'ur5e',
    'xarm7.yaml': 'xarm7',
}


@dataclasses.dataclass(frozen=True)
class _Value:
    value: Any


class ParametersOf:
    """In place of a node: its parameters, none of which is declared anywhere."""

    def __init__(self, **values: Any) -> None:
        """Take the flat parameters."""
        self._values = {name: _Value(value) for name, value in values.items()}

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, _Value]:
        """Return all that begin so."""
        return {n: v for n, v in self._values.items() if n.startswith(prefix)}

    def has_parameter(self, name: str) -> bool:
        """Nothing is to be declared."""
        return True

    def describe_parameter(self, name: str) -> types.SimpleNamespace:
        """Everything was given: what a table declares has a description, this has none."""
        return types.SimpleNamespace(description='')


class Publishing(ParametersOf):
    """In place of a node without parameters that publishes.

    Attributes:
        log: (topic, message) of everything published.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, Any]] = []

    def resolve_topic_name(self, topic: str) -> str:
        """No name is remapped."""
        return topic

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        """Nobody is on the wire."""
        return []

    def create_publisher(self, kind: type, topic: str, profile: Any, **options: Any) -> Any:
        """Return what appends to the log."""
        return types.SimpleNamespace(publish=lambda message: self.log.append((topic, message)))


def parameters(path, node):
    """Return a node's flat parameters in a robot file below config/robots, or anywhere."""
    return robot_file_parameters(ROBOTS / path, node)


def embodiment_path(name):
    """Return the path of a shipped embodiment."""
    return EMBODIMENTS / f'{name}.yaml'


def as_dispatcher(path, embodiment, **changes):
    """Return what the dispatcher makes of a robot file and an embodiment file."""
    from faster_vla_ros import dispatcher_parameters

    given = parameters(path, 'action_dispatcher') | {'embodiment': str(embodiment)} | changes
    config = dispatcher_parameters.read(ParametersOf(**given))
    check_braking(config.rules, config.trajectories)
    return config


def as_policy_node(path, embodiment, **changes):
    """Return what the policy node makes of them: its configuration and its state sources."""
    from faster_vla_ros import policy_parameters
    from faster_vla_ros.sensors.state import StateSource

    given = parameters(path, 'policy_node') | {'checkpoint_path': str(pathlib.Path())} | changes
    config = policy_parameters.read(ParametersOf(**given))
    wanted = Embodiment.load(embodiment)
    assert set(config.cameras) == set(wanted.cameras)
    assert set(config.sources) == {c.name for c in wanted.state}
    return config, {c.name: StateSource(c, config.sources[c.name]) for c in wanted.state}


def as_guard(path, **changes):
    """Return what the guard makes of a robot file."""
    from faster_vla_ros import parameters as reader
    from faster_vla_ros.guard import PARAMETERS

    return reader.read(ParametersOf(**parameters(path, 'guard') | changes), PARAMETERS)
