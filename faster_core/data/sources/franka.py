"""Franka arm on an exciting trajectory: one rosbag2 recording of `/joint_states`.

Only what was measured is in the bag, no set-points: the "set-point" of row t is the position
measured one period later. One recording has no episodes, so it is split in time, with a gap of one
horizon between the parts. It is meant as the robot that no tokenizer was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import pathlib
import sqlite3
from typing import Any

import numpy as np

from faster_core.data.motions import HELD_OUT, Motion, MotionError, MotionSet, TRAIN
from faster_core.data.sources.source import check_input, check_share, shipped, Source, Track
from faster_core.errors import ConfigError

WHAT = 'a rosbag2 recording (sqlite3): a .db3 file, or a folder with one'
TYPE = 'sensor_msgs/msg/JointState'


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrankaConfig:
    """Which recording, and how it is cut.

    Attributes:
        input: the .db3 file or a folder with one.
        topic: joint states.
        train_share: share of the recording, from its start, that may be trained on.
        max_gap: seconds without a message beyond which nothing is interpolated.
        source, licence: of the recording.
    """

    input: str = ''
    topic: str = '/joint_states'
    train_share: float = 0.25
    max_gap: float = 0.1
    source: str = (
        'unisa-acg/inverse-dynamics-solver @ 41e196de: Franka arm following an exciting '
        'trajectory; measured joint positions'
    )
    licence: str = 'BSD-3-Clause (Copyright (c) 2025, Automatic Control Group (UNISA))'

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError)."""
        check_share(self.train_share, 'train_share')
        if not isinstance(self.max_gap, float) or not self.max_gap > 0:
            raise ConfigError(f'max_gap: expected a number > 0, found {self.max_gap!r}')


def files(config: FrankaConfig) -> list[pathlib.Path]:
    """Return the database."""
    path = check_input(config.input, WHAT)
    found = sorted(path.glob('*.db3')) if path.is_dir() else [path]
    if len(found) != 1:
        raise MotionError(f'{path}: {len(found)} files *.db3, expected one')
    return found


def build(config: FrankaConfig, track: Track) -> MotionSet:
    """Read the bag, resample it to the embodiment's rate and split it in time."""
    embodiment = shipped('franka')
    (path,) = files(config)
    joints = embodiment.action[0].names
    messages = [_positions(path, m, joints) for m in track(_messages(path, config.topic))]
    stamps = np.array([stamp for stamp, _ in messages])
    positions = np.array([position for _, position in messages])
    rows = resample(stamps, positions, embodiment.step_period, config.max_gap, str(path))
    state, action = rows[:-1], rows[1:]
    first = round(len(action) * config.train_share)
    parts = {
        TRAIN: slice(0, first),
        HELD_OUT: slice(first + embodiment.action_horizon, None),
    }
    short = [name for name, part in parts.items() if not len(action[part])]
    if short:
        raise MotionError(f'{path}: {len(action)} rows leave none for split {short[0]!r}')
    return MotionSet(
        name='franka',
        embodiment=embodiment,
        rate=embodiment.action_frequency,
        source=config.source,
        licence=config.licence,
        rests=False,  # both parts are cut out of one motion
        motions=tuple(
            Motion(episode=name, task='exciting trajectory', action=action[p], state=state[p])
            for name, p in parts.items()
        ),
        splits=tuple(parts),
        provenance={'messages': len(messages), 'repeated_messages': int(_repeated(positions))},
    )


def resample(
    stamps: np.ndarray, positions: np.ndarray, period: float, max_gap: float, where: str
) -> np.ndarray:
    """Interpolate linearly by stamp at a uniform period, from the first stamp on.

    Args:
        stamps: [N] seconds, rising.
        positions: [N, D].
        period: seconds between two rows of the result.
        max_gap: longest interval that may be bridged.
        where: for messages.

    Returns:
        float32 [T, D]; the last row is not after the last stamp.

    Raises:
        MotionError: fewer than two stamps, stamps that do not rise, or a gap.
    """
    steps = np.diff(stamps)
    if not len(steps):
        raise MotionError(f'{where}: {len(stamps)} messages, expected at least 2')
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        raise MotionError(f'{where}: stamps do not rise: {stamps[at]:.6f}, {stamps[at + 1]:.6f} s')
    if steps.max() > max_gap:
        raise MotionError(f'{where}: no message for {steps.max():.3f} s, at most {max_gap} s')
    # The epsilon keeps the last row when rounding puts it a little after the last stamp.
    times = np.arange(0.0, stamps[-1] - stamps[0] + 1e-9, period)
    columns = [np.interp(times, stamps - stamps[0], column) for column in positions.T]
    return np.stack(columns, axis=1).astype(np.float32)


def _repeated(positions: np.ndarray) -> int:
    """Count messages that repeat the one before in every joint: the state was sampled twice."""
    return (np.diff(positions, axis=0) == 0).all(axis=1).sum()


def _messages(path: pathlib.Path, topic: str) -> list[bytes]:
    """Return the serialised messages of a topic, oldest first.

    Plain SQL: rosbags' own reader wants a metadata.yaml, which a lone .db3 does not have.
    """
    try:
        with _read_only(path) as bag:
            topics = bag.execute('SELECT id, name, type, serialization_format FROM topics')
            found = {name: (key, kind, form) for key, name, kind, form in topics}
            if topic not in found:
                raise MotionError(f'{path}: no topic {topic}, only {", ".join(sorted(found))}')
            key, *described = found[topic]
            if described != [TYPE, 'cdr']:
                raise MotionError(f'{path}: {topic} is {described}, expected {[TYPE, "cdr"]}')
            query = 'SELECT data FROM messages WHERE topic_id = ? ORDER BY timestamp, id'
            return [data for (data,) in bag.execute(query, (key,))]
    except sqlite3.Error as e:
        raise MotionError(f'{path}: {e}') from e


@contextlib.contextmanager
def _read_only(path: pathlib.Path) -> Iterator[sqlite3.Connection]:
    # `immutable`: no lock file beside a recording in a folder that may not be written to.
    uri = f'{path.resolve().as_uri()}?mode=ro&immutable=1'
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as bag:
        yield bag


def _positions(
    path: pathlib.Path, data: bytes, joints: tuple[str, ...]
) -> tuple[float, list[float]]:
    """Return stamp and positions of our joints, whatever their order in the message."""
    from rosbags.serde import SerdeError

    try:
        message = _typestore().deserialize_cdr(data, TYPE)
    except SerdeError as e:
        raise MotionError(f'{path}: a message of {len(data)} bytes is no {TYPE}: {e}') from e
    found = dict(zip(message.name, message.position, strict=False))
    if missing := [joint for joint in joints if joint not in found]:
        raise MotionError(f'{path}: no position of {missing[0]} among {list(message.name)}')
    stamp = message.header.stamp
    return stamp.sec + stamp.nanosec * 1e-9, [float(found[joint]) for joint in joints]


@functools.cache
def _typestore() -> Any:
    from rosbags.typesys import get_typestore, Stores

    return get_typestore(Stores.ROS2_HUMBLE)


SOURCE = Source(
    about='Franka arm on an exciting trajectory (7 dimensions, 30 Hz); real, the held-out robot',
    version=1,
    config=FrankaConfig,
    build=build,
    embodiment='franka',
    files=files,
)
