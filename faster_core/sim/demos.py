"""Collecting demonstrations: the expert drives, noise disturbs, the expert's answer is the label.

Recovery data (DART, Laskey et al. 2017): in a share of the episodes short bursts of noise are
added to what the robot executes; the recorded action is what the expert wants in the disturbed
state. In another share the robot first sets out on another task, so that a change of mind in
mid-motion is nothing new to a policy. And in another it first reaches beside the block and lifts
the empty hand: a policy that never saw a grasp fail takes every closed hand for a full one. Or it
first drives to the other post: a policy that never saw its base drive the wrong way believes what
its speed says and not what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import json
import multiprocessing
import pathlib

import cv2
import numpy as np

from faster_core.data.episodes import Episode, save_episode
from faster_core.errors import ConfigError
from faster_core.sim.expert import BASE_SPEED, Expert, TORSO_SPEED
from faster_core.sim.r1_lite import R1LiteSim
from faster_core.sim.tasks import TASKS

# Seeds below are free for training; 9000-9999 select checkpoints, 10000 and above only measure.
FIRST_RESERVED_SEED = 9000


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What to collect.

    Attributes:
        episodes: task -> number of episodes.
        first_seed: seed of the first episode; each episode takes the next one.
        noisy_share: share of episodes with noise bursts.
        bursts: most bursts in a noisy episode.
        burst_speed: joint speed (rad/s) of a burst, per joint uniform in ±.
        switched_share: share of episodes that begin, unrecorded, with another task.
        prelude_steps: fewest and most control steps of that other task.
        missed_share: share of the remaining episodes with a block to be picked that begin,
            unrecorded, with a grasp that misses.
        miss_offset: the largest error (m) of such a grasp, forward, sideways and upward; never
            downward, where the table is.
        miss_steps: the most control steps of it after the fingers begin to close.
        strayed_share: share of the remaining episodes to a post that begin, unrecorded, with
            driving to the other one, for up to the most `prelude_steps`.
        image_size: square render size, pixels.
        jpeg_quality: images pass through JPEG as they do on the wire.
        max_steps: give an episode up after so many control steps.
        settle_steps: steps recorded after success.
    """

    episodes: dict[str, int]
    first_seed: int = 0
    noisy_share: float = 0.6
    bursts: int = 2
    burst_speed: float = 0.5
    switched_share: float = 0.2
    prelude_steps: tuple[int, int] = (8, 30)
    missed_share: float = 0.0
    miss_offset: tuple[float, float, float] = (0.05, 0.05, 0.07)
    miss_steps: int = 30
    strayed_share: float = 0.0
    image_size: int = 96
    jpeg_quality: int = 90
    max_steps: int = 180
    settle_steps: int = 8

    def __post_init__(self) -> None:
        """Refuse wrong counts, unknown tasks and seeds reserved for selection and measuring.

        Raises:
            ConfigError: names the value and what was expected.
        """
        if not isinstance(self.episodes, Mapping):
            raise ConfigError(f'episodes: expected task: number, found {self.episodes!r}')
        if bad := {t: n for t, n in self.episodes.items() if type(n) is not int or n < 0}:
            raise ConfigError(f'episodes: expected whole numbers >= 0, found {bad}')
        if type(self.bursts) is not int or self.bursts < 1:
            raise ConfigError(f'bursts: expected a whole number >= 1, found {self.bursts!r}')
        if unknown := set(self.episodes) - set(TASKS):
            raise ConfigError(f'unknown tasks {sorted(unknown)}; known: {", ".join(TASKS)}')
        object.__setattr__(self, 'prelude_steps', tuple(self.prelude_steps))
        object.__setattr__(self, 'miss_offset', tuple(self.miss_offset))
        last = self.first_seed + sum(self.episodes.values())
        if self.first_seed < 0 or last > FIRST_RESERVED_SEED:
            raise ConfigError(
                f'seeds {self.first_seed}..{last - 1}: only 0..{FIRST_RESERVED_SEED - 1} may be '
                'used for demonstrations'
            )

    def jobs(self) -> list[tuple[int, str]]:
        """Return (seed, task) of every episode, tasks interleaved so that a prefix is balanced."""
        ranked = sorted(
            ((k + 0.5) / count, task)
            for task, count in self.episodes.items()
            for k in range(count)
        )
        return [(self.first_seed + i, task) for i, (_, task) in enumerate(ranked)]


def record_episode(sim: R1LiteSim, seed: int, task: str, config: DemoConfig) -> Episode | None:
    """Let the expert solve one task and record it; None if it failed."""
    rng = np.random.default_rng([seed, 1])
    sim.reset(seed, task)
    expert, embodiment = Expert(sim), sim.embodiment
    noise = _bursts(rng, config) if rng.random() < config.noisy_share else {}
    command = expert.initial_command()
    if rng.random() < config.switched_share:
        command = _set_out_on_another_task(sim, command, rng, config)
    else:
        # Draws of its own: without blunders every episode is what it was before there were any.
        blunders = np.random.default_rng([seed, 2])
        drives = sim.task.motion == 'drive'
        if blunders.random() < (config.strayed_share if drives else config.missed_share):
            blunder = _stray if drives else _miss
            command = blunder(sim, command, blunders, config)
    frames: dict[str, list[np.ndarray]] = {c: [] for c in embodiment.cameras}
    states, actions, places, after = [], [], [], 0
    for t in range(config.max_steps):
        for camera, images in frames.items():
            images.append(through_jpeg(sim.render(camera, config.image_size), config.jpeg_quality))
        states.append(sim.state())
        places.append(sim.landmarks())
        label = expert.next_command(command)
        actions.append(label)
        executed = label + noise[t](sim) if t in noise else label
        executed = _within_ranges(sim, executed)
        sim.glide(command, executed, embodiment.step_period)
        command = executed
        after += sim.succeeded()
        if after > config.settle_steps:
            return Episode(
                images={c: np.stack(images) for c, images in frames.items()},
                state=np.array(states, dtype=np.float32),
                action=np.array(actions, dtype=np.float32),
                instruction=sim.instruction,
                task=task,
                seed=seed,
                embodiment_checksum=embodiment.checksum,
                target=sim.task.target,
                landmarks={
                    n: np.array([p[n] for p in places], dtype=np.float32) for n in places[0]
                },
            )
    return None


def _set_out_on_another_task(
    sim: R1LiteSim, command: np.ndarray, rng: np.random.Generator, config: DemoConfig
) -> np.ndarray:
    """Follow any other task for a while; returns the set-point [D] it ends with."""
    other = str(rng.choice([name for name in TASKS if name != sim.task.name]))
    least, most = config.prelude_steps
    return _follow(sim, other, int(rng.integers(least, most + 1)), command)


def _follow(sim: R1LiteSim, other: str, steps: int, command: np.ndarray) -> np.ndarray:
    task, expert = sim.task.name, Expert(sim)
    sim.ask(other)
    for _ in range(steps):
        following = expert.next_command(command)
        sim.glide(command, following, sim.embodiment.step_period)
        command = following
    sim.ask(task)
    return command


def _miss(
    sim: R1LiteSim, command: np.ndarray, rng: np.random.Generator, config: DemoConfig
) -> np.ndarray:
    """Reach for where the block is not, close, lift; stop somewhere on the way.

    Returns the set-point [D] it ends with. The block may have been pushed, or held after all.
    """
    deluded = Expert(sim, rng.uniform([-1, -1, 0], 1) * config.miss_offset)
    grippers = np.r_[
        sim.embodiment.action_slices['left_gripper'], sim.embodiment.action_slices['right_gripper']
    ]
    after = int(rng.integers(config.miss_steps + 1))
    closing = False
    for _ in range(config.max_steps):
        following = deluded.next_command(command)
        closing |= bool((following[grippers] < command[grippers]).any())
        if closing and after == 0:
            break
        after -= closing
        sim.glide(command, following, sim.embodiment.step_period)
        command = following
    return command


def _stray(
    sim: R1LiteSim, command: np.ndarray, rng: np.random.Generator, config: DemoConfig
) -> np.ndarray:
    """Drive to the other post for a while; returns the set-point [D] it ends with."""
    other = next(t.name for t in TASKS.values() if t.motion == 'drive' and t != sim.task)
    return _follow(sim, other, int(rng.integers(1, config.prelude_steps[1] + 1)), command)


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode and decode an RGB image [h, w, 3] as a camera driver and the policy node do."""
    ok, data = cv2.imencode('.jpg', image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f'could not encode an image of shape {image.shape}')
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


def collect(config: DemoConfig, folder: str | pathlib.Path, workers: int = 2) -> Iterator[dict]:
    """Collect all episodes that are not in the folder yet.

    Yields:
        One mapping per finished job: seed, task, steps (0 if the expert failed; nothing is
        written then).
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _same_config(config, folder)
    jobs = [
        (seed, task, config, folder)
        for seed, task in config.jobs()
        if not _episode_path(folder, seed, task).exists()
    ]
    with multiprocessing.get_context('spawn').Pool(workers) as pool:
        yield from pool.imap_unordered(_run_job, jobs)


def _same_config(config: DemoConfig, folder: pathlib.Path) -> None:
    path, text = folder / 'config.json', json.dumps(dataclasses.asdict(config), indent=2)
    if path.exists() and path.read_text() != text:
        raise ConfigError(f'{path} holds another configuration: choose an empty folder')
    path.write_text(text)


def _episode_path(folder: pathlib.Path, seed: int, task: str) -> pathlib.Path:
    return folder / f'{seed:06d}-{task}.npz'


_SIM: R1LiteSim | None = None


def _run_job(job: tuple[int, str, DemoConfig, pathlib.Path]) -> dict:
    global _SIM
    seed, task, config, folder = job
    _SIM = _SIM or R1LiteSim(image_size=config.image_size)
    episode = record_episode(_SIM, seed, task, config)
    if episode is not None:
        save_episode(_episode_path(folder, seed, task), episode)
    return {'seed': seed, 'task': task, 'steps': episode.num_steps if episode else 0}


def _bursts(rng: np.random.Generator, config: DemoConfig) -> dict:
    noise = {}
    for _ in range(rng.integers(1, config.bursts + 1)):
        start, length = int(rng.integers(2, 70)), int(rng.integers(3, 8))
        arms = {s: rng.uniform(-1, 1, 6) * config.burst_speed for s in ('left', 'right')}
        base = rng.uniform(-1, 1, 3) * [0.03, 0.12, 0.08]
        torso = rng.uniform(-1, 1, 4) * [0.02, 0.04, 0.05, 0.0]

        def burst(sim: R1LiteSim, arms=arms, base=base, torso=torso) -> np.ndarray:
            delta = np.zeros(sim.embodiment.action_dim)
            slices = sim.embodiment.action_slices
            for side, speed in arms.items():
                delta[slices[f'{side}_arm']] = speed * sim.embodiment.step_period
            delta[slices['base']] = base
            delta[slices['torso']] = torso
            return delta

        noise |= dict.fromkeys(range(start, start + length), burst)
    return noise


def _within_ranges(sim: R1LiteSim, command: np.ndarray) -> np.ndarray:
    """Keep a disturbed set-point inside joint ranges and the speeds of base and torso."""
    command = command.copy()
    for side in ('left', 'right'):
        columns = sim.embodiment.action_slices[f'{side}_arm']
        ranges = np.array([sim.model.joint(f'{side}_joint{i}').range for i in range(1, 7)])
        command[columns] = np.clip(command[columns], ranges[:, 0], ranges[:, 1])
    base = sim.embodiment.action_slices['base']
    command[base] = np.clip(command[base], -BASE_SPEED, BASE_SPEED)
    torso = sim.embodiment.action_slices['torso']
    command[torso] = np.clip(command[torso], -TORSO_SPEED, TORSO_SPEED)
    return command
