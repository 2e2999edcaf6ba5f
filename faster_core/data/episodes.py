"""Demonstration episodes: one `.npz` file each, no pickle.

Row t of `action` is the set-point of time t + 1 (see docs/architecture.md, "Conventions"), so the
label of observation t is `action[t : t + H]` and its first row is due one step period later.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile

import numpy as np

from faster_core.embodiment import Embodiment
from faster_core.errors import FasterVlaError

# What reading a file that is no episode raises: EOFError when it is empty, TypeError (before
# Python 3.11 AttributeError) when it is one bare array.
_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


class EpisodeError(FasterVlaError, ValueError):
    """An episode file is missing, truncated or has inconsistent lengths."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episode:
    """One demonstration at the embodiment's action frequency.

    Attributes:
        images: camera -> RGB uint8 [T, size, size, 3].
        state: float32 [T, S] measured proprioception, SI units.
        action: float32 [T, D] expert set-points, row t is due one step after observation t.
        instruction: what was asked.
        task: key of the task in the simulator's registry.
        seed: scene seed.
        embodiment_checksum: sha256 of the embodiment file it was recorded with.
        target: which of `landmarks` the instruction is about; '' if unknown.
        landmarks: name -> float32 [T, 3], where objects and hands (`left_hand`, ...) are in the
            base frame, metres. Only a simulator knows them; they are targets of auxiliary losses,
            never inputs. Empty on real robots.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    action: np.ndarray
    instruction: str
    task: str
    seed: int
    embodiment_checksum: str
    target: str = ''
    landmarks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths (EpisodeError)."""
        lengths = {'state': len(self.state), 'action': len(self.action)}
        lengths |= {f'images[{k}]': len(v) for k, v in self.images.items()}
        lengths |= {f'landmarks[{k}]': len(v) for k, v in self.landmarks.items()}
        if len(set(lengths.values())) != 1 or not len(self.state):
            raise EpisodeError(f'lengths differ or are zero: {lengths}')

    @property
    def num_steps(self) -> int:
        """Number of observations T."""
        return len(self.state)


def save_episode(path: str | pathlib.Path, episode: Episode) -> None:
    """Write an episode; a half-written file never carries the final name."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {
        'instruction': episode.instruction,
        'task': episode.task,
        'seed': episode.seed,
        'embodiment_checksum': episode.embodiment_checksum,
        'target': episode.target,
    }
    arrays = {f'image.{name}': image for name, image in episode.images.items()}
    arrays |= {f'landmark.{name}': points for name, points in episode.landmarks.items()}
    arrays |= {'state': episode.state, 'action': episode.action}
    arrays['meta'] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    partial = path.with_suffix('.partial')
    with partial.open('wb') as f:
        np.savez(f, **arrays)
    partial.replace(path)


def load_episode(path: str | pathlib.Path) -> Episode:
    """Read one episode.

    Raises:
        EpisodeError: the file is missing, not an episode or truncated.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file['meta'].tobytes())
            return Episode(
                images=_group(file, 'image.'),
                landmarks=_group(file, 'landmark.'),
                state=file['state'],
                action=file['action'],
                **meta,
            )
    except _UNREADABLE as e:
        raise EpisodeError(f'episode {path}: {e}') from e


def _group(file: np.lib.npyio.NpzFile, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}


def load_episodes(folder: str | pathlib.Path, limit: int | None = None) -> list[Episode]:
    """Read all episodes of a folder, sorted by name.

    Raises:
        EpisodeError: the folder holds none, or they were recorded with different embodiments.
    """
    paths = sorted(pathlib.Path(folder).glob('*.npz'))[:limit]
    if not paths:
        raise EpisodeError(f'no episodes (*.npz) in {folder}')
    episodes = [load_episode(p) for p in paths]
    if len({e.embodiment_checksum for e in episodes}) != 1:
        raise EpisodeError(f'{folder}: episodes of different embodiments')
    return episodes


def load_motions(folder: str | pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read only state [T, S] and set-points [T, D] of all episodes of a folder, sorted by name.

    Raises:
        EpisodeError: the folder holds none, or one cannot be read.
    """
    paths = sorted(pathlib.Path(folder).glob('*.npz'))
    if not paths:
        raise EpisodeError(f'no episodes (*.npz) in {folder}')
    motions = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as file:
                motions.append((file['state'], file['action']))
        except _UNREADABLE as e:
            raise EpisodeError(f'episode {path}: {e}') from e
    return motions


def chunk_labels(action: np.ndarray, embodiment: Embodiment) -> np.ndarray:
    """Cut the chunk that starts at every step.

    Past the end of the episode the robot rests: positions repeat the last row and velocities are
    zero, which is what the expert commands once a task is done.

    Args:
        action: [T, D] set-points.
        embodiment: gives H and which columns are velocities.

    Returns:
        float32 [T, H, D].
    """
    horizon = embodiment.action_horizon
    rest = action[-1].astype(np.float32).copy()
    for c in embodiment.action:
        if not c.kind.is_position:
            rest[embodiment.action_slices[c.name]] = 0.0
    padded = np.concatenate([action.astype(np.float32), np.tile(rest, (horizon - 1, 1))])
    windows = np.lib.stride_tricks.sliding_window_view(padded, horizon, axis=0)
    return np.ascontiguousarray(windows.transpose(0, 2, 1))
