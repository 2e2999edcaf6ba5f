"""Unitree G1 with Inspire hands, teleoperated: a LeRobot v2.1 folder of parquet files.

The arms are in radians. The hands are in their own unit, the share of a finger's travel (0 closed,
1 open), as the controller takes it; the measured state comes back in steps of 1/1000. An action
is what the operator's arms and hands ask for; the arms follow about 0.15 s later, the hands 0.3 s.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any, TYPE_CHECKING

import numpy as np

from faster_core.data.motions import Motion, MotionError, MotionSet
from faster_core.data.sources.source import (
    check_input,
    check_share,
    check_whole,
    shipped,
    Source,
    split_at_random,
    Track,
)
from faster_core.embodiment import Component, Embodiment

if TYPE_CHECKING:
    import pyarrow as pa

WHAT = 'a LeRobot v2.1 folder: info.json (or meta/info.json) and episode_*.parquet'
COLUMNS = {'action': 'action', 'state': 'observation.state'}
STEP_TOLERANCE = 0.1  # of a period


@dataclasses.dataclass(frozen=True, kw_only=True)
class G1Config:
    """Which recordings, and how many episodes are held out.

    Attributes:
        input: the folder.
        task: what is done in episodes whose folder has no `tasks.jsonl`.
        held_out_share: share of the episodes, chosen by `seed`.
        source, licence: of the recordings.
    """

    input: str = ''
    task: str = 'Pick up the yellow bottle on the table.'
    held_out_share: float = 0.1
    seed: int = 0
    source: str = (
        'YifanTian07/G1-policy-train @ d1d3bb45: Unitree G1 with Inspire hands, teleoperated; '
        'joint targets and measured positions'
    )
    licence: str = 'MIT (Copyright (c) 2026 Yifan Tian)'

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError)."""
        check_share(self.held_out_share, 'held_out_share')
        check_whole(self.seed, 'seed', 0)


def files(config: G1Config) -> list[pathlib.Path]:
    """Return the parquet files, sorted by name, and what describes them."""
    folder = check_input(config.input, WHAT)
    episodes = sorted(folder.rglob('episode_*.parquet'), key=lambda path: path.name)
    if not episodes:
        raise MotionError(f'{folder}: no episode_*.parquet; expected {WHAT}')
    described = [_described(folder, 'info.json'), _described(folder, 'tasks.jsonl')]
    return [*episodes, *(path for path in described if path is not None)]


def build(config: G1Config, track: Track) -> MotionSet:
    """Read every episode; ours are the arms and hands of `config/embodiments/g1_inspire.yaml`."""
    embodiment = shipped('g1_inspire')
    folder = check_input(config.input, WHAT)
    rate = _check_info(folder, embodiment)
    tasks = _tasks(folder)
    paths = [path for path in files(config) if path.suffix == '.parquet']
    motions = tuple(_read(path, embodiment, tasks, config.task) for path in track(paths))
    return MotionSet(
        name='g1',
        embodiment=embodiment,
        rate=rate,
        source=config.source,
        licence=config.licence,
        rests=False,  # a recording ends when its operator ends it
        motions=motions,
        splits=split_at_random(len(motions), config.held_out_share, config.seed),
    )


def _described(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    return next((p for p in (folder / 'meta' / name, folder / name) if p.is_file()), None)


def _check_info(folder: pathlib.Path, embodiment: Embodiment) -> float:
    """Return the rate; MotionError unless both vectors have our names in our order."""
    path = _described(folder, 'info.json')
    if path is None:
        raise MotionError(f'{folder}: no info.json; expected {WHAT}')
    try:
        info = json.loads(path.read_text(encoding='utf-8'))
        rate = float(info['fps'])
        named = {c: _flat(info['features'][c]['names']) for c in COLUMNS.values()}
    except (KeyError, OSError, TypeError, ValueError) as e:
        raise MotionError(f'{path}: {type(e).__name__}: {e}') from e
    for column, components in zip(
        COLUMNS.values(), (embodiment.action, embodiment.state), strict=True
    ):
        if (expected := _names(components)) != named[column]:
            raise MotionError(f'{path}: {column} is {named[column]}, expected {expected}')
    return rate


def _names(components: tuple[Component, ...]) -> list[str]:
    return [name for c in components for name in c.names]


def _flat(names: Any) -> list[str]:
    """LeRobot writes names as one list or as a list of lists."""
    return [n for part in names for n in ([part] if isinstance(part, str) else part)]


def _tasks(folder: pathlib.Path) -> dict[int, str]:
    path = _described(folder, 'tasks.jsonl')
    if path is None:
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
        return {int(row['task_index']): str(row['task']) for row in rows}
    except (KeyError, TypeError, ValueError) as e:
        raise MotionError(f'{path}: {type(e).__name__}: {e}') from e


def _read(
    path: pathlib.Path, embodiment: Embodiment, tasks: dict[int, str], unnamed: str
) -> Motion:
    import pyarrow as pa
    from pyarrow import parquet

    columns = [*COLUMNS.values(), 'timestamp', 'task_index']
    try:
        with parquet.ParquetFile(path) as file:
            if missing := [c for c in columns if c not in file.schema_arrow.names]:
                raise MotionError(f'{path}: no column {missing[0]!r}')
            table = file.read(columns=columns)
    except (OSError, pa.ArrowException) as e:
        raise MotionError(f'{path}: {e}') from e
    _check_stamps(path, table['timestamp'].to_numpy(), embodiment.step_period)
    indices = set(table['task_index'].to_pylist())
    if len(indices) != 1 or (tasks and not indices <= set(tasks)):
        raise MotionError(f'{path}: task_index {sorted(indices)}, expected one of {tasks}')
    return Motion(
        episode=path.stem,
        task=tasks.get(indices.pop(), unnamed),
        action=_matrix(path, table, COLUMNS['action']),
        state=_matrix(path, table, COLUMNS['state']),
    )


def _matrix(path: pathlib.Path, table: pa.Table, column: str) -> np.ndarray:
    """Return a column of lists as [T, width]."""
    values = table[column].combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if values.null_count or len(flat) % max(len(values), 1):
        raise MotionError(f'{path}: {column} has rows of different lengths')
    return flat.reshape(len(values), -1)


def _check_stamps(path: pathlib.Path, stamps: np.ndarray, period: float) -> None:
    """Refuse frames that were dropped: the rows would no longer be one period apart."""
    steps = np.diff(stamps.astype(np.float64))
    off = np.abs(steps - period) > STEP_TOLERANCE * period
    if off.any():
        row = int(np.argmax(off))
        raise MotionError(
            f'{path}: {steps[row]:.4f} s between rows {row} and {row + 1}, expected {period:.4f}'
        )


SOURCE = Source(
    about='Unitree G1 with two hands, teleoperated (26 dimensions, 30 Hz); real',
    version=1,
    config=G1Config,
    build=build,
    embodiment='g1_inspire',
    files=files,
)
