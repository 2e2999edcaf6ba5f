"""Whether engines give the codes of `eager`, the oracle, on recorded observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import pathlib
from typing import Any

import numpy as np
import torch

from faster_core.data.episodes import load_episode
from faster_core.decoding.blockwise import Block
from faster_core.decoding.sampling import SamplingConfig
from faster_core.errors import ConfigError
from faster_core.evaluation.speed.measure import device_name, leave_out
from faster_core.observation import Observation
from faster_core.policy import checkpoint, Policy
from faster_core.policy.policy import choose_device

# Codes may differ where the oracle itself hardly prefers one: between the two largest logits.
MARGIN = 1e-3


def recorded(folder: str | pathlib.Path, count: int) -> Iterator[Observation]:
    """Return up to `count` observations spread evenly over the episodes (*.npz) of a folder.

    Fewer if episodes are shorter than their share: none comes twice.

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
        for step in np.linspace(
            0, episode.num_steps - 1, min(each, left, episode.num_steps)
        ).astype(int):
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
    *,
    device: str = 'cpu',
) -> dict[str, Any]:
    """Compare greedy codes in float32, oracle and engines on one device.

    Args:
        folder: checkpoint.
        engines: names, without the oracle.
        observations: what to look at.
        on_observation: called after each.
        device: 'auto', 'cpu', 'cuda', ...

    Returns:
        'device'; 'observations'; 'engines': name -> 'same' (observations with all codes equal),
        'close' (their first different code is one about which the oracle is undecided, `MARGIN`;
        listed in 'cases' with observation, block and margin) and 'wrong' (any other), and
        'error', the largest difference of a chunk's values where the codes are the same;
        'skipped': name -> why an engine was not compared, or not to the end.

    Raises:
        ConfigError: no engine could be compared; names every reason.
    """
    where = choose_device(device)
    skipped: dict[str, str] = {}
    rows: dict[str, Any] = {}
    count = 0
    with _whole_float32():
        oracle = _policy(folder, where, 'eager')
        policies = {}
        for name in engines:
            with leave_out(skipped, name, where):
                policies[name] = _policy(folder, where, name)
        for index, observation in enumerate(observations):
            count += 1
            blocks: list[Block] = []
            expected = oracle.predict(observation)
            # What `predict` decoded, once more, with its logits.
            with torch.inference_mode():
                oracle.decode_again(SamplingConfig(), blocks.append)
            for name in [name for name in policies if name not in skipped]:
                with leave_out(skipped, name, where):
                    found = policies[name].predict(observation)
                    row = rows.setdefault(
                        name, {'same': 0, 'close': 0, 'wrong': 0, 'error': 0.0, 'cases': []}
                    )
                    different = (expected.codes != found.codes).ravel()
                    if different.any():
                        order = oracle.model.layout.from_level_major(different)
                        _explain(row, index, blocks, order)
                        continue
                    error = float(np.abs(expected.values - found.values).max())
                    row['same'] += 1
                    row['error'] = max(row['error'], error)
            if on_observation is not None:
                on_observation()
    if not rows:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in skipped.items())
        raise ConfigError(f'no engine could be compared: {reasons or "there is none"}')
    return {
        'device': device_name(where),
        'observations': count,
        'margin': MARGIN,
        'engines': rows,
        'skipped': skipped,
    }


def _policy(folder: str | pathlib.Path, device: torch.device, engine: str) -> Policy:
    return Policy(checkpoint.load(folder), device=str(device), engine=engine, dtype='float32')


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Keep GPUs from rounding to TF32, which has 10 bits: convolutions are by default."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


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
