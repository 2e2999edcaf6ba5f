"""Training samples: demonstrations cut into observations and action tokens, on disk once.

Images of all episodes go into one memory-mapped array, so that every training process shares the
same pages; the rest is small.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any
import zipfile

import numpy as np

from faster_core.data.episodes import chunk_labels, Episode, EpisodeError, load_episode
from faster_core.data.reference import ABSOLUTE, reference_of
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.policy.images import to_square
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.rvq import RvqTokenizer

_BATCH = 256
# What a cache was made from; caches older than this file have none.
MADE_FROM = 'made_from.json'
# Episodes that are opened for the checksum: thousands on a slow disk would take seconds.
_OPENED = 16
# After the end of a chunk of variable length; `model.IGNORED`.
NO_TOKEN = -100
# Landmarks: metres per unit, and how far from a hand they are told apart (m).
_UNIT = np.float32(0.1)
_NEAR = 0.3


@dataclasses.dataclass(kw_only=True)
class Samples:
    """M observations with their labels.

    Attributes:
        images: uint8 [M, cameras, size, size, 3].
        state: float32 [M, S], SI units.
        tokens: int64 [M, N], action token ids, level by level; of a tokenizer of variable length
            an end code follows, then `NO_TOKEN`.
        chunk: float32 [M, H, D], relative to the tokenizer's reference, normalised.
        goal: float32 [M, D], where the episode ends (`episode_goals`), normalised.
        target: float32 [M, 9], where the instruction's target is, seen from base and hands, unit
            10 cm; [M, 0] unless all episodes have landmarks.
        places: float32 [M, 3 * objects], where every object is in the base frame, unit 10 cm.
        text: int64 [M], index into `texts`.
        texts: instructions.
        episode: int64 [M].
    """

    images: np.ndarray
    state: np.ndarray
    tokens: np.ndarray
    chunk: np.ndarray
    goal: np.ndarray
    target: np.ndarray
    places: np.ndarray
    text: np.ndarray
    texts: list[str]
    episode: np.ndarray

    def __len__(self) -> int:
        """M."""
        return len(self.state)

    def row_in_episode(self) -> np.ndarray:
        """Return int64 [M], how many rows of the same episode come before."""
        rows = np.arange(len(self))
        begins = np.append(True, np.diff(self.episode) != 0)
        return rows - np.maximum.accumulate(np.where(begins, rows, 0))

    def held_out(self, every: int) -> np.ndarray:
        """Return bool [M]: whether a row is of every n-th episode, instruction by instruction.

        Counted as they were recorded, where instructions take turns, it could always be the same
        one's.
        """
        first = np.flatnonzero(self.row_in_episode() == 0)
        order = first[np.argsort(self.text[first], kind='stable')]
        return np.isin(self.episode, self.episode[order[::every]])


Folders = str | pathlib.Path | Sequence[str | pathlib.Path]


def folders_of(demos: Folders) -> tuple[str, ...]:
    """Return the folders of one or several."""
    several = [demos] if isinstance(demos, str | pathlib.Path) else demos
    return tuple(str(folder) for folder in several)


def build_cache(
    demos: Folders,
    folder: str | pathlib.Path,
    embodiment: Embodiment,
    tokenizer: ActionTokenizer,
    image_size: int,
    tokenizer_checksum: str = '',
) -> None:
    """Write the arrays of `Samples` below `folder`, unless a complete cache is there.

    Args:
        demos: folder of episodes, or several.
        folder: of the cache.
        embodiment: of the episodes.
        tokenizer: gives action tokens, reference and statistics.
        image_size: of the samples, pixels.
        tokenizer_checksum: of the tokenizer's files; a complete cache must have the same one.

    Raises:
        EpisodeError: an episode cannot be read.
        ConfigError: the episodes are of another embodiment or there are none, or the complete
            cache was made from something else.
    """
    folder = pathlib.Path(folder)
    files = {f: sorted(pathlib.Path(f).glob('*.npz')) for f in folders_of(demos)}
    paths = [path for found in files.values() for path in found]
    complete = (folder / 'texts.json').exists()
    if complete and not (folder / MADE_FROM).exists():
        return
    made_from = {
        'demonstrations': f'{len(paths)} episodes, checksum {_checksum(paths)}',
        'tokenizer': f'checksum {tokenizer_checksum}',
        'embodiment': f'checksum {embodiment.checksum[:16]}',
        'image_size': image_size,
    }
    if complete:
        _check_made_from(folder, made_from)
        return
    if empty := [f for f, found in files.items() if not found]:
        raise ConfigError(f'no episodes (*.npz) in {", ".join(empty)}')
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [_length(p) for p in paths]
    shape = (sum(lengths), len(embodiment.cameras), image_size, image_size, 3)
    images = np.lib.format.open_memmap(folder / 'images.npy', 'w+', np.uint8, shape)
    states, chunks, goals, text, texts, row = [], [], [], [], [], 0
    targets, places = [], []
    kind = getattr(tokenizer.config, 'reference', ABSOLUTE)
    for path, length in zip(paths, lengths, strict=True):
        episode = load_episode(path)
        if episode.embodiment_checksum != embodiment.checksum:
            raise ConfigError(
                f'{path}: recorded with another version of embodiment {embodiment.name}'
            )
        for k, camera in enumerate(embodiment.cameras):
            resized = [to_square(image, image_size) for image in episode.images[camera]]
            images[row : row + length, k] = resized
        states.append(episode.state)
        reference = reference_of(episode.state, embodiment, kind)
        chunks.append(chunk_labels(episode.action, embodiment) - reference[:, None])
        goals.append(episode_goals(episode.action, embodiment) - reference)
        target, place = episode_places(episode)
        targets.append(target)
        places.append(place)
        if episode.instruction not in texts:
            texts.append(episode.instruction)
        text += [texts.index(episode.instruction)] * length
        row += length
    images.flush()
    if len({(t.shape[1], p.shape[1]) for t, p in zip(targets, places, strict=True)}) > 1:
        targets = places = [np.zeros((len(s), 0), np.float32) for s in states]
    chunk = np.concatenate(chunks)
    tokens = token_ids(tokenizer, chunk)
    np.save(folder / 'state.npy', np.concatenate(states).astype(np.float32))
    np.save(folder / 'chunk.npy', tokenizer.normalizer.normalize(chunk))
    np.save(folder / 'goal.npy', tokenizer.normalizer.normalize(np.concatenate(goals)))
    np.save(folder / 'target.npy', np.concatenate(targets))
    np.save(folder / 'places.npy', np.concatenate(places))
    np.save(folder / 'tokens.npy', tokens)
    np.save(folder / 'text.npy', np.array(text))
    np.save(folder / 'episode.npy', np.repeat(np.arange(len(paths)), lengths))
    (folder / MADE_FROM).write_text(json.dumps(made_from, indent=2) + '\n')
    (folder / 'texts.json').write_text(json.dumps(texts))


def _check_made_from(folder: pathlib.Path, now: dict[str, Any]) -> None:
    """Refuse samples of other demonstrations, another tokenizer, ... (ConfigError)."""
    then = json.loads((folder / MADE_FROM).read_text())
    if changed := [name for name in now if then.get(name, now[name]) != now[name]]:
        values = '; '.join(f'{name}: {then[name]}; now: {now[name]}' for name in changed)
        raise ConfigError(
            f'{folder} was made from something else ({values}): give the same as before, or '
            f'choose an empty run folder; without {MADE_FROM} the samples are used as they are'
        )


def _checksum(paths: list[pathlib.Path]) -> str:
    """Return a checksum (hex): names and sizes of all episodes, contents of a few of them."""
    digest = hashlib.sha256()
    every = -(-len(paths) // _OPENED)
    for i, path in enumerate(paths):
        try:
            digest.update(f'{path.name} {path.stat().st_size}\n'.encode())
            if i % every == 0:
                with zipfile.ZipFile(path) as file:  # has a CRC of every array, none is read
                    for member in file.infolist():
                        digest.update(f'{member.filename} {member.CRC}\n'.encode())
        except (OSError, zipfile.BadZipFile) as e:
            raise EpisodeError(f'episode {path}: {e}') from e
    return digest.hexdigest()[:16]


def token_ids(tokenizer: ActionTokenizer, chunks: np.ndarray) -> np.ndarray:
    """Return `Samples.tokens` of chunks [M, H, D], SI units, relative to the reference."""
    parts = [chunks[i : i + _BATCH] for i in range(0, len(chunks), _BATCH)]
    if isinstance(tokenizer, RvqTokenizer):
        offsets = np.arange(tokenizer.config.num_levels) * tokenizer.config.codebook_size
        codes = np.concatenate([tokenizer.encode(part) for part in parts])
        return tokenizer.tokens(codes + offsets[:, None, None]).astype(np.int64)
    rows = [np.asarray(row) for part in parts for row in tokenizer.tokens(tokenizer.encode(part))]
    if tokenizer.num_tokens is not None:
        return np.stack(rows).astype(np.int64)
    tokens = np.full((len(rows), 1 + max(map(len, rows))), NO_TOKEN, dtype=np.int64)
    for row, out in zip(rows, tokens, strict=True):
        out[: len(row) + 1] = [*row, tokenizer.vocab_size]
    return tokens


def episode_goals(action: np.ndarray, embodiment: Embodiment) -> np.ndarray:
    """Return where the episode ends, seen from every step.

    Args:
        action: [T, D] set-points.
        embodiment: which columns are velocities, step period, horizon.

    Returns:
        float32 [T, D]: positions of the last row; velocities: the mean over one chunk that would
        cover the way that is left, so that both have the scale of a set-point.
    """
    goals = np.tile(action[-1].astype(np.float32), (len(action), 1))
    for c in embodiment.action:
        if not c.kind.is_position:
            columns = embodiment.action_slices[c.name]
            left = action[::-1, columns].cumsum(axis=0)[::-1]
            goals[:, columns] = left / embodiment.action_horizon
    return goals


def episode_places(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Return `Samples.target` and `Samples.places` of an episode; [T, 0] without landmarks."""
    points = episode.landmarks
    if episode.target not in points:
        return (np.zeros((episode.num_steps, 0), np.float32),) * 2
    target = points[episode.target]
    hands = sorted(n for n in points if n.endswith('_hand'))
    objects = sorted(n for n in points if n not in hands)
    seen = [target, *(np.clip(target - points[h], -_NEAR, _NEAR) for h in hands)]
    return (
        np.concatenate(seen, axis=1, dtype=np.float32) / _UNIT,
        np.concatenate([points[n] for n in objects], axis=1, dtype=np.float32) / _UNIT,
    )


def open_cache(folder: str | pathlib.Path) -> Samples:
    """Open what `build_cache` wrote; images stay on disk until they are read."""
    folder = pathlib.Path(folder)
    names = ('state', 'chunk', 'goal', 'target', 'places', 'tokens', 'text', 'episode')
    return Samples(
        images=np.load(folder / 'images.npy', mmap_mode='r'),
        texts=json.loads((folder / 'texts.json').read_text()),
        **{name: np.load(folder / f'{name}.npy') for name in names},
    )


def _length(path: pathlib.Path) -> int:
    with np.load(path, allow_pickle=False) as file:
        return len(file['state'])
