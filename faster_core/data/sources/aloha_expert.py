"""A scripted expert for gym-aloha's two tasks: Cartesian waypoints, inverse kinematics, 50 Hz.

The waypoints that were published with the environment fail on newer MuJoCo versions, so these are
our own. Everything follows from where the objects are at the start: the result is a trajectory of
set-points, executed open loop. Durations, heights and meeting points vary with the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

SIDES = ('left', 'right')
# Columns of a set-point [14].
JOINTS = {'left': slice(0, 6), 'right': slice(7, 13)}
FINGER = {'left': 6, 'right': 13}
# Distance of one finger from the middle, metres: the range of the actuators.
CLOSED, OPEN = 0.021, 0.057
# Between the finger tips, ahead of the gripper link.
TIP = np.array([0.135, 0.0, 0.0])
# The left arm looks along +x, the right one along -x; both tilt down to grasp from the table.
FACING = {'left': Rotation.identity(), 'right': Rotation.from_euler('z', 180, degrees=True)}
TILT = 60.0  # degrees
MAX_ITERATIONS = 60
DAMPING, ROTATION_WEIGHT, MAX_JOINT_STEP = 1e-4, 0.3, 0.15
TOLERANCE = 2e-3  # metres and radians, at every waypoint


class UnreachableError(ValueError):
    """A waypoint lies outside of what the arm reaches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the point between the finger tips shall be, world frame."""

    position: np.ndarray
    rotation: Rotation

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Pose:
        """Return the pose shifted along the axes of the world."""
        return dataclasses.replace(self, position=self.position + np.array([x, y, z]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waypoint:
    """What both arms have reached `seconds` after the waypoint before."""

    seconds: float
    poses: Mapping[str, Pose]
    fingers: Mapping[str, float]


class Kinematics:
    """Forward and inverse kinematics of both arms on a model of gym-aloha.

    Args:
        model: mujoco.MjModel; its first 16 positions are, per side, six joints and two fingers.
    """

    def __init__(self, model) -> None:
        import mujoco

        self._mujoco, self._model, self._data = mujoco, model, mujoco.MjData(model)
        self._body = {side: model.body(f'vx300s_{side}/gripper_link').id for side in SIDES}
        self._columns = {'left': slice(0, 6), 'right': slice(8, 14)}

    def pose(self, side: str, joints: np.ndarray) -> Pose:
        """Return the pose of the finger tips at six joint positions."""
        self._forward(side, joints)
        rotation = Rotation.from_matrix(self._data.xmat[self._body[side]].reshape(3, 3))
        position = self._data.xpos[self._body[side]] + rotation.apply(TIP)
        return Pose(position=position, rotation=rotation)

    def solve(self, side: str, joints: np.ndarray, target: Pose) -> tuple[np.ndarray, float]:
        """Damped least squares from `joints` on.

        Returns:
            Six joint positions inside their ranges, and the error left: the larger of metres and
            radians.
        """
        columns = self._columns[side]
        lower, upper = self._model.jnt_range[columns].T
        jacobian = np.zeros((2, 3, self._model.nv))
        weights = np.array([1.0, 1.0, 1.0] + [ROTATION_WEIGHT] * 3)
        joints = joints.copy()
        for iteration in range(MAX_ITERATIONS):
            found = self.pose(side, joints)
            turn = (target.rotation * found.rotation.inv()).as_rotvec()
            error = np.concatenate([target.position - found.position, turn])
            # At least one step: leaving small errors as they are would make stairs.
            if iteration and np.abs(error).max() < TOLERANCE / 20:
                break
            self._mujoco.mj_comPos(self._model, self._data)
            self._mujoco.mj_jac(
                self._model, self._data, *jacobian, found.position, self._body[side]
            )
            J = np.concatenate(jacobian)[:, columns] * weights[:, None]
            step = J.T @ np.linalg.solve(J @ J.T + DAMPING * np.eye(6), error * weights)
            joints += np.clip(step, -MAX_JOINT_STEP, MAX_JOINT_STEP)
            joints = np.clip(joints, lower, upper)
        return joints, float(np.abs(error).max())

    def _forward(self, side: str, joints: np.ndarray) -> None:
        self._data.qpos[self._columns[side]] = joints
        self._mujoco.mj_kinematics(self._model, self._data)


def set_points(
    kinematics: Kinematics, start: np.ndarray, waypoints: list[Waypoint], rate: float
) -> np.ndarray:
    """Return float [T, 14] (per side six joints, radians, and a finger, metres).

    Between two waypoints positions follow a straight line with a minimum-jerk profile and
    rotations the shortest arc; every waypoint ends at rest.

    Args:
        kinematics: of the robot.
        start: [14] set-point before the first row.
        waypoints: in order.
        rate: rows per second.

    Raises:
        UnreachableError: an arm cannot follow.
    """
    rows, row = [], np.array(start, dtype=float)
    here = {side: kinematics.pose(side, row[JOINTS[side]]) for side in SIDES}
    fingers = {side: row[FINGER[side]] for side in SIDES}
    for number, waypoint in enumerate(waypoints):
        count = max(1, round(waypoint.seconds * rate))
        for share in minimum_jerk(np.arange(1, count + 1) / count):
            row = row.copy()
            for side in SIDES:
                target = _between(here[side], waypoint.poses[side], share)
                row[JOINTS[side]], error = kinematics.solve(side, row[JOINTS[side]], target)
                if error > TOLERANCE:
                    raise UnreachableError(
                        f'waypoint {number}: the {side} arm stays {error:.4f} m or rad away'
                    )
                way = waypoint.fingers[side] - fingers[side]
                row[FINGER[side]] = fingers[side] + share * way
            rows.append(row)
        here, fingers = waypoint.poses, waypoint.fingers
    return np.array(rows)


def minimum_jerk(s: np.ndarray) -> np.ndarray:
    """Return the share of the way at the share `s` of the time."""
    return s**3 * (10 - 15 * s + 6 * s**2)


def _between(start: Pose, end: Pose, fraction: float) -> Pose:
    turn = (end.rotation * start.rotation.inv()).as_rotvec()
    return Pose(
        position=start.position + fraction * (end.position - start.position),
        rotation=Rotation.from_rotvec(fraction * turn) * start.rotation,
    )


class _Plan:
    """Collects waypoints; what a step does not name stays as it was."""

    def __init__(self, rng: np.random.Generator, poses: Mapping[str, Pose]) -> None:
        self.rng, self.waypoints = rng, []
        self._poses, self._fingers = dict(poses), dict.fromkeys(SIDES, CLOSED)

    def bow(self, *sides: str) -> None:
        """Tilt hands down where they are, in front of their base.

        On the way the wrist is straight and the axes of forearm and hand coincide. Anywhere else
        the arm would have to pass that with its forearm turning over.
        """
        self.go(1.3, **{s: _grasp(s, self._poses[s].position) for s in sides})

    def go(
        self, seconds: float, *, fingers: Mapping[str, float] | None = None, **poses: Pose
    ) -> None:
        self._poses |= poses
        self._fingers |= fingers or {}
        self.waypoints.append(
            Waypoint(
                # People are not metronomes.
                seconds=seconds * self.rng.uniform(0.85, 1.25),
                poses=dict(self._poses),
                fingers=dict(self._fingers),
            )
        )


def _grasp(side: str, position: np.ndarray) -> Pose:
    return Pose(
        position=np.asarray(position, dtype=float),
        rotation=FACING[side] * Rotation.from_euler('y', TILT, degrees=True),
    )


def _on_table(position: np.ndarray) -> np.ndarray:
    """Objects are dropped from a little above; they are gripped 0.02 m above the table."""
    return np.array([*position[:2], 0.02])


def transfer_cube(
    objects: np.ndarray, poses: Mapping[str, Pose], rng: np.random.Generator
) -> list[Waypoint]:
    """The right hand picks the cube up and hands it over to the left one.

    Args:
        objects: [7] pose of the cube.
        poses: where the hands are.
        rng: what varies.
    """
    cube = _on_table(objects[:3])
    meeting = np.array([0.0, 0.5, 0.25]) + rng.uniform(-0.02, 0.02, 3)
    # The left hand takes the cube on the faces that the right hand leaves free: above and below.
    taking = Pose(position=meeting, rotation=Rotation.from_euler('x', 90, degrees=True))
    waiting = taking.moved(x=-0.15)
    grasp = _grasp('right', cube)
    held = _grasp('right', meeting)
    plan = _Plan(rng, poses)
    plan.bow('right')
    above = grasp.moved(z=rng.uniform(0.07, 0.11))
    plan.go(1.3, right=above, left=waiting, fingers={'right': OPEN})
    plan.go(0.8, right=grasp)
    plan.go(0.5, fingers={'right': CLOSED})
    plan.go(0.8, right=grasp.moved(z=rng.uniform(0.1, 0.14)), fingers={'left': OPEN})
    plan.go(1.4, right=held)
    plan.go(1.2, left=taking.moved(x=-0.01))
    plan.go(0.6, fingers={'left': CLOSED})
    plan.go(0.5, fingers={'right': OPEN})
    plan.go(1.0, right=held.moved(x=0.12), left=waiting)
    plan.go(0.5)
    return plan.waypoints


def insertion(
    objects: np.ndarray, poses: Mapping[str, Pose], rng: np.random.Generator
) -> list[Waypoint]:
    """Each hand lifts one part, then the right one pushes its peg into the left one's socket.

    Args:
        objects: [14] poses of peg and socket.
        poses: where the hands are.
        rng: what varies.
    """
    grasps = {
        'right': _grasp('right', _on_table(objects[:3])),
        'left': _grasp('left', _on_table(objects[7:10])),
    }
    height = rng.uniform(0.07, 0.11)
    middle = np.array([0.0, 0.5, 0.2]) + rng.uniform(-0.02, 0.02, 3)
    # Gripped at the same height; on the table the peg's middle is 0.01 m below the socket's.
    together = {'left': _grasp('left', middle), 'right': _grasp('right', middle).moved(z=0.01)}
    plan = _Plan(rng, poses)
    plan.bow(*SIDES)
    both = dict.fromkeys(SIDES, OPEN)
    plan.go(1.4, fingers=both, **{s: grasps[s].moved(z=height) for s in SIDES})
    plan.go(0.8, **grasps)
    plan.go(0.5, fingers=dict.fromkeys(SIDES, CLOSED))
    # Both parts are 12 cm long and the pin ends 4 cm from the socket's middle: half-way 0.05 m the
    # peg touches it.
    for seconds, gap in ((1.2, 0.13), (0.4, 0.13), (1.4, 0.06), (0.8, 0.046), (0.5, 0.046)):
        apart = {'left': -gap, 'right': gap}
        plan.go(seconds, **{s: together[s].moved(x=apart[s]) for s in SIDES})
    return plan.waypoints


PLANS: Mapping[str, Callable[..., list[Waypoint]]] = {
    'transfer_cube': transfer_cube,
    'insertion': insertion,
}
