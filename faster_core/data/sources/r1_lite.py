"""Demonstrations of the R1 Lite in our own simulator: a folder of episodes, images left unread."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np

from faster_core.data.episodes import EpisodeError, load_motions
from faster_core.data.motions import HELD_OUT, HELD_OUT_TASK, Motion, MotionError, MotionSet, TRAIN
from faster_core.data.sources.source import check_input, check_whole, shipped, Source, Track
from faster_core.errors import ConfigError

WHAT = 'a folder of `faster-vla demos collect`'


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1LiteConfig:
    """Which demonstrations, and which of them are held out.

    Attributes:
        input: the folder.
        held_out_every: every n-th episode of the known tasks is held out (as `tokenizer eval`).
        held_out_tasks: tasks of which nothing is trained on; none by default, because the shipped
            policy needs them all.
    """

    input: str = ''
    held_out_every: int = 20
    held_out_tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError)."""
        check_whole(self.held_out_every, 'held_out_every', 2)
        tasks = self.held_out_tasks
        if isinstance(tasks, str) or not all(isinstance(task, str) for task in tasks):
            raise ConfigError(f'held_out_tasks: expected a list of tasks, found {tasks!r}')
        object.__setattr__(self, 'held_out_tasks', tuple(tasks))


def files(config: R1LiteConfig) -> list[pathlib.Path]:
    """Return the episodes, sorted by name, as `load_motions` reads them."""
    folder = check_input(config.input, WHAT)
    found = sorted(folder.glob('*.npz'))
    if not found:
        raise MotionError(f'{folder}: no episodes (*.npz); expected {WHAT}')
    return found


def build(config: R1LiteConfig, track: Track) -> MotionSet:
    """Read state, set-points and task of every episode."""
    embodiment = shipped('r1_lite')
    paths = files(config)
    described = [_meta(path, embodiment.checksum) for path in track(paths)]
    unknown = set(config.held_out_tasks) - {meta['task'] for meta in described}
    if unknown:
        raise ConfigError(f'held_out_tasks: {sorted(unknown)[0]!r} is in none of the episodes')
    try:
        arrays = load_motions(config.input)
    except EpisodeError as e:
        raise MotionError(str(e)) from e
    motions = tuple(
        Motion(episode=path.stem, task=meta['task'], action=action, state=state)
        for path, meta, (state, action) in zip(paths, described, arrays, strict=True)
    )
    return MotionSet(
        name='r1_lite',
        embodiment=embodiment,
        rate=embodiment.action_frequency,
        source='scripted expert of this project in its own simulation',
        licence='Apache-2.0',
        rests=True,
        motions=motions,
        splits=_splits(motions, config),
    )


def _splits(motions: tuple[Motion, ...], config: R1LiteConfig) -> tuple[str, ...]:
    splits, seen = [], 0
    for motion in motions:
        if motion.task in config.held_out_tasks:
            splits.append(HELD_OUT_TASK)
            continue
        splits.append(TRAIN if seen % config.held_out_every else HELD_OUT)
        seen += 1
    return tuple(splits)


def _meta(path: pathlib.Path, checksum: str) -> dict[str, str]:
    """Return what an episode says about itself; MotionError if it is of another robot."""
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file['meta'].tobytes())
            task, found = meta['task'], meta['embodiment_checksum']
    except (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError) as e:
        raise MotionError(f'episode {path}: {type(e).__name__}: {e}') from e
    if found != checksum:
        raise MotionError(
            f'episode {path}: recorded with embodiment {found}, r1_lite has {checksum}'
        )
    return {'task': task}


SOURCE = Source(
    about='R1 Lite, whole body, our scripted expert in simulation (21 dimensions, 15 Hz)',
    version=1,
    config=R1LiteConfig,
    build=build,
    embodiment='r1_lite',
    files=files,
)
