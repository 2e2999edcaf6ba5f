"""Trajectories for action tokenizers: episodes of one robot at one rate, split by episode.

A folder holds `embodiment.yaml` (verbatim), `motions.npz` (episodes end to end, no pickle) and
`dataset.json` (everything else, with the checksums of the other two). docs/data.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import math
import pathlib
from typing import Any

import numpy as np

from faster_core.data.episodes import chunk_labels
from faster_core.data.reference import ABSOLUTE, reference_of, REFERENCES
from faster_core.embodiment import Embodiment
from faster_core.errors import FasterVlaError

TRAIN, HELD_OUT, HELD_OUT_TASK = 'train', 'held_out', 'held_out_task'
SPLITS = (TRAIN, HELD_OUT, HELD_OUT_TASK)


class MotionError(FasterVlaError, ValueError):
    """Recorded motions are missing, damaged or do not fit the robot they are said to be of."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """One episode; the arrays are read-only, float32, SI units.

    Attributes:
        episode: its name, unique in a set.
        task: what was done.
        action: [T, D] set-points; row t is due one step after the observation t.
        state: [T, S] measured when the set-point was chosen; None if it was not recorded.
    """

    episode: str
    task: str
    action: np.ndarray
    state: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse what is no finite [T, D] (MotionError names episode and value)."""
        for field in ('action', 'state'):
            array = getattr(self, field)
            if array is not None:
                object.__setattr__(self, field, _rows(array, f'episode {self.episode}: {field}'))
        if self.state is not None and len(self.state) != len(self.action):
            raise MotionError(
                f'episode {self.episode}: {len(self.state)} rows of state, '
                f'expected {len(self.action)}, as many as of action'
            )

    @property
    def num_steps(self) -> int:
        """Number of set-points T."""
        return len(self.action)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MotionSet:
    """Episodes of one robot and the split each of them belongs to.

    Attributes:
        name: of the source, e.g. `metaworld`.
        embodiment: layout of state and action, rate and horizon.
        rate: rows per second of the data; must be the embodiment's.
        source: where the motions come from, with version or commit.
        licence: SPDX identifier or sentence.
        rests: whether the robot rests after the last row, so that chunks may run past the end.
        motions: the episodes.
        splits: per episode 'train', 'held_out' (known task) or 'held_out_task'.
        provenance: how the set was made; plain JSON.
    """

    name: str
    embodiment: Embodiment
    rate: float
    source: str
    licence: str
    rests: bool
    motions: tuple[Motion, ...]
    splits: tuple[str, ...]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an empty set and whatever does not fit the embodiment (MotionError)."""
        if not self.motions:
            raise MotionError(f'{self.name}: no motions')
        if len(self.splits) != len(self.motions):
            raise MotionError(
                f'{self.name}: {len(self.splits)} splits for {len(self.motions)} motions'
            )
        if unknown := sorted(set(self.splits) - set(SPLITS)):
            raise MotionError(f'{self.name}: split {unknown[0]!r}, expected one of {SPLITS}')
        if not math.isclose(self.rate, self.embodiment.action_frequency, rel_tol=1e-3):
            raise MotionError(
                f'{self.name}: recorded at {self.rate:g} Hz, the embodiment '
                f'{self.embodiment.name} has {self.embodiment.action_frequency:g} Hz'
            )
        self._check_motions()

    def _check_motions(self) -> None:
        dims = {'action': self.embodiment.action_dim, 'state': self.embodiment.state_dim}
        with_state = self.motions[0].state is not None
        seen: set[str] = set()
        split_of: dict[bytes, tuple[str, str]] = {}
        for motion, split in zip(self.motions, self.splits, strict=True):
            where = f'{self.name}: episode {motion.episode}'
            if motion.episode in seen:
                raise MotionError(f'{where}: named twice')
            seen.add(motion.episode)
            if (motion.state is not None) != with_state:
                raise MotionError(f'{where}: some episodes have a state and some have none')
            for field, dim in dims.items():
                array = getattr(motion, field)
                if array is not None and array.shape[1] != dim:
                    raise MotionError(
                        f'{where}: {field} has {array.shape[1]} columns, the embodiment '
                        f'{self.embodiment.name} has {dim}'
                    )
            # The same trajectory on both sides would turn a test of generalisation into one of
            # memory.
            key = hashlib.sha256(motion.action.tobytes()).digest()
            other, twin = split_of.setdefault(key, (split, motion.episode))
            if other != split:
                raise MotionError(f'{where}: {split}, its twin {twin} is {other}')

    def of_split(self, split: str) -> tuple[Motion, ...]:
        """Return the episodes of a split, in order.

        Raises:
            MotionError: there are none; names the splits that have some.
        """
        found = tuple(m for m, s in zip(self.motions, self.splits, strict=True) if s == split)
        if not found:
            present = [s for s in SPLITS if s in self.splits]
            raise MotionError(f'{self.name}: no episodes in split {split!r}, only in {present}')
        return found

    def chunks(self, split: str, reference: str = ABSOLUTE, stride: int = 1) -> np.ndarray:
        """Cut the chunks of a split.

        A chunk starts at every `stride`-th row of each episode. Where the robot rests at the end
        (`rests`) that is every row, and rows past the end are the rest (`chunk_labels`: positions
        hold, velocities and displacements are zero); elsewhere only chunks wholly inside the
        episode are taken, so an episode shorter than the horizon gives none.

        Args:
            split: one of `SPLITS`.
            reference: what positions are relative to, see `reference_of`.
            stride: rows between the starts of two chunks.

        Returns:
            float32 [M, H, D], episode after episode, in the order of `chunk_starts`.

        Raises:
            MotionError: the split has no chunk, or the reference needs a state that is not there.
        """
        chunks = np.concatenate(self.episode_chunks(split, reference, stride))
        if not len(chunks):
            longest = max(m.num_steps for m in self.of_split(split))
            raise MotionError(
                f'{self.name}: no chunk in split {split!r}: its longest episode has {longest} '
                f'rows, a chunk {self.embodiment.action_horizon}'
            )
        return chunks

    def episode_chunks(
        self, split: str, reference: str = ABSOLUTE, stride: int | None = None
    ) -> list[np.ndarray]:
        """Return the chunks of every episode of a split, a list of float32 [M_i, H, D].

        Without a `stride` they follow each other without overlap, as a policy that executes every
        chunk to its end would send them.
        """
        stride = self.embodiment.action_horizon if stride is None else stride
        return [self._cut(m, self._starts(m, stride), reference) for m in self.of_split(split)]

    def chunk_starts(self, split: str, stride: int = 1) -> np.ndarray:
        """Return int64 [M, 2]: index into `of_split(split)` and first row, of every chunk."""
        rows = [self._starts(motion, stride) for motion in self.of_split(split)]
        episodes = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        return np.stack([episodes, np.concatenate(rows)], axis=1)

    def _starts(self, motion: Motion, stride: int) -> np.ndarray:
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise MotionError(f'stride: expected a whole number >= 1, found {stride!r}')
        horizon = self.embodiment.action_horizon
        count = motion.num_steps if self.rests else motion.num_steps - horizon + 1
        return np.arange(0, max(count, 0), stride, dtype=np.int64)

    def _cut(self, motion: Motion, starts: np.ndarray, reference: str) -> np.ndarray:
        horizon = self.embodiment.action_horizon
        if reference not in REFERENCES:
            raise MotionError(f'reference: expected one of {REFERENCES}, found {reference!r}')
        if self.rests:
            chunks = chunk_labels(motion.action, self.embodiment)[starts]
        else:
            chunks = motion.action[starts[:, None] + np.arange(horizon)]
        if reference == ABSOLUTE:
            return chunks
        if motion.state is None:
            raise MotionError(f'{self.name}: reference {reference!r} needs a state, found none')
        origin = reference_of(motion.state[starts], self.embodiment, reference)
        return chunks - origin[:, None]

    def summary(self) -> dict[str, Any]:
        """Return what there is to know at a glance, as plain JSON."""
        splits = {}
        for split in (s for s in SPLITS if s in self.splits):
            motions = self.of_split(split)
            splits[split] = {
                'tasks': len({m.task for m in motions}),
                'episodes': len(motions),
                'steps': sum(m.num_steps for m in motions),
                'chunks': sum(len(self._starts(m, 1)) for m in motions),
            }
        steps = sum(m.num_steps for m in self.motions)
        return {
            'name': self.name,
            'source': self.source,
            'licence': self.licence,
            'embodiment': self.embodiment.name,
            'action_dim': self.embodiment.action_dim,
            'rate': self.rate,
            'horizon': self.embodiment.action_horizon,
            'minutes': round(steps / self.rate / 60, 1),
            'rests': self.rests,
            'has_state': self.motions[0].state is not None,
            'splits': splits,
        }

    def columns(self) -> list[dict[str, Any]]:
        """Return range, largest change per row and number of different values per dimension."""
        rows = np.concatenate([m.action for m in self.motions])
        changes = [np.abs(np.diff(m.action, axis=0)).max(axis=0, initial=0) for m in self.motions]
        largest = np.max(changes, axis=0)
        names = [(c, name) for c in self.embodiment.action for name in c.names]
        return [
            {
                'component': c.name,
                'kind': c.kind.name.lower(),
                'name': name,
                'least': float(rows[:, i].min()),
                'most': float(rows[:, i].max()),
                'largest_step': float(largest[i]),
                'values': len(np.unique(rows[:, i])),
            }
            for i, (c, name) in enumerate(names)
        ]

    def save(self, folder: str | pathlib.Path) -> None:
        """Write the set; the same set gives the same bytes, on any machine and at any time."""
        from faster_core.data.motion_files import save

        save(self, pathlib.Path(folder))

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> MotionSet:
        """Read a set.

        Raises:
            MotionError: a file is missing, damaged or of another set; names the folder.
        """
        from faster_core.data.motion_files import load

        return load(pathlib.Path(folder))


def _rows(array: np.ndarray, where: str) -> np.ndarray:
    """Return a read-only float32 copy of [T, width]; MotionError if it is none or not finite."""
    try:
        rows = np.array(array, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise MotionError(f'{where}: expected numbers, found {type(array).__name__}') from e
    if rows.ndim != 2 or not rows.size:
        raise MotionError(f'{where}: expected [T, width] with T >= 1, found {list(rows.shape)}')
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise MotionError(
            f'{where}: row {row}, column {column} is {rows[row, column]}, expected a finite number'
        )
    rows.setflags(write=False)
    return rows
