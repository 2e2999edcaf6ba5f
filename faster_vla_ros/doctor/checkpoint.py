"""What the checks need of a checkpoint folder, read without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from faster_core.embodiment import Embodiment
from faster_core.errors import CheckpointError

# The policy refuses a state so many half ranges from the centre: `REFUSED_ABS` of
# `faster_core/policy/state.py`, which cannot be imported without torch. A test holds them equal.
REFUSED_ABS = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Where the states of the training data lie.

    Attributes:
        centre, half_range: [S], SI units; -1 and 1 are the 1st and 99th percentile.
    """

    centre: np.ndarray
    half_range: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder says.

    Attributes:
        statistics: None where the folder has only the embodiment (the policy is a server's).
        image_size: side of the images the model looks at, pixels; None as above.
    """

    embodiment: Embodiment
    statistics: Statistics | None
    image_size: int | None


def load(folder: pathlib.Path) -> Checkpoint:
    """Read embodiment, statistics and image size.

    Raises:
        CheckpointError: a file is malformed or not the one `metadata.json` was written for.
        EmbodimentError: there is no embodiment file, or it is wrong.
    """
    embodiment = Embodiment.load(folder / 'embodiment.yaml')
    if not (folder / 'metadata.json').is_file():
        return Checkpoint(embodiment=embodiment, statistics=None, image_size=None)
    files = _json(folder / 'metadata.json').get('files')
    for name in ('embodiment.yaml', 'normalization.json', 'config.json'):
        expected = files.get(name) if isinstance(files, dict) else None
        if (found := _sha256(folder / name)) != expected:
            raise CheckpointError(
                f'{folder / name}: sha256 {found[:12]}… is not the {str(expected)[:12]}… of '
                'metadata.json: the file is truncated or was changed'
            )
    return Checkpoint(
        embodiment=embodiment,
        statistics=_statistics(folder / 'normalization.json', embodiment.state_dim),
        image_size=_image_size(folder / 'config.json'),
    )


def _statistics(path: pathlib.Path, size: int) -> Statistics:
    raw = _json(path)
    try:
        arrays = {k: np.asarray(raw[k], np.float32) for k in ('centre', 'half_range')}
    except (KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f'{path}: {e!r}') from e
    for name, array in arrays.items():
        if array.shape != (size,) or not np.isfinite(array).all():
            raise CheckpointError(f'{path}: {name} must be {size} finite numbers')
    if (arrays['half_range'] <= 0).any():
        raise CheckpointError(f'{path}: half_range must be positive')
    return Statistics(**arrays)


def _image_size(path: pathlib.Path) -> int:
    raw = _json(path)
    if raw.get('backbone', 'small') == 'small':
        size = raw.get('vision', {}).get('image_size')
    else:
        vision = raw.get('vlm', {}).get('vision_config', {})
        size = vision.get('image_size', raw.get('image_pixels', 224))
    size = size[0] if isinstance(size, list) and size else size
    if not isinstance(size, int) or size < 1:
        raise CheckpointError(f'{path}: expected the image size in pixels, found {size!r}')
    return size


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as e:
        raise CheckpointError(f'{path}: {e}') from e
    if not isinstance(raw, dict):
        raise CheckpointError(f'{path}: expected a JSON object')
    return raw


def _sha256(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as e:
        raise CheckpointError(f'{path}: {e}') from e
