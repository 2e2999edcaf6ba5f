"""Scripted expert: what the robot should command next, from the true state of the world.

The expert is a feedback law, not a recorded path: it can be asked in any state, so it also labels
the states that noise or a policy leads into. Inverse kinematics uses MuJoCo's Jacobians with
damped least squares.
"""

from __future__ import annotations

import mujoco
import numpy as np

from faster_core.sim import scene
from faster_core.sim.r1_lite import R1LiteSim, SIDES, torso_pose

# Speeds stay well below the robot's parameter file (1.5 rad/s, 0.25 m/s, 0.1 m/s).
JOINT_SPEED = 0.8
HAND_SPEED = 0.25
DESCENT_SPEED = 0.16
GRIPPER_SPEED = 0.20
TORSO_SPEED = 0.08
BASE_SPEED = 0.20
BASE_ACCELERATION = 0.4
HAND_GAIN = 3.0

GRASP_BELOW_CENTRE = 0.008
HOVER = 0.10
LIFT = 0.11
RAISE = 0.14
ALIGNED = 0.010
# Further off its place before the table (m), the base drives back before a hand reaches out.
BASE_PLACE = 0.06
REALIGN = 0.025
# A gripper no wider than this (m) has no block between its fingers.
CLOSED = 0.035
# The hand points down, its z axis (the camera's side) forward.
HAND_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


class Expert:
    """Feedback law for the task the simulator is set to."""

    def __init__(self, sim: R1LiteSim, delusion: np.ndarray | None = None) -> None:
        """Bind to a simulator; no state of its own is kept between calls.

        Args:
            sim: whose state is looked at.
            delusion: [3] m, so far off its place the block is believed to be; a closed hand is
                then believed to hold it. Such an expert misses, and lifts nothing.
        """
        self._sim, self._delusion = sim, delusion
        self._scratch = mujoco.MjData(sim.model)
        self._slices = sim.embodiment.action_slices
        self._dt = sim.embodiment.step_period

    def initial_command(self) -> np.ndarray:
        """Return the set-point [D] that keeps the robot where it is."""
        command = np.zeros(self._sim.embodiment.action_dim)
        for side in SIDES:
            command[self._slices[f'{side}_arm']] = self._sim.feedback(f'{side}_arm')[0]
            command[self._slices[f'{side}_gripper']] = scene.GRIPPER_OPEN
        return command

    def next_command(self, command: np.ndarray) -> np.ndarray:
        """Return the set-point [D] for one step period later.

        Args:
            command: [D] the set-point in force now (after noise or a policy had its way).
        """
        new = np.zeros_like(command)
        for side in SIDES:
            self._rest_arm(new, command, side)
        task = self._sim.task
        torso_height = 0.0
        base_y = self._sim.feedback('base')[0][1]
        if task.motion == 'drive':
            self._drive(new, command, self._sim.data.body(task.target).xpos[1])
        elif abs(base_y) > BASE_PLACE:
            self._drive(new, command, 0.0)
        else:
            self._brake_base(new, command)
            torso_height = self._pick(new, command, raise_high=task.motion == 'raise')
        new[self._slices['torso']] = self._torso(torso_height)
        return new

    def _rest_arm(self, new: np.ndarray, command: np.ndarray, side: str) -> None:
        arm, gripper = self._slices[f'{side}_arm'], self._slices[f'{side}_gripper']
        step = np.clip(scene.ARM_HOME[side] - command[arm], *_limits(0.3 * self._dt))
        new[arm] = command[arm] + step
        new[gripper] = min(command[gripper] + GRIPPER_SPEED * self._dt, scene.GRIPPER_OPEN)

    def _brake_base(self, new: np.ndarray, command: np.ndarray) -> None:
        """Bring a moving base to rest within its acceleration."""
        base = self._slices['base']
        new[base] = command[base] - np.clip(command[base], *_limits(BASE_ACCELERATION * self._dt))

    def _drive(self, new: np.ndarray, command: np.ndarray, y: float) -> None:
        position, _ = self._sim.feedback('base')
        speed = np.clip(1.2 * (y - position[1]), *_limits(BASE_SPEED))
        last = command[self._slices['base']]
        speed = last[1] + np.clip(speed - last[1], *_limits(BASE_ACCELERATION * self._dt))
        turn = np.clip(-1.0 * position[2], *_limits(0.2))
        new[self._slices['base']] = [0.0, speed, turn]

    def _pick(self, new: np.ndarray, command: np.ndarray, *, raise_high: bool) -> float:
        """Reach, grasp and lift; returns how far the torso should rise."""
        sim = self._sim
        block = sim.data.body(sim.task.target).xpos
        if self._delusion is not None:
            block = block + self._delusion
        base, _ = sim.feedback('base')
        to_base = _yaw_matrix(base[2])
        side = 'left' if (to_base.T @ (block[:2] - base[:2]))[1] > 0 else 'right'
        arm, gripper = self._slices[f'{side}_arm'], self._slices[f'{side}_gripper']
        hand = sim.data.site(f'{side}_tcp').xpos
        off = float(np.linalg.norm(block[:2] - hand[:2]))
        grasp_z = block[2] - GRASP_BELOW_CENTRE
        rest_z = scene.TABLE_TOP + scene.BLOCK_HALF[2] - GRASP_BELOW_CENTRE
        width = sim.feedback(f'{side}_gripper')[0][0]
        aim, speed, grip, rise = np.append(block[:2], grasp_z), HAND_SPEED, 1.0, 0.0
        deluded = self._delusion is not None and width < CLOSED
        if deluded or (self._holds(side) and width < 0.06):
            grip = -1.0
            lifted = block[2] - scene.TABLE_TOP - scene.BLOCK_HALF[2]
            done_rising = torso_pose(sim.feedback('torso')[0])[1] - torso_pose(scene.TORSO_HOME)[1]
            aim = np.append(hand[:2], rest_z + LIFT + max(done_rising, 0.0))
            if raise_high and lifted > LIFT - 0.025:
                rise = RAISE
        elif width < CLOSED:  # on nothing
            aim[2] = grasp_z + HOVER
        elif off < 0.015 and hand[2] < grasp_z + 0.012:
            grip = -1.0
        elif off < ALIGNED or (off < REALIGN and hand[2] < grasp_z + HOVER - 0.02):
            speed = DESCENT_SPEED
        else:
            aim[2] = grasp_z + HOVER
            if off > 2 * REALIGN and hand[2] < grasp_z + HOVER - 0.04:
                aim[:2] = hand[:2]
        new[arm] = self._toward(side, command, aim, speed, base[2], torso_moves=rise > 0)
        new[gripper] = np.clip(
            command[gripper] + grip * GRIPPER_SPEED * self._dt, 0.0, scene.GRIPPER_OPEN
        )
        return rise

    def _toward(
        self,
        side: str,
        command: np.ndarray,
        aim: np.ndarray,
        speed: float,
        yaw: float,
        *,
        torso_moves: bool,
    ) -> np.ndarray:
        """One bounded step of the commanded arm joints towards a hand position, hand down."""
        sim, scratch, arm = self._sim, self._scratch, self._slices[f'{side}_arm']
        if torso_moves:
            return command[arm]
        address, dof = sim._arm_qpos[side], sim._arm_dof[side]
        scratch.qpos[:] = sim.data.qpos
        scratch.qpos[address] = command[arm]
        mujoco.mj_kinematics(sim.model, scratch)
        mujoco.mj_comPos(sim.model, scratch)
        site = scratch.site(f'{side}_tcp')
        error = aim - site.xpos
        distance = np.linalg.norm(error)
        velocity = error * min(HAND_GAIN, speed / max(distance, 1e-6))
        turn = np.eye(3)
        turn[:2, :2] = _yaw_matrix(yaw)
        rotation = turn @ HAND_DOWN @ site.xmat.reshape(3, 3).T
        spin = 0.5 * np.array(
            [
                rotation[2, 1] - rotation[1, 2],
                rotation[0, 2] - rotation[2, 0],
                rotation[1, 0] - rotation[0, 1],
            ]
        )
        jacobian = np.zeros((6, sim.model.nv))
        mujoco.mj_jacSite(sim.model, scratch, jacobian[:3], jacobian[3:], site.id)
        jacobian = jacobian[:, dof]
        twist = np.concatenate([velocity, HAND_GAIN * spin])
        rates = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(6), twist)
        rates *= min(1.0, JOINT_SPEED / max(np.abs(rates).max(), 1e-6))
        limits = sim.model.jnt_range[[sim.model.joint(f'{side}_joint{i}').id for i in range(1, 7)]]
        return np.clip(command[arm] + rates * self._dt, limits[:, 0], limits[:, 1])

    def _torso(self, height: float) -> np.ndarray:
        """Speed [4] that brings the upper body to `height` above its home, upright."""
        home = torso_pose(scene.TORSO_HOME) + np.array([0.0, height, 0.0])
        error = home - torso_pose(self._sim.feedback('torso')[0])
        error[np.abs(error) < 0.003] = 0.0
        twist = np.clip(2.0 * error, *_limits(TORSO_SPEED))
        return np.append(twist, 0.0)

    def _holds(self, side: str) -> bool:
        sim = self._sim
        geom = sim.model.geom(sim.task.target).id
        fingers = {sim.model.geom(f'{side}_finger{i}').id for i in (1, 2)}
        touching = {g for c in sim.data.contact if geom in c.geom for g in c.geom} & fingers
        return touching == fingers


def _limits(value: float) -> tuple[float, float]:
    return -value, value


def _yaw_matrix(yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s], [s, c]])
