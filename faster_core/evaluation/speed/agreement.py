"""Whether engines give the codes of `eager`, the oracle, on recorded observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import pathlib
from typing import Any

import numpy as np
import torch

from faster_core.data.episodes import load_episode
from faster_core.decoding.blockwise import Block
from faster_core.decoding.sampling import SamplingConfig
from faster_core.errors import ConfigError
from faster_core.observation import Observation
from faster_core.policy import checkpoint, Policy

# Codes may differ where the oracle itself hardly prefers one: between the two largest logits.
MARGIN = 1e-3


def recorded(folder: str | pathlib.Path, count: int) -> Iterator[Observation]:
    """Return `count` observations spread evenly over the episodes (*.npz) of a folder.

    Raises:
        ConfigError: there are no episodes.
    """
    paths = sorted(pathlib.Path(folder).glob('*.npz'))
    if not paths:
        raise ConfigError(f'no episodes (*.npz) in {folder}')
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    each = -(-count // len(chosen))
    left = count
    for path in chosen:
        episode = load_episode(path)
        for step in np.linspace(0, episode.num_steps - 1, min(each, left)).astype(int):
            yield Observation(
                images={name: frames[step] for name, frames in episode.images.items()},
                state=episode.state[step],
                instruction=episode.instruction,
            )
            left -= 1


def agreement(
    folder: str | pathlib.Path,
    engines: Sequence[str],
    observations: Sequence[Observation] | Iterator[Observation],
    on_observation: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Compare greedy codes.

    Args:
        folder: checkpoint.
        engines: names, without the oracle.
        observations: what to look at.
        on_observation: called after each.

    Returns:
        'observations'; 'engines': name -> 'same' (observations with all codes equal), 'close'
        (their first different code is one about which the oracle is undecided, `MARGIN`; listed
        in 'cases' with observation, block and margin) and 'wrong' (any other), and 'error', the
        largest difference of a chunk's values where the codes are the same.
    """
    names = ['eager', *engines]
    policies = {
        name: Policy(checkpoint.load(folder), device='cpu', engine=name, dtype='float32')
        for name in names
    }
    report: dict[str, Any] = {
        name: {'same': 0, 'close': 0, 'wrong': 0, 'error': 0.0, 'cases': []} for name in engines
    }
    count = 0
    for index, observation in enumerate(observations):
        count += 1
        blocks: list[Block] = []
        oracle = policies['eager']
        expected = oracle.predict(observation)
        # What `predict` decoded, once more, with its logits.
        with torch.inference_mode():
            oracle.decode_again(SamplingConfig(), blocks.append)
        for name in engines:
            found = policies[name].predict(observation)
            different = (expected.codes != found.codes).ravel()
            if different.any():
                order = oracle.model.layout.from_level_major(different)
                _explain(report[name], index, blocks, order)
                continue
            error = float(np.abs(expected.values - found.values).max())
            report[name]['same'] += 1
            report[name]['error'] = max(report[name]['error'], error)
        if on_observation is not None:
            on_observation()
    return {'observations': count, 'margin': MARGIN, 'engines': report}


def _explain(
    row: dict[str, Any], index: int, blocks: Sequence[Block], different: np.ndarray
) -> None:
    """Count an observation by the oracle's margin in the first block that differs."""
    size = blocks[0].tokens.shape[1]
    first = int(np.flatnonzero(different)[0]) // size
    top = blocks[first].logits[0].topk(2, dim=-1).values
    margins = (top[:, 0] - top[:, 1]).cpu().numpy()
    largest = float(margins[different[first * size : (first + 1) * size]].max())
    row['close' if largest <= MARGIN else 'wrong'] += 1
    row['cases'].append({'observation': index, 'block': first, 'margin': largest})
