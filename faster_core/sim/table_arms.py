"""Robots whose arms stand on a table: one (FR3, UR5e, xArm 7) or two (ALOHA's, Trossen's).

Shapes are primitives; kinematics and limits are the published ones (`models/*.xml`). A gripper's
position is that of one of its fingers, as the vendors' drivers report it. There are no tasks here:
blocks to look at and to push, and `~/world_state` to see where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, TypeVar

import mujoco
import numpy as np

from faster_core.errors import ConfigError
from faster_core.sim.rendering import Renderers
from faster_core.sim.robot import checked, Part, PartKind

_T = TypeVar('_T')
MODELS = pathlib.Path(__file__).resolve().parent / 'models'
BLOCKS = ('red_block', 'blue_block', 'green_block')
BLOCK_HALF = 0.02
BLOCK_DISTANCE = 0.09


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm on the table.

    Attributes:
        model: file in `models` without its ending.
        prefix: of its names in the scene, e.g. 'left_'.
        joints: names of its joints in the robot's description.
        finger: name of the gripper's joint there.
        home: [J] rad, and where the finger starts, m.
        place: (x, y, yaw) of its foot on the table.
    """

    model: str
    prefix: str
    joints: tuple[str, ...]
    finger: str
    home: tuple[tuple[float, ...], float]
    place: tuple[float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """A camera that stands beside the table: position and the point it looks at, m."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 50.0


class TableArms:
    """Arms, table and blocks; the renderers belong to the thread that first calls `render`."""

    def __init__(
        self,
        arms: Sequence[Arm],
        views: Mapping[str, View],
        wrists: Mapping[str, str],
        block_area: tuple[tuple[float, float], tuple[float, float]],
    ) -> None:
        """Build the scene.

        Args:
            arms: in the order of `parts`.
            views: camera -> where it stands.
            wrists: camera -> prefix of the arm that carries it.
            block_area: x range and y range blocks are drawn from, m.
        """
        self._arms = tuple(arms)
        self._area = np.array(block_area)
        self.cameras = (*views, *wrists)
        self.camera_names = {c: c for c in views} | {c: f'{p}wrist' for c, p in wrists.items()}
        self.model = _build(arms, views)
        self.data = mujoco.MjData(self.model)
        self._renderers = Renderers(self.model)
        parts, self._rows = [], {}
        for arm in arms:
            inner = [f'{arm.prefix}joint{i}' for i in range(1, len(arm.joints) + 1)]
            name, gripper = f'{arm.prefix}arm', f'{arm.prefix}gripper'
            finger = f'{arm.prefix}finger1'
            parts += [
                Part(
                    name=name,
                    kind=PartKind.JOINTS,
                    joints=arm.joints,
                    model_joints=tuple(inner),
                ),
                Part(
                    name=gripper,
                    kind=PartKind.GRIPPER,
                    joints=(arm.finger,),
                    model_joints=(finger,),
                ),
            ]
            self._rows[name] = self._addresses(inner, inner)
            self._rows[gripper] = self._addresses([finger], [gripper])
        self.parts = tuple(parts)
        self._timestep = self.model.opt.timestep
        self.reset(0)

    def _addresses(self, joints: list[str], actuators: list[str]) -> tuple[list, list, list]:
        model = self.model
        return (
            [model.joint(j).qposadr[0] for j in joints],
            [model.joint(j).dofadr[0] for j in joints],
            [model.actuator(a).id for a in actuators],
        )

    def reset(self, seed: int, task: str | None = None) -> None:
        """Put the arms home and draw where the blocks stand.

        Raises:
            KeyError: a task is named; there are none.
        """
        if task:
            raise KeyError(f'unknown task {task!r}; this robot has none')
        self.seed = seed
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        for arm in self._arms:
            data.qpos[self._rows[f'{arm.prefix}arm'][0]] = arm.home[0]
            for finger in ('finger1', 'finger2'):
                data.qpos[model.joint(f'{arm.prefix}{finger}').qposadr[0]] = arm.home[1]
            self.set_positions(f'{arm.prefix}arm', np.array(arm.home[0]))
            self.set_positions(f'{arm.prefix}gripper', np.array([arm.home[1]]))
        for name, (x, y, yaw) in self._draw_blocks(seed).items():
            address = model.joint(name).qposadr[0]
            data.qpos[address : address + 7] = [
                *(x, y, BLOCK_HALF),
                *(np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)),
            ]
        self._carried = 0.0
        mujoco.mj_forward(model, data)

    def _draw_blocks(self, seed: int) -> dict[str, tuple[float, float, float]]:
        rng = np.random.default_rng(seed)
        while True:
            xy = rng.uniform(self._area[:, 0], self._area[:, 1], (len(BLOCKS), 2))
            apart = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(3, 1)]
            if apart.min() >= BLOCK_DISTANCE:
                yaws = rng.uniform(-0.7, 0.7, len(BLOCKS))
                return {
                    name: (*map(float, p), float(yaw))
                    for name, p, yaw in zip(BLOCKS, xy, yaws, strict=True)
                }

    @property
    def time(self) -> float:
        """Simulated seconds since the reset."""
        return float(self.data.time)

    task_name = ''
    instruction = ''

    def succeeded(self) -> bool:
        """No task, no success."""
        return False

    def set_positions(self, part: str, positions: np.ndarray) -> None:
        """Set a part's position set-point [J]; the model's joint limits clip it.

        Raises:
            ValueError: unknown part, wrong size or a value that is not finite.
        """
        if part not in self._rows:
            raise ValueError(f'unknown part {part!r}; known: {", ".join(self._rows)}')
        rows = self._rows[part][2]
        self.data.ctrl[rows] = checked(part, positions, len(rows))

    def set_base_speed(self, twist: np.ndarray) -> None:
        """Refuse (ValueError): these robots stand still."""
        raise ValueError(f'base: this robot has none, found a speed {np.asarray(twist).tolist()}')

    def joint_feedback(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return measured positions and velocities [J] of a part."""
        q, v, _ = self._rows[part]
        return self.data.qpos[q].copy(), self.data.qvel[v].copy()

    def step(self, duration: float) -> None:
        """Advance by `duration` seconds: physics steps of 2 ms, the rest is carried over."""
        wanted = duration / self._timestep + self._carried
        steps = round(wanted)
        self._carried = wanted - steps
        for _ in range(steps):
            mujoco.mj_step(self.model, self.data)

    def render(self, camera: str, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """Render one of `cameras`.

        Args:
            camera: name.
            size: square edge or (width, height) in pixels; None is (320, 240).

        Returns:
            RGB uint8 [height, width, 3].
        """
        size = size or (320, 240)
        size = (size, size) if isinstance(size, int) else size
        return self._renderers.render(self.data, self.camera_names[camera], size)

    def world_state(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return true poses, name -> (xyz, wxyz): blocks and hands."""
        names = [*BLOCKS, *(f'{arm.prefix}hand' for arm in self._arms)]
        return {n: (self.data.body(n).xpos.copy(), self.data.body(n).xquat.copy()) for n in names}

    def pose(self) -> np.ndarray:
        """Return a copy of everything a picture depends on (`show`)."""
        return self.data.qpos.copy()

    def show(self, pose: np.ndarray) -> None:
        """Take the `pose` of another simulator, to render it while that one moves on."""
        self.data.qpos[:] = pose
        mujoco.mj_forward(self.model, self.data)

    def close(self) -> None:
        """Free the renderers."""
        self._renderers.close()


FR3_HOME = ((0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4), 0.04)
UR5E_HOME = ((0.0, -np.pi / 2, np.pi / 2, -np.pi / 2, -np.pi / 2, 0.0), 0.0425)
XARM7_HOME = ((0.0, -0.2, 0.0, 1.0, 0.0, 1.2, 0.0), 0.0425)
UR5E_JOINTS = (
    'shoulder_pan_joint',
    'shoulder_lift_joint',
    'elbow_joint',
    'wrist_1_joint',
    'wrist_2_joint',
    'wrist_3_joint',
)
SINGLE_ARMS = {
    'fr3': Arm(
        model='fr3',
        prefix='',
        joints=tuple(f'fr3_joint{i}' for i in range(1, 8)),
        finger='fr3_finger_joint1',
        home=FR3_HOME,
        place=(0.0, 0.0, 0.0),
    ),
    'ur5e': Arm(
        model='ur5e',
        prefix='',
        joints=UR5E_JOINTS,
        finger='gripper_finger_joint',
        home=UR5E_HOME,
        place=(0.0, 0.0, 0.0),
    ),
    'xarm7': Arm(
        model='xarm7',
        prefix='',
        joints=tuple(f'joint{i}' for i in range(1, 8)),
        finger='gripper_finger_joint',
        home=XARM7_HOME,
        place=(0.0, 0.0, 0.0),
    ),
}
ALOHA_JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
ALOHA_HOME = ((0.0, -0.96, 1.16, 0.0, -0.3, 0.0), 0.057)
WXAI_HOME = ((0.0, 0.9, 0.7, -0.2, 0.0, 0.0), 0.044)


def _facing(
    distance: float, names: Mapping[str, str], joints: Sequence[str], finger: str, **arm: Any
) -> tuple[Arm, ...]:
    """Return two arms of a kind that look at each other.

    Args:
        distance: of either from the middle, m.
        names: side -> what comes before the names of its joints.
        joints: names without it.
        finger: name without it.
        arm: `model` and `home`.
    """
    return tuple(
        Arm(
            prefix=f'{side}_',
            joints=tuple(f'{names[side]}/{j}' for j in joints),
            finger=f'{names[side]}/{finger}',
            place=(0.3, y, yaw),
            **arm,
        )
        for side, y, yaw in (('left', distance, -np.pi / 2), ('right', -distance, np.pi / 2))
    )


# Arms and what looks at them. Distances are the vendors', Trossen's cameras within centimetres.
DUAL_ARMS: Mapping[str, tuple[Sequence[Arm], Mapping[str, View]]] = {
    'vx300s': (
        _facing(
            0.469,
            {'left': 'follower_left', 'right': 'follower_right'},
            ALOHA_JOINTS,
            'left_finger',
            model='vx300s',
            home=ALOHA_HOME,
        ),
        {
            'cam_high': View(position=(-0.35, 0.0, 1.0), target=(0.33, 0.0, 0.0), fovy=60),
            'cam_low': View(position=(-0.45, 0.0, 0.2), target=(0.3, 0.0, 0.15), fovy=65),
        },
    ),
    'wxai': (
        _facing(
            0.4575,
            {'left': 'trossen_arm_2', 'right': 'trossen_arm_1'},
            [f'joint_{i}' for i in range(6)],
            'left_carriage_joint',
            model='wxai',
            home=WXAI_HOME,
        ),
        {
            'cam_high': View(position=(-0.03, 0.0, 1.01), target=(0.44, 0.0, 0.0), fovy=58),
            'cam_low': View(position=(-0.07, 0.0, 0.03), target=(0.3, 0.0, 0.066), fovy=58),
        },
    ),
}


class SingleArmSim(TableArms):
    """A Franka FR3, Universal Robots UR5e or UFACTORY xArm 7 with its gripper at a table."""

    def __init__(self, arm_model: str = 'fr3') -> None:
        """Build it; ConfigError for an unknown arm."""
        super().__init__(
            [_known(SINGLE_ARMS, arm_model)],
            views={'scene': View(position=(1.25, 0.75, 0.75), target=(0.3, 0.0, 0.2))},
            wrists={'wrist': ''},
            block_area=((0.38, 0.6), (-0.25, 0.25)),
        )


class DualArmSim(TableArms):
    """Two ViperX 300 S (ALOHA) or WidowX AI (Trossen) that face each other over a table."""

    def __init__(self, arm_model: str = 'vx300s') -> None:
        """Build it; ConfigError for an unknown arm."""
        arms, views = _known(DUAL_ARMS, arm_model)
        super().__init__(
            arms,
            views=views,
            wrists={'cam_left_wrist': 'left_', 'cam_right_wrist': 'right_'},
            block_area=((0.15, 0.45), (-0.12, 0.12)),
        )


def _known(arms: Mapping[str, _T], name: str) -> _T:
    if name not in arms:
        raise ConfigError(f'arm_model: expected one of {", ".join(arms)}, found {name!r}')
    return arms[name]


def _build(arms: Sequence[Arm], views: Mapping[str, View]) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(MODELS / 'arms_table.xml'))
    for arm in arms:
        x, y, yaw = arm.place
        mount = spec.worldbody.add_frame(
            pos=[x, y, 0.0], quat=[np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        )
        child = mujoco.MjSpec.from_file(str(MODELS / f'{arm.model}.xml'))
        spec.attach(child, prefix=arm.prefix, frame=mount)
    for name, view in views.items():
        spec.worldbody.add_camera(
            name=name, pos=view.position, fovy=view.fovy, xyaxes=_looking(view)
        )
    return spec.compile()


def _looking(view: View) -> list[float]:
    """Axes x and y of a camera that looks at its target with the world's z upwards."""
    back = np.subtract(view.position, view.target)
    right = np.cross([0.0, 0.0, 1.0], back)
    up = np.cross(back, right)
    return [*(right / np.linalg.norm(right)), *(up / np.linalg.norm(up))]
