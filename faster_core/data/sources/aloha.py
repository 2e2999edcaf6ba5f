"""gym-aloha: two ViperX arms hand a cube over or insert a peg, solved by our scripted expert.

The scene, the placement of objects and the reward that judges success are the environment's; only
its step is bypassed, because that renders three images every time. State: measured positions.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import warnings

import numpy as np

from faster_core.data.motions import HELD_OUT, Motion, MotionSet, TRAIN
from faster_core.data.sources import aloha_expert as expert
from faster_core.data.sources.source import check_whole, shipped, Source, Track
from faster_core.errors import ConfigError

SUCCESS = 4  # of the environment's rewards
# The reward looks at contacts, which flicker; what was once reached and lost is no success.
END_STEPS = 25
# Columns of the environment's 16 positions that we keep: its two fingers mirror each other.
COLUMNS = np.r_[0:7, 8:15]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlohaConfig:
    """How many episodes of which tasks.

    Attributes:
        tasks: of the environment.
        episodes: attempts per task, one per seed from `first_seed` on; failures are dropped.
        held_out_episodes: the last so many seeds of a task are held out.
    """

    tasks: tuple[str, ...] = ('transfer_cube', 'insertion')
    episodes: int = 100
    held_out_episodes: int = 10
    first_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError)."""
        check_whole(self.episodes, 'episodes', 1)
        check_whole(self.held_out_episodes, 'held_out_episodes', 0)
        check_whole(self.first_seed, 'first_seed', 0)
        if self.held_out_episodes >= self.episodes:
            raise ConfigError(
                f'held_out_episodes: {self.held_out_episodes} of {self.episodes} leaves none'
            )
        if isinstance(self.tasks, str) or not isinstance(self.tasks, Sequence) or not self.tasks:
            raise ConfigError(f'tasks: expected a list of tasks, found {self.tasks!r}')
        if unknown := [task for task in self.tasks if task not in expert.PLANS]:
            raise ConfigError(f'tasks: unknown {unknown[0]!r}; known: {", ".join(expert.PLANS)}')
        object.__setattr__(self, 'tasks', tuple(self.tasks))


def build(config: AlohaConfig, track: Track) -> MotionSet:
    """Let the expert attempt every seed and keep what the environment calls a success."""
    embodiment = shipped('aloha')
    seeds = range(config.first_seed, config.first_seed + config.episodes)
    jobs = [(task, seed) for task in config.tasks for seed in seeds]
    motions, splits, failed, scene = [], [], [], None
    for task, seed in track(jobs):
        if scene is None or scene.task != task:
            scene = Scene(task)
        motion = scene.record(seed)
        if motion is None:
            failed.append(f'{task}/{seed}')
        else:
            motions.append(motion)
            known = config.first_seed + config.episodes - config.held_out_episodes
            splits.append(TRAIN if seed < known else HELD_OUT)
    return MotionSet(
        name='aloha',
        embodiment=embodiment,
        rate=scene.rate,
        source='gym-aloha 0.1.5 (Hugging Face), its scene and its judgement of success; '
        'scripted expert of this project',
        licence='Apache-2.0',
        rests=True,  # every plan ends with a standstill
        motions=tuple(motions),
        splits=tuple(splits),
        provenance={'attempts': len(jobs), 'failed': failed},
    )


class Scene:
    """One task of gym-aloha without its cameras."""

    def __init__(self, task: str) -> None:
        with warnings.catch_warnings():
            # On import it looks for a screen and complains that there is none; none is needed.
            warnings.simplefilter('ignore')
            from dm_control import mujoco
            from dm_control.rl import control
            from gym_aloha import constants
            from gym_aloha.tasks import sim

        base = {'transfer_cube': sim.TransferCubeTask, 'insertion': sim.InsertionTask}[task]
        # The environment's own observation is what renders.
        blind = type(f'Blind{base.__name__}', (base,), {'get_observation': lambda self, p: {}})
        model = constants.ASSETS_DIR / f'bimanual_viperx_{task}.xml'
        self.task = task
        self.rate = 1.0 / constants.DT
        self._sim, self._normalize = sim, constants.normalize_puppet_gripper_position
        self._environment = control.Environment(
            mujoco.Physics.from_xml_path(str(model)),
            blind(random=0),
            control_timestep=constants.DT,
        )
        self._kinematics = expert.Kinematics(self._environment.physics.model.ptr)

    def reset(self, seed: int) -> np.ndarray:
        """Place the objects as the environment would; returns their poses [7] or [14]."""
        from gym_aloha import utils

        if self.task == 'transfer_cube':
            objects = utils.sample_box_pose(seed)
        else:
            objects = np.concatenate(utils.sample_insertion_pose(seed))
        self._sim.BOX_POSE[0] = objects  # the environment's own way of saying it
        self._environment.reset()
        return objects

    def state(self) -> np.ndarray:
        """Return [14] measured positions, radians and metres."""
        return self._environment.physics.data.qpos[COLUMNS].copy()

    def step(self, set_point: np.ndarray) -> int:
        """Execute one row [14]; returns the reward."""
        action = set_point.copy()
        for column in expert.FINGER.values():
            action[column] = self._normalize(action[column])
        return int(self._environment.step(action).reward)

    def record(self, seed: int) -> Motion | None:
        """Run the expert once; None if it does not end in success."""
        objects = self.reset(seed)
        start = self.state()
        poses = {
            side: self._kinematics.pose(side, start[expert.JOINTS[side]]) for side in expert.SIDES
        }
        waypoints = expert.PLANS[self.task](objects, poses, np.random.default_rng(seed))
        try:
            actions = expert.set_points(self._kinematics, start, waypoints, self.rate)
        except expert.UnreachableError:
            return None
        states, rewards = [], []
        for action in actions:
            states.append(self.state())
            rewards.append(self.step(action))
        if SUCCESS not in rewards[-END_STEPS:]:
            return None
        return Motion(
            episode=f'{self.task}-{seed:06d}',
            task=self.task,
            action=actions,
            state=np.array(states),
        )


SOURCE = Source(
    about='ALOHA, two arms, gym-aloha with our scripted expert (14 dimensions, 50 Hz); simulated',
    version=1,
    config=AlohaConfig,
    build=build,
    embodiment='aloha',
    packages=('gym-aloha', 'dm-control', 'mujoco', 'numpy', 'scipy'),
)
