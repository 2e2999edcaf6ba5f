"""What every simulated robot is to whoever lets it run: parts that are commanded, and cameras.

A part is what one controller moves. The robot itself knows neither topics nor controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import enum
from typing import Any, Protocol

import numpy as np

from faster_core.errors import ConfigError


class PartKind(enum.Enum):
    """How a part is commanded."""

    JOINTS = 'joints'
    GRIPPER = 'gripper'
    BASE = 'base'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a robot.

    Attributes:
        name: as the embodiment's component, e.g. 'left_arm'.
        kind: a base takes speeds (vx, vy, wz), everything else positions.
        joints: names as the robot's own description has them; of a base those of its place in the
            world (x, y, yaw), which no driver tells.
        model_joints: what the model calls them, where it has other names. Several for one joint:
            fingers of a gripper whose joint is the stroke, the sum of their ways.
    """

    name: str
    kind: PartKind
    joints: tuple[str, ...] = ()
    model_joints: tuple[str, ...] = ()


class SimulatedRobot(Protocol):
    """A robot in a scene; deterministic for a seed and a command sequence.

    Attributes:
        parts: what is commanded.
        cameras: names of the cameras.
        camera_names: camera -> what the model calls it.
        model: the compiled `mujoco.MjModel`.
        seed: of the scene.
    """

    parts: tuple[Part, ...]
    cameras: tuple[str, ...]
    camera_names: Mapping[str, str]
    model: Any
    seed: int

    def reset(self, seed: int, task: str | None = None) -> None:
        """Place robot and objects; KeyError for a task that does not exist here."""

    def set_positions(self, part: str, positions: np.ndarray) -> None:
        """Set a part's position set-point [J] (rad, m); ValueError: size or not finite."""

    def set_base_speed(self, twist: np.ndarray) -> None:
        """Set the base's speed (vx, vy, wz); ValueError: none, size or not finite."""

    def joint_feedback(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities [J] of a part; of a base: (x, y, yaw) and speed."""

    def step(self, duration: float) -> None:
        """Advance physics by `duration` seconds."""

    @property
    def task_name(self) -> str:
        """Name of the task asked for; '' where there are none."""

    @property
    def instruction(self) -> str:
        """Instruction of the task; '' where there are none."""

    def succeeded(self) -> bool:
        """Whether the task has been carried out."""

    def world_state(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return true poses, name -> (xyz, wxyz)."""

    def render(self, camera: str, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """Return RGB uint8 [height, width, 3] of one of `cameras`."""

    def pose(self) -> Any:
        """Return a copy of everything a picture depends on."""

    def show(self, pose: Any) -> None:
        """Take the pose of another simulator of the same robot."""

    def close(self) -> None:
        """Free what rendering needs."""


def checked(name: str, values: np.ndarray, size: int) -> np.ndarray:
    """Return a command as a float array [size]; ValueError: another size or not finite."""
    values = np.asarray(values, dtype=float)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(f'{name}: expected {size} finite values, found {values}')
    return values


def _r1_lite(arm_model: str) -> SimulatedRobot:
    from faster_core.sim.r1_lite import R1LiteSim

    if arm_model:
        raise ConfigError(f'arm_model: the R1 Lite has its own arms, found {arm_model!r}')
    return R1LiteSim()


def _single_arm(arm_model: str) -> SimulatedRobot:
    from faster_core.sim.table_arms import SingleArmSim

    return SingleArmSim(arm_model)


def _dual_arm(arm_model: str) -> SimulatedRobot:
    from faster_core.sim.table_arms import DualArmSim

    return DualArmSim(arm_model)


ROBOTS: Mapping[str, Callable[[str], SimulatedRobot]] = {
    'r1_lite': _r1_lite,
    'single_arm': _single_arm,
    'dual_arm': _dual_arm,
}
# Arm of a robot that can have several, where none is named.
DEFAULT_ARMS: Mapping[str, str] = {'single_arm': 'fr3', 'dual_arm': 'vx300s'}


def make_robot(name: str, *, arm_model: str = '') -> SimulatedRobot:
    """Build a simulated robot.

    Args:
        name: key of `ROBOTS`.
        arm_model: key of `SINGLE_ARMS` or `DUAL_ARMS` of `table_arms`; empty: of `DEFAULT_ARMS`.

    Raises:
        ConfigError: unknown robot or arm.
    """
    if name not in ROBOTS:
        raise ConfigError(f'robot: expected one of {", ".join(ROBOTS)}, found {name!r}')
    return ROBOTS[name](arm_model or DEFAULT_ARMS.get(name, ''))
