"""Policies that see nothing: what a success rate is worth is its distance to theirs."""

from __future__ import annotations

import pathlib

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.data.episodes import chunk_labels, EpisodeError, load_episode
from faster_core.embodiment import Embodiment
from faster_core.observation import Observation
from faster_core.paths import assets_dir


class ZeroActionPolicy:
    """Holds positions where they are measured and commands zero velocity."""

    def __init__(self, embodiment: Embodiment) -> None:
        """Take the layout of state and action."""
        self._embodiment = embodiment

    def reset(self, seed: int | None = None) -> None:
        """Nothing to forget."""

    def predict(self, observation: Observation) -> ActionChunk:
        """Return the measured positions, repeated."""
        e = self._embodiment
        row = np.zeros(e.action_dim, dtype=np.float32)
        for c in e.action:
            if c.kind.is_position:
                row[e.action_slices[c.name]] = observation.state[e.state_slices[c.name]]
        return _chunk(np.tile(row, (e.action_horizon, 1)), observation, e)


class MeanTrajectoryPolicy:
    """Replays the mean demonstration of the instruction, whatever is in the images."""

    def __init__(self, embodiment: Embodiment, means: dict[str, np.ndarray]) -> None:
        """Take the mean set-points [T, D] of every instruction (`mean_trajectories`)."""
        self._embodiment = embodiment
        self._chunks = {text: chunk_labels(m, embodiment) for text, m in means.items()}
        self._start: float | None = None

    def reset(self, seed: int | None = None) -> None:
        """Start from the first row again."""
        self._start = None

    def predict(self, observation: Observation) -> ActionChunk:
        """Return the rows that follow the time since the first observation."""
        e = self._embodiment
        if self._start is None:
            self._start = observation.stamp
        chunks = self._chunks[observation.instruction]
        step = round((observation.stamp - self._start) / e.step_period)
        return _chunk(chunks[min(step, len(chunks) - 1)], observation, e)


def mean_trajectories(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Return the mean set-points [T, D] per instruction over a folder of demonstrations.

    Shorter episodes rest at their last row until the longest one ends.

    Raises:
        EpisodeError: the folder holds no episodes, or one cannot be read.
    """
    actions: dict[str, list[np.ndarray]] = {}
    for path in sorted(pathlib.Path(folder).glob('*.npz')):
        episode = load_episode(path)  # one at a time: the images are large
        actions.setdefault(episode.instruction, []).append(episode.action)
    if not actions:
        raise EpisodeError(f'no episodes (*.npz) in {folder}')
    means = {}
    for text, runs in actions.items():
        length = max(map(len, runs))
        padded = [np.concatenate([a, np.tile(a[-1], (length - len(a), 1))]) for a in runs]
        means[text] = np.mean(padded, axis=0).astype(np.float32)
    return means


def save_means(means: dict[str, np.ndarray], path: str | pathlib.Path) -> None:
    """Write mean trajectories, float16 is ample for a baseline."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{text: m.astype(np.float16) for text, m in means.items()})


def load_means(embodiment: Embodiment) -> dict[str, np.ndarray]:
    """Read the mean trajectories that ship with the package.

    Raises:
        FileNotFoundError: there are none for this robot.
    """
    path = assets_dir() / 'baselines' / f'{embodiment.name}_means.npz'
    with np.load(path, allow_pickle=False) as file:
        return {text: file[text].astype(np.float32) for text in file.files}


def _chunk(values: np.ndarray, observation: Observation, e: Embodiment) -> ActionChunk:
    return ActionChunk(
        values=values,
        stamp=observation.stamp,
        first_step_offset=e.step_period,
        step_period=e.step_period,
        embodiment_checksum=e.checksum,
    )
