"""The simulated R1 Lite as a robot: SI commands in, feedback and images out.

Torso: the vendor commands a speed (vx, vz, pitch rate, yaw rate) of the upper body. The robot has
three parallel pitch joints, i.e. a planar arm whose end moves in x, z and pitch; the command is
mapped to joint rates by the inverse of that planar Jacobian. There is no yaw joint: the yaw rate
and the fourth feedback value stay inert (zero).
"""

from __future__ import annotations

import mujoco
import numpy as np

from faster_core.embodiment import Embodiment
from faster_core.paths import embodiment_file
from faster_core.sim import scene
from faster_core.sim.rendering import Renderers
from faster_core.sim.robot import checked, Part, PartKind
from faster_core.sim.tasks import scene_task, Task, TASKS

SIDES = ('left', 'right')
CAMERAS = {'head': 'head', 'wrist_left': 'left_wrist', 'wrist_right': 'right_wrist'}
# Beyond this singular value the torso is stretched out and the damped inverse slows it down.
TORSO_DAMPING = 0.02
SUCCESS_HOLD = 1.0
# Rate (Hz) at which set-points change between two control steps.
COMMAND_RATE = 45.0


PARTS = (
    *(
        part
        for side in SIDES
        for part in (
            Part(
                name=f'{side}_arm',
                kind=PartKind.JOINTS,
                joints=tuple(f'{side}_arm_joint{i}' for i in range(1, 7)),
                model_joints=tuple(f'{side}_joint{i}' for i in range(1, 7)),
            ),
            Part(
                name=f'{side}_gripper',
                kind=PartKind.GRIPPER,
                joints=(f'{side}_gripper_joint',),
                model_joints=(f'{side}_finger1', f'{side}_finger2'),
            ),
        )
    ),
    Part(name='torso', kind=PartKind.JOINTS, joints=tuple(f'torso_joint{i}' for i in (1, 2, 3))),
    Part(name='base', kind=PartKind.BASE, joints=('base_x', 'base_y', 'base_yaw')),
)


class R1LiteSim:
    """R1 Lite, table, blocks and posts; deterministic for a seed and a command sequence.

    The renderer belongs to the thread that first calls `render`.
    """

    parts = PARTS
    cameras = tuple(CAMERAS)
    camera_names = CAMERAS

    def __init__(self, *, image_size: int = 96) -> None:
        """Compile the model; `image_size` is the default square render size in pixels."""
        self.embodiment = Embodiment.load(embodiment_file('r1_lite'))
        self.image_size = image_size
        self.model = scene.build_model()
        self.data = mujoco.MjData(self.model)
        self._renderers = Renderers(self.model)
        self._timestep = self.model.opt.timestep
        self._arm_qpos = {s: self._addresses(s, 'qposadr') for s in SIDES}
        self._arm_dof = {s: self._addresses(s, 'dofadr') for s in SIDES}
        self._arm_ctrl = {
            s: [self.model.actuator(f'{s}_joint{i}').id for i in range(1, 7)] for s in SIDES
        }
        self._gripper_qpos = {s: self.model.joint(f'{s}_finger1').qposadr[0] for s in SIDES}
        self._gripper_dof = {s: self.model.joint(f'{s}_finger1').dofadr[0] for s in SIDES}
        self._gripper_ctrl = {s: self.model.actuator(f'{s}_gripper').id for s in SIDES}
        torso = [self.model.joint(f'torso_joint{i}') for i in (1, 2, 3)]
        self._torso_qpos = [j.qposadr[0] for j in torso]
        self._torso_dof = [j.dofadr[0] for j in torso]
        self._torso_range = np.array([j.range for j in torso])
        self._torso_ctrl = [self.model.actuator(f'torso_joint{i}').id for i in (1, 2, 3)]
        self._base_dof = [self.model.joint(f'base_{a}').dofadr[0] for a in ('x', 'y', 'yaw')]
        self._base_qpos = [self.model.joint(f'base_{a}').qposadr[0] for a in ('x', 'y', 'yaw')]
        self._base_ctrl = [self.model.actuator(f'base_{a}').id for a in ('x', 'y', 'yaw')]
        self.task: Task
        self.reset(0)

    def reset(self, seed: int, task: str | None = None) -> None:
        """Place robot and objects for a seed.

        Args:
            seed: non-negative; decides the scene, never the task.
            task: key of `TASKS`; None picks one by the seed.

        Raises:
            KeyError: unknown task; the message lists the known ones.
        """
        self.ask(scene_task(seed).name if task is None else task)
        layout = scene.draw_layout(seed)
        self.seed = seed
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        data.qpos[self._base_qpos] = layout.base
        data.qpos[self._torso_qpos] = scene.TORSO_HOME
        for side in SIDES:
            data.qpos[self._arm_qpos[side]] = scene.ARM_HOME[side] + layout.arm_noise[side]
            data.qpos[self._gripper_qpos[side]] = scene.GRIPPER_OPEN / 2
            data.qpos[model.joint(f'{side}_finger2').qposadr[0]] = scene.GRIPPER_OPEN / 2
        for name, (x, y, yaw) in layout.blocks.items():
            address = model.joint(name).qposadr[0]
            z = scene.TABLE_TOP + scene.BLOCK_HALF[2]
            data.qpos[address : address + 7] = [x, y, z, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        for name, y in layout.posts.items():
            data.mocap_pos[model.body(name).mocapid[0]][1] = y
        self._torso_target = scene.TORSO_HOME.copy()
        self._torso_twist = np.zeros(3)
        self._base_twist = np.zeros(3)
        self._carried = 0.0
        mujoco.mj_forward(model, data)
        for side in SIDES:
            self.set_command(f'{side}_arm', data.qpos[self._arm_qpos[side]])
            self.set_command(f'{side}_gripper', [scene.GRIPPER_OPEN])

    def ask(self, task: str) -> None:
        """Set the task that decides about success; nothing in the world changes.

        Raises:
            KeyError: unknown task; the message lists the known ones.
        """
        if task not in TASKS:
            raise KeyError(f'unknown task {task!r}; known: {", ".join(TASKS)}')
        self.task = TASKS[task]
        self._held_since: float | None = None

    @property
    def time(self) -> float:
        """Simulated seconds since the reset."""
        return float(self.data.time)

    @property
    def instruction(self) -> str:
        """Instruction of the current task."""
        return self.task.instruction

    def set_command(self, component: str, values: np.ndarray) -> None:
        """Set the set-point of one action component (SI units, embodiment order).

        Raises:
            ValueError: unknown component, wrong size or a value that is not finite.
        """
        sizes = {c.name: c.size for c in self.embodiment.action}
        if component not in sizes:
            raise ValueError(f'unknown component {component!r}; known: {", ".join(sizes)}')
        values = checked(component, values, sizes[component])
        if component == 'base':
            self._base_twist = values.copy()
        elif component == 'torso':
            self._torso_twist = values[:3].copy()
        else:
            side, _, part = component.partition('_')
            if part == 'arm':
                self.data.ctrl[self._arm_ctrl[side]] = values
            else:
                self.data.ctrl[self._gripper_ctrl[side]] = np.clip(values[0], 0.0, 0.1) / 2

    def set_positions(self, part: str, positions: np.ndarray) -> None:
        """Set the position set-point of a part: arms, grippers and, by its joints [3], the torso.

        Raises:
            ValueError: no such part, wrong size or a value that is not finite.
        """
        if part == 'torso':
            low, high = self._torso_range.T
            self._torso_target = np.clip(checked(part, positions, 3), low, high)
            self._torso_twist = np.zeros(3)
        elif part == 'base':
            raise ValueError('base: takes a speed, not positions')
        else:
            self.set_command(part, positions)

    def set_base_speed(self, twist: np.ndarray) -> None:
        """Set the speed of the base (vx, vy, wz); ValueError as `set_command`."""
        self.set_command('base', twist)

    def joint_feedback(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities of a part's own joints (`feedback`; the torso: [3])."""
        position, velocity = self.feedback(part)
        return (position[:3], velocity[:3]) if part == 'torso' else (position, velocity)

    @property
    def task_name(self) -> str:
        """Name of the task asked for."""
        return self.task.name

    def step(self, duration: float) -> None:
        """Advance by `duration` seconds: physics steps of 2 ms, the rest is carried over."""
        wanted = duration / self._timestep + self._carried
        steps = round(wanted)
        self._carried = wanted - steps
        for _ in range(steps):
            self._apply_rates()
            mujoco.mj_step(self.model, self.data)
        self._update_success()

    def _apply_rates(self) -> None:
        yaw = self.data.qpos[self._base_qpos[2]]
        c, s = np.cos(yaw), np.sin(yaw)
        vx, vy, wz = self._base_twist
        self.data.ctrl[self._base_ctrl] = [c * vx - s * vy, s * vx + c * vy, wz]
        if self._torso_twist.any():
            rates = _torso_rates(self._torso_target, self._torso_twist)
            target = self._torso_target + rates * self._timestep
            self._torso_target = np.clip(target, self._torso_range[:, 0], self._torso_range[:, 1])
        self.data.ctrl[self._torso_ctrl] = self._torso_target

    def glide(self, current: np.ndarray, target: np.ndarray, duration: float) -> None:
        """Step while the set-point [D] moves linearly from `current` to `target`.

        This is what the dispatcher's interpolation does on the wire, at its 50 Hz or so.
        """
        slices = self.embodiment.action_slices
        ticks = max(1, round(duration * COMMAND_RATE))
        for k in range(1, ticks + 1):
            values = current + (target - current) * (k / ticks)
            for name, columns in slices.items():
                self.set_command(name, values[columns])
            self.step(duration / ticks)

    def state(self) -> np.ndarray:
        """Return proprioception [S] in the embodiment's order: no object pose is in it."""
        parts = []
        for c in self.embodiment.state:
            position, velocity = self.feedback(c.name)
            parts.append(velocity if c.name == 'base' else position)
        return np.concatenate(parts)

    def feedback(self, component: str) -> tuple[np.ndarray, np.ndarray]:
        """Return measured (position, velocity) of a component, SI units.

        Arms [6] rad; grippers [1] m of stroke; torso [4] rad, the fourth always zero; base [3]
        (x, y, yaw) in the world and its velocity in base_link.
        """
        q, v = self.data.qpos, self.data.qvel
        if component == 'base':
            c, s = np.cos(q[self._base_qpos[2]]), np.sin(q[self._base_qpos[2]])
            vx, vy, wz = v[self._base_dof]
            return q[self._base_qpos].copy(), np.array([c * vx + s * vy, c * vy - s * vx, wz])
        if component == 'torso':
            return np.append(q[self._torso_qpos], 0.0), np.append(v[self._torso_dof], 0.0)
        side, _, part = component.partition('_')
        if part == 'arm':
            return q[self._arm_qpos[side]].copy(), v[self._arm_dof[side]].copy()
        return (
            np.array([2 * q[self._gripper_qpos[side]]]),
            np.array([2 * v[self._gripper_dof[side]]]),
        )

    def render(self, camera: str, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """Render a camera of the embodiment (or 'observer').

        Args:
            camera: 'head', 'wrist_left', 'wrist_right' or 'observer'.
            size: square edge or (width, height) in pixels; None is `image_size`.

        Returns:
            RGB uint8 [height, width, 3].
        """
        size = size or self.image_size
        size = (size, size) if isinstance(size, int) else size
        return self._renderers.render(self.data, CAMERAS.get(camera, camera), size)

    def success(self) -> bool:
        """Whether the task's predicate holds right now."""
        return self.task.predicate(self)

    def succeeded(self) -> bool:
        """Whether the predicate has held for `SUCCESS_HOLD` seconds without a break."""
        return self._held_since is not None and self.time - self._held_since >= SUCCESS_HOLD

    def _update_success(self) -> None:
        if not self.success():
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self.time

    def world_state(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return true poses, name -> (xyz, wxyz): for evaluation only."""
        names = [*scene.BLOCKS, *scene.POSTS, 'base_link', 'left_hand', 'right_hand']
        return {n: (self.data.body(n).xpos.copy(), self.data.body(n).xquat.copy()) for n in names}

    def landmarks(self) -> dict[str, np.ndarray]:
        """Return name -> [3] m in the base frame (on the floor) of objects and both hands."""
        position, _ = self.feedback('base')
        c, s = np.cos(position[2]), np.sin(position[2])
        to_base = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        points = {n: self.data.body(n).xpos for n in (*scene.BLOCKS, *scene.POSTS)}
        points |= {f'{side}_hand': self.data.site(f'{side}_tcp').xpos for side in SIDES}
        origin = np.array([position[0], position[1], 0.0])
        return {n: to_base @ (p - origin) for n, p in points.items()}

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a copy of everything a picture depends on (`show`)."""
        return self.data.qpos.copy(), self.data.mocap_pos.copy()

    def show(self, pose: tuple[np.ndarray, np.ndarray]) -> None:
        """Take the `pose` of another simulator, to render it while that one moves on."""
        self.data.qpos[:], self.data.mocap_pos[:] = pose
        mujoco.mj_forward(self.model, self.data)

    def close(self) -> None:
        """Free the renderers."""
        self._renderers.close()

    def _addresses(self, side: str, field: str) -> list[int]:
        return [getattr(self.model.joint(f'{side}_joint{i}'), field)[0] for i in range(1, 7)]


def torso_pose(q: np.ndarray) -> np.ndarray:
    """Return (x, z, pitch) of torso link 3 relative to torso joint 1 for joint angles [3]."""
    a, b = q[0], q[0] + q[1]
    return np.array([0.35 * (np.sin(a) + np.sin(b)), 0.35 * (np.cos(a) + np.cos(b)), b - q[2]])


def _torso_rates(q: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """Map (vx, vz, wy) of the upper body to joint rates [3] (damped inverse Jacobian)."""
    a, b = q[0], q[0] + q[1]
    ca, sa, cb, sb = np.cos(a), np.sin(a), np.cos(b), np.sin(b)
    jacobian = np.array(
        [
            [0.35 * (ca + cb), 0.35 * cb, 0.0],
            [-0.35 * (sa + sb), -0.35 * sb, 0.0],
            [1.0, 1.0, -1.0],
        ]
    )
    gram = jacobian @ jacobian.T + TORSO_DAMPING**2 * np.eye(3)
    return jacobian.T @ np.linalg.solve(gram, twist)
