"""Meta-World: 50 manipulation tasks of a Sawyer arm, solved by the policies the package ships.

An action of the environment is [-1, 1] per axis, times `action_scale` the displacement of the
hand's target, and the effort of the gripper. The policies ask for more than 1; what is recorded is
what the environment makes of it, in metres. State: measured pose of the hand, opening of the
gripper.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any
import warnings

import numpy as np

from faster_core.data.motions import HELD_OUT, HELD_OUT_TASK, Motion, MotionSet, TRAIN
from faster_core.data.sources.source import check_whole, shipped, Source, Track
from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaWorldConfig:
    """How many episodes of which tasks.

    Attributes:
        tasks: of the package; empty: all 50.
        held_out_tasks: nothing of these is trained on; by default the test tasks of ML45.
        episodes: attempts per task, one per seed from `first_seed` on; failures are dropped.
        held_out_episodes: the last so many seeds of a known task are held out.
        settle_steps: how long an episode goes on after success.
    """

    tasks: tuple[str, ...] = ()
    held_out_tasks: tuple[str, ...] = (
        'bin-picking-v3',
        'box-close-v3',
        'hand-insert-v3',
        'door-lock-v3',
        'door-unlock-v3',
    )
    episodes: int = 20
    held_out_episodes: int = 3
    first_seed: int = 0
    settle_steps: int = 20

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError)."""
        check_whole(self.episodes, 'episodes', 1)
        check_whole(self.held_out_episodes, 'held_out_episodes', 0)
        check_whole(self.first_seed, 'first_seed', 0)
        check_whole(self.settle_steps, 'settle_steps', 0)
        if self.held_out_episodes >= self.episodes:
            raise ConfigError(
                f'held_out_episodes: {self.held_out_episodes} of {self.episodes} leaves none'
            )
        for field in ('tasks', 'held_out_tasks'):
            value = getattr(self, field)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f'{field}: expected a list of tasks, found {value!r}')
            object.__setattr__(self, field, tuple(value))

    def split(self, task: str, seed: int) -> str:
        """Return the split of an episode: a matter of task and seed, not of what succeeded."""
        if task in self.held_out_tasks:
            return HELD_OUT_TASK
        known = self.first_seed + self.episodes - self.held_out_episodes
        return TRAIN if seed < known else HELD_OUT


def build(config: MetaWorldConfig, track: Track) -> MotionSet:
    """Let every policy attempt every seed and keep what succeeded.

    Some tasks (plate-slide) differ between seeds in ways their policy does not react to: a
    trajectory that is there already is left out, or held-out episodes would have been trained on.
    """
    embodiment = shipped('metaworld')
    jobs = [
        (task, seed)
        for task in _tasks(config)
        for seed in range(config.first_seed, config.first_seed + config.episodes)
    ]
    motions, splits, failed, repeated, seen = [], [], [], [], set()
    env, of_task = None, None
    for task, seed in track(jobs):
        if task != of_task:
            env, of_task = make_env(task), task
        motion = record(env, task, seed, config.settle_steps)
        if motion is None:
            failed.append(f'{task}/{seed}')
        elif (key := motion.action.tobytes()) in seen:
            repeated.append(f'{task}/{seed}')
        else:
            seen.add(key)
            motions.append(motion)
            splits.append(config.split(task, seed))
    return MotionSet(
        name='metaworld',
        embodiment=embodiment,
        rate=1.0 / env.dt,
        source='Meta-World (Farama Foundation), its simulation and its scripted policies',
        licence='MIT (the package that generates them)',
        rests=False,  # an episode is cut off while the policy still acts
        motions=tuple(motions),
        splits=tuple(splits),
        provenance={'attempts': len(jobs), 'failed': failed, 'repeated': repeated},
    )


def _tasks(config: MetaWorldConfig) -> list[str]:
    from metaworld.policies import ENV_POLICY_MAP

    known = sorted(ENV_POLICY_MAP)
    for field in ('tasks', 'held_out_tasks'):
        if unknown := sorted(set(getattr(config, field)) - set(known)):
            raise ConfigError(f'{field}: unknown task {unknown[0]!r}; known: {", ".join(known)}')
    return list(config.tasks) or known


def make_env(task: str) -> Any:
    """Return an environment whose every `seed` and `reset` place objects and goal anew."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

    env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f'{task}-goal-observable'](seed=0)
    # As made, the environment keeps the placement of its first reset for good, whatever the seed.
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    return env


def record(env: Any, task: str, seed: int, settle_steps: int) -> Motion | None:
    """Run the policy once; None if it fails within the environment's time."""
    from metaworld.policies import ENV_POLICY_MAP

    policy = ENV_POLICY_MAP[task]()
    env.seed(seed)
    observation, _ = env.reset()
    actions, states, remaining = [], [], None
    for _ in range(env.max_path_length):
        with warnings.catch_warnings():
            # "Constant(s) may be too high": the environment clips, and so do we.
            warnings.simplefilter('ignore', UserWarning)
            wanted = policy.get_action(observation)
        states.append(_state(env, states[-1] if states else None))
        actions.append(executed(wanted, env.action_scale))
        observation, _, _, _, info = env.step(wanted)
        if remaining is None and info['success'] > 0:
            remaining = settle_steps
        elif remaining is not None:
            remaining -= 1
        if remaining is not None and remaining <= 0:
            break
    if remaining is None:
        return None
    return Motion(
        episode=f'{task}-{seed:06d}', task=task, action=np.array(actions), state=np.array(states)
    )


def executed(wanted: np.ndarray, action_scale: float) -> np.ndarray:
    """Return displacement in metres and effort in [-1, 1] of what a policy asks for."""
    clipped = np.clip(np.asarray(wanted, dtype=np.float64), -1.0, 1.0)
    return np.append(clipped[:3] * action_scale, clipped[3])


def _state(env: Any, previous: np.ndarray | None) -> np.ndarray:
    hand = env.data.body('hand')
    w, x, y, z = hand.xquat
    quaternion = np.array([x, y, z, w])
    # Both signs are the same rotation: begin with w >= 0 and stay on that side.
    reference = w if previous is None else quaternion @ previous[3:7]
    quaternion = -quaternion if reference < 0 else quaternion
    fingers = (env.data.body(f'{side}claw').xpos for side in ('right', 'left'))
    opening = np.linalg.norm(np.subtract(*fingers))
    return np.concatenate([hand.xpos, quaternion, [opening]])


SOURCE = Source(
    about='Meta-World, 50 tasks, its own policies (4 dimensions, 80 Hz); simulated',
    version=1,
    config=MetaWorldConfig,
    build=build,
    embodiment='metaworld',
    packages=('metaworld', 'mujoco', 'gymnasium', 'numpy'),
)
