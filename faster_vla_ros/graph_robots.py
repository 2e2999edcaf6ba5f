"""The robots the graphs are made for: which files describe them, and who plays them."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedRobot:
    """How `mujoco_robot` plays a robot.

    Attributes:
        parameter_file: below `config/robots`, for what it speaks.
        parameters: of `mujoco_robot`.
        interlocks: parameters of the dispatcher that switch off what the simulation lacks.
    """

    parameter_file: str
    parameters: Mapping[str, Any]
    interlocks: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robot:
    """One robot of a graph.

    Attributes:
        name: value of the argument `robot`.
        embodiment: below `config/embodiments`, without its ending; of the dispatcher where no
            checkpoint says otherwise.
        parameter_file: below `config/robots`, for the real one.
        simulated: dialect -> how it is played; the first is the default.
        guarded: it has a base that may drive on when the dispatcher disappears.
        guarded_in_simulation: so has the simulated one.
    """

    name: str
    embodiment: str
    parameter_file: str
    simulated: Mapping[str, SimulatedRobot]
    guarded: bool = False
    guarded_in_simulation: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphRobots:
    """The robots of one graph.

    Attributes:
        name: of the graph, its launch file and its layouts in `config/rviz` and
            `config/foxglove`.
        help: one line.
        robots: the first is the default.
        demo: a checkpoint for it ships with the package, and the simulation has tasks.
    """

    name: str
    help: str
    robots: tuple[Robot, ...]
    demo: bool = False


def _table_robot(name: str, parameters: Mapping[str, Any]) -> Mapping[str, SimulatedRobot]:
    """Return how an arm on a table is played: one parameter file per dialect."""
    files = {'ros2_control': 'gazebo', 'isaac': 'isaac'}
    return {
        dialect: SimulatedRobot(
            parameter_file=f'{folder}/{name}.yaml',
            parameters={**parameters, 'dialect': dialect},
        )
        for dialect, folder in files.items()
    }


SINGLE_ARM = GraphRobots(
    name='single_arm',
    help='one arm with a gripper: Franka FR3, UR5e, xArm 7',
    robots=(
        Robot(
            name='franka_fr3',
            embodiment='franka_fr3',
            parameter_file='franka_fr3.yaml',
            simulated=_table_robot('franka_fr3', {'robot': 'single_arm', 'arm_model': 'fr3'}),
        ),
        Robot(
            name='ur5e',
            embodiment='ur5e',
            parameter_file='ur5e.yaml',
            simulated=_table_robot('ur5e', {'robot': 'single_arm', 'arm_model': 'ur5e'}),
        ),
        Robot(
            name='xarm7',
            embodiment='xarm7',
            parameter_file='xarm7.yaml',
            simulated=_table_robot('xarm7', {'robot': 'single_arm', 'arm_model': 'xarm7'}),
        ),
    ),
)
DUAL_ARM = GraphRobots(
    name='dual_arm',
    help='two arms with grippers: ALOHA, Trossen stationary',
    robots=(
        Robot(
            name='aloha',
            embodiment='aloha_stationary',
            parameter_file='aloha.yaml',
            simulated=_table_robot('aloha', {'robot': 'dual_arm', 'arm_model': 'vx300s'}),
        ),
        Robot(
            name='trossen',
            embodiment='trossen_stationary',
            parameter_file='trossen.yaml',
            simulated=_table_robot('trossen', {'robot': 'dual_arm', 'arm_model': 'wxai'}),
        ),
    ),
)
R1LITE_WBC = GraphRobots(
    name='r1lite_wbc',
    help='Galaxea R1 Lite under whole-body control',
    demo=True,
    robots=(
        Robot(
            name='r1_lite',
            embodiment='r1_lite',
            parameter_file='r1_lite_hardware.yaml',
            guarded=True,
            guarded_in_simulation=True,
            simulated={
                'vendor': SimulatedRobot(
                    parameter_file='r1_lite.yaml',
                    parameters={'robot': 'r1_lite', 'dialect': 'vendor'},
                    interlocks={'permit.topic': ''},  # it has no remote control
                )
            },
        ),
    ),
)
