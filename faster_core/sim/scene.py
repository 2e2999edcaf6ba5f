"""The table scene: what stands where, drawn by seed.

Every scene holds the same things whatever the task: a red and a blue block on opposite sides, a
green block on either side, and a yellow and a purple post behind the table on opposite sides. So
an image says where things are and only the instruction says what to do.
"""

from __future__ import annotations

import dataclasses
import pathlib

import mujoco
import numpy as np

MODELS = pathlib.Path(__file__).resolve().parent / 'models'
TABLE_TOP = 0.64
BLOCK_HALF = np.array([0.022, 0.022, 0.035])
BLOCKS = {
    'red_block': (0.85, 0.10, 0.08, 1.0),
    'blue_block': (0.10, 0.20, 0.90, 1.0),
    'left_green_block': (0.10, 0.65, 0.15, 1.0),
    'right_green_block': (0.10, 0.65, 0.15, 1.0),
}
POSTS = {'yellow_post': (0.95, 0.85, 0.05, 1.0), 'purple_post': (0.55, 0.10, 0.65, 1.0)}
POST_X = 0.95
TORSO_HOME = np.array([-0.51, 1.49, 0.98])
ARM_HOME = {
    'left': np.array([0.285, 1.717, -0.675, 0.529, 0.0, 0.285]),
    'right': np.array([-0.285, 1.717, -0.675, 0.529, 0.0, -0.285]),
}
GRIPPER_OPEN = 0.1
# Where blocks may stand: x range, |y| range (m, base frame at home) and least distance.
BLOCK_X = (0.43, 0.56)
BLOCK_Y = (0.13, 0.38)
BLOCK_DISTANCE = 0.13
POST_Y = (0.20, 0.42)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """One drawn scene.

    Attributes:
        blocks: name -> (x, y, yaw).
        posts: name -> y.
        base: (x, y, yaw) of the robot at the start.
        arm_noise: side -> [6] rad added to the home posture.
    """

    blocks: dict[str, tuple[float, float, float]]
    posts: dict[str, float]
    base: np.ndarray
    arm_noise: dict[str, np.ndarray]


def draw_layout(seed: int) -> Layout:
    """Draw a scene; the same seed gives the same scene for every task."""
    rng = np.random.default_rng(seed)
    red_side = 1 if rng.random() < 0.5 else -1
    yellow_side = 1 if rng.random() < 0.5 else -1
    blocks = {}
    for side, green in ((1, 'left_green_block'), (-1, 'right_green_block')):
        other = 'red_block' if side == red_side else 'blue_block'
        while True:
            xy = rng.uniform([BLOCK_X[0], BLOCK_Y[0]], [BLOCK_X[1], BLOCK_Y[1]], (2, 2))
            if np.linalg.norm(xy[0] - xy[1]) >= BLOCK_DISTANCE:
                break
        for name, (x, y) in zip((other, green), xy, strict=True):
            blocks[name] = (float(x), float(side * y), float(rng.uniform(-0.1, 0.1)))
    posts = {
        name: float(sign * yellow_side * rng.uniform(*POST_Y))
        for name, sign in (('yellow_post', 1), ('purple_post', -1))
    }
    return Layout(
        blocks=blocks,
        posts=posts,
        base=rng.uniform([-0.02, -0.03, -0.03], [0.02, 0.03, 0.03]),
        arm_noise={side: rng.uniform(-0.04, 0.04, 6) for side in ('left', 'right')},
    )


def build_model() -> mujoco.MjModel:
    """Compile robot, arms, table, blocks and posts into one model."""
    spec = mujoco.MjSpec.from_file(str(MODELS / 'r1_lite.xml'))
    for side in ('left', 'right'):
        arm = mujoco.MjSpec.from_file(str(MODELS / 'r1_lite_arm.xml'))
        spec.attach(arm, prefix=f'{side}_', frame=spec.frame(f'{side}_mount'))
    world = spec.worldbody
    world.add_light(pos=[0, 0, 3], dir=[0, 0, -1], castshadow=False, specular=[0, 0, 0])
    box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
    world.add_geom(
        name='floor',
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[5, 5, 0.1],
        rgba=[0.55, 0.55, 0.52, 1],
    )
    world.add_geom(
        name='table',
        type=box,
        size=[0.33, 0.75, 0.02],
        pos=[0.69, 0, TABLE_TOP - 0.02],
        rgba=[0.72, 0.60, 0.45, 1],
    )
    for x in (0.42, 0.96):
        for y in (-0.7, 0.7):
            world.add_geom(
                type=box,
                size=[0.025, 0.025, (TABLE_TOP - 0.04) / 2],
                pos=[x, y, (TABLE_TOP - 0.04) / 2],
                rgba=[0.5, 0.4, 0.3, 1],
            )
    world.add_camera(
        name='observer', pos=[-0.7, -1.5, 1.75], fovy=55, xyaxes=[0.83, -0.56, 0, 0.27, 0.40, 0.87]
    )
    for name, rgba in BLOCKS.items():
        body = world.add_body(name=name, pos=[0.5, 0, TABLE_TOP + BLOCK_HALF[2]])
        body.add_freejoint(name=name)
        body.add_geom(
            name=name,
            type=box,
            size=BLOCK_HALF,
            mass=0.08,
            rgba=rgba,
            condim=4,
            friction=[1.2, 0.05, 0.001],
        )
    for name, rgba in POSTS.items():
        body = world.add_body(name=name, pos=[POST_X, 0, TABLE_TOP + 0.12], mocap=True)
        body.add_geom(
            name=name, type=cylinder, size=[0.035, 0.12, 0], rgba=rgba, contype=0, conaffinity=0
        )
    return spec.compile()
