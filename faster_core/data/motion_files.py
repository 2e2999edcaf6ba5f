"""A set of motions on disk: no pickle, every file checked, the same bytes from the same set."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
from typing import Any
import zipfile

import numpy as np

from faster_core.data.motions import Motion, MotionError, MotionSet
from faster_core.embodiment import Embodiment
from faster_core.errors import EmbodimentError

FORMAT = 1
DATASET, MOTIONS, EMBODIMENT = 'dataset.json', 'motions.npz', 'embodiment.yaml'
# np.savez leaves the time stamp of a member to the Python version; a fixed one keeps the bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN = ('name', 'rate', 'source', 'licence', 'rests', 'provenance')


def save(motion_set: MotionSet, folder: pathlib.Path) -> None:
    """Write the three files, `dataset.json` last: without it the folder holds no set."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATASET).unlink(missing_ok=True)
    contents = {
        EMBODIMENT: motion_set.embodiment.source.encode('utf-8'),
        MOTIONS: _npz(motion_set),
    }
    described = {
        'format': FORMAT,
        **{key: getattr(motion_set, key) for key in _PLAIN},
        'sha256': {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        'motions': [
            {'episode': m.episode, 'task': m.task, 'split': split, 'steps': m.num_steps}
            for m, split in zip(motion_set.motions, motion_set.splits, strict=True)
        ],
    }
    contents[DATASET] = (json.dumps(described, indent=1, ensure_ascii=False) + '\n').encode()
    for name, data in contents.items():
        partial = folder / f'{name}.partial'
        partial.write_bytes(data)
        partial.replace(folder / name)


def _npz(motion_set: MotionSet) -> bytes:
    motions = motion_set.motions
    arrays = {
        'action': np.concatenate([m.action for m in motions]),
        'lengths': np.array([m.num_steps for m in motions], dtype=np.int64),
    }
    if motions[0].state is not None:
        arrays['state'] = np.concatenate([m.state for m in motions])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f'{name}.npy', _DATE), member.getvalue())
    return buffer.getvalue()


def read_description(folder: pathlib.Path) -> dict[str, Any]:
    """Return `dataset.json` of a folder; MotionError if there is none or it is of no use."""
    try:
        described = json.loads((folder / DATASET).read_text(encoding='utf-8'))
    except (OSError, ValueError) as e:
        raise MotionError(f'{folder}: no set of motions: {e}') from e
    if not isinstance(described, dict) or described.get('format') != FORMAT:
        found = described.get('format') if isinstance(described, dict) else described
        raise MotionError(f'{folder / DATASET}: format {found!r}, expected {FORMAT}')
    return described


def load(folder: pathlib.Path) -> MotionSet:
    """Read a set and check every file against `dataset.json` (MotionError names the folder)."""
    described = read_description(folder)
    try:
        contents = {name: _checked(folder, name, described) for name in (EMBODIMENT, MOTIONS)}
        with np.load(io.BytesIO(contents[MOTIONS]), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        steps = [entry['steps'] for entry in described['motions']]
        if arrays['lengths'].tolist() != steps or len(arrays['action']) != sum(steps):
            raise MotionError(f'{DATASET} and {MOTIONS} disagree about the lengths')
        ends = np.cumsum(steps)[:-1]
        actions = np.split(arrays['action'], ends)
        states = np.split(arrays['state'], ends) if 'state' in arrays else [None] * len(steps)
        motions = tuple(
            Motion(episode=entry['episode'], task=entry['task'], action=action, state=state)
            for entry, action, state in zip(described['motions'], actions, states, strict=True)
        )
        return MotionSet(
            embodiment=Embodiment.from_text(contents[EMBODIMENT].decode('utf-8')),
            motions=motions,
            splits=tuple(entry['split'] for entry in described['motions']),
            **{key: described[key] for key in _PLAIN},
        )
    except (EmbodimentError, MotionError) as e:
        raise MotionError(f'{folder}: {e}') from e
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as e:
        raise MotionError(f'{folder}: malformed: {type(e).__name__}: {e}') from e


def _checked(folder: pathlib.Path, name: str, described: dict[str, Any]) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as e:
        raise MotionError(str(e)) from e
    expected = described['sha256'][name]
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise MotionError(f'{name} has sha256 {found}, {DATASET} says {expected}')
    return data
