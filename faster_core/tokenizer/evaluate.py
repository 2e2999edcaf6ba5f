"""How well chunks survive a tokenizer, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import time
from typing import Any

import numpy as np
from scipy.fft import dct

from faster_core.data.motions import MotionSet
from faster_core.data.reference import ABSOLUTE
from faster_core.embodiment import Embodiment, Kind
from faster_core.errors import DecodeError
from faster_core.tokenizer import metrics
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.normalizer import MAX_ABS
from faster_core.tokenizer.rvq import RvqTokenizer

BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Chunks, what became of them, and the tokens in between.

    Attributes:
        truth, decoded: float32 [M, H, D], SI units.
        tokens: M sequences.
    """

    truth: np.ndarray
    decoded: np.ndarray
    tokens: list[np.ndarray]


def reconstruct(tokenizer: ActionTokenizer, chunks: np.ndarray) -> Reconstruction:
    """Encode to tokens and decode chunks [M, H, D] (SI units), in batches."""
    decoded, tokens = [], []
    for i in range(0, len(chunks), BATCH):
        rows = tokenizer.tokens(tokenizer.encode(chunks[i : i + BATCH]))
        tokens += [np.asarray(row) for row in rows]
        decoded.append(tokenizer.decode_tokens(rows))
    return Reconstruction(truth=chunks, decoded=np.concatenate(decoded), tokens=tokens)


def evaluate(
    tokenizer: ActionTokenizer,
    embodiment: Embodiment,
    chunks: np.ndarray,
    episodes: list[np.ndarray] | None = None,
    *,
    timing: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure everything that `faster-vla tokenizer eval` prints.

    Args:
        tokenizer: of any kind.
        embodiment: of the data.
        chunks: [M, H, D] held out, SI units.
        episodes: per episode chunks without overlap, for the jump at borders.
        timing: measure encode and decode time.
        seed: of the random token strings.
    """
    made = reconstruct(tokenizer, chunks)
    rate, half_range = embodiment.action_frequency, tokenizer.normalizer.half_range
    moving = metrics.moving_dimensions(made.truth)
    error = made.truth - made.decoded
    table = metrics.vrr_table(error[..., moving], half_range[moving])
    normal = error / half_range
    lengths = [len(t) for t in made.tokens]
    bits = float(np.mean(lengths)) * np.log2(tokenizer.vocab_size)
    beyond = np.abs((made.truth - tokenizer.normalizer.centre) / half_range) > MAX_ABS
    report: dict[str, Any] = {
        'kind': tokenizer.kind,
        'n_chunks': len(chunks),
        **{
            f'vrr_{metrics.sigma_name(s)}': table[f'phys_dim_{metrics.sigma_name(s)}']
            for s in metrics.SIGMAS
        },
        'vrr': table,
        'l1': float(np.abs(normal[..., moving]).mean()),
        'l2': float(np.sqrt(np.square(normal[..., moving]).mean())),
        'dct_l1': float(np.abs(dct(normal[..., moving], axis=1, norm='ortho')).mean()),
        'l1_by_component': {
            c.name: float(np.abs(error[..., embodiment.action_slices[c.name]]).mean())
            for c in embodiment.action
        },
        'near_constant': int((~moving).sum()),
        'clipped': float(beyond.mean()),
        'tokens_mean': float(np.mean(lengths)),
        'tokens_max': int(np.max(lengths)),
        'bits_per_s': bits * rate / embodiment.action_horizon,
        **code_report(tokenizer, made.tokens),
        'decodable': decodable_share(tokenizer, made.tokens, seed=seed),
        'gripper': gripper_report(embodiment, made),
        'params': tokenizer.num_parameters,
    }
    if episodes is not None:
        kept = [e for e in episodes if len(e)]
        decoded = [reconstruct(tokenizer, e).decoded for e in kept]
        report['border_jump'] = metrics.border_jump(kept, decoded, half_range, rate)
    if isinstance(tokenizer, RvqTokenizer):
        report['l1_by_levels'] = l1_by_levels(tokenizer, chunks)
    if timing:
        report |= timings(tokenizer, chunks)
    return report


def evaluate_set(
    tokenizer: ActionTokenizer,
    data: MotionSet,
    split: str,
    *,
    stride: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate on the chunks of one split of a motion set; options as in `evaluate`."""
    reference = getattr(tokenizer.config, 'reference', ABSOLUTE)
    chunks = data.chunks(split, reference, stride)
    episodes = data.episode_chunks(split, reference)
    return evaluate(tokenizer, data.embodiment, chunks, episodes, **options)


def code_counts(tokenizer: ActionTokenizer, tokens: list[np.ndarray]) -> np.ndarray:
    """Return how often every code was chosen: [levels, K] of a residual quantiser, else [1, V]."""
    if isinstance(tokenizer, RvqTokenizer):
        levels = np.stack(tokens).reshape(len(tokens), tokenizer.config.num_levels, -1)
        rows = [levels[:, i].ravel() for i in range(tokenizer.config.num_levels)]
    else:
        rows = [np.concatenate(tokens)]
    return np.stack([np.bincount(r, minlength=tokenizer.vocab_size) for r in rows])


def code_report(tokenizer: ActionTokenizer, tokens: list[np.ndarray]) -> dict[str, Any]:
    """Return use, entropy and largest share: the mean over levels, and 'levels' one by one."""
    levels = [metrics.code_statistics(row) for row in code_counts(tokenizer, tokens)]
    means = {k: float(np.mean([level[k] for level in levels])) for k in levels[0]}
    return {**means, 'levels': levels}


def decodable_share(
    tokenizer: ActionTokenizer, tokens: list[np.ndarray], *, count: int = 200, seed: int = 0
) -> float:
    """Return the share of random token strings that decode to finite actions in range.

    The strings are as long as those of the data.
    """
    rng = np.random.default_rng(seed)
    normalizer, good = tokenizer.normalizer, 0
    for _ in range(count):
        length = len(tokens[rng.integers(len(tokens))])
        row = rng.integers(0, tokenizer.vocab_size, length)
        try:
            actions = tokenizer.decode_tokens([row])
        except DecodeError:
            continue
        normal = (actions - normalizer.centre) / normalizer.half_range
        good += bool(np.isfinite(actions).all() and np.abs(normal).max() <= MAX_ABS + 1e-3)
    return good / count


def gripper_report(embodiment: Embodiment, made: Reconstruction) -> dict[str, Any]:
    """Return the timing of transitions of every gripper dimension by its component's name."""
    report = {}
    for c in embodiment.action:
        if c.kind is Kind.GRIPPER_POSITION and c.size == 1:
            column = embodiment.action_slices[c.name].start
            report[c.name] = metrics.transition_timing(
                made.truth[..., column], made.decoded[..., column], embodiment.action_frequency
            )
    return report


def l1_by_levels(tokenizer: RvqTokenizer, chunks: np.ndarray) -> list[float]:
    """Return the normalised L1 error with the first, the first two, ... levels."""
    errors = np.zeros(tokenizer.config.num_levels)
    for i in range(0, len(chunks), BATCH):
        batch = chunks[i : i + BATCH]
        codes = tokenizer.encode(batch)
        for level in range(len(errors)):
            decoded = tokenizer.decode(codes, num_levels=level + 1)
            error = np.abs(decoded - batch) / tokenizer.normalizer.half_range
            errors[level] += error.mean() * len(batch)
    return [float(e) for e in errors / len(chunks)]


def timings(
    tokenizer: ActionTokenizer, chunks: np.ndarray, runs: int = 60, *, large_batch: bool = True
) -> dict[str, Any]:
    """Return milliseconds (p50, p99) to encode and decode one chunk, and a batch of 256."""
    one = chunks[:1]
    many = np.resize(chunks, (BATCH, *chunks.shape[1:]))
    report = {}
    sizes = [('', one, runs), ('_256', many, max(5, runs // 6))]
    for suffix, batch, repeats in sizes if large_batch else sizes[:1]:
        codes = tokenizer.encode(batch)
        report[f'encode_ms{suffix}'] = _time(lambda: tokenizer.encode(batch), repeats)  # noqa: B023
        report[f'decode_ms{suffix}'] = _time(lambda: tokenizer.decode(codes), repeats)  # noqa: B023
    return report


def _time(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    for _ in range(3):
        work()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        work()
        spent.append((time.perf_counter_ns() - start) / 1e6)
    p50, p99 = np.percentile(spent, [50, 99])
    return {'p50': round(float(p50), 4), 'p99': round(float(p99), 4)}
