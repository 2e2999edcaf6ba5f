"""Timing of every engine with every head, interleaved in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np
import torch

from faster_core.chunk import StageTiming
from faster_core.errors import ConfigError
from faster_core.evaluation.latency import random_observation
from faster_core.evaluation.machine import describe_machine
from faster_core.evaluation.speed import limits
from faster_core.evaluation.speed.contestants import Contestant
from faster_core.evaluation.statistics import percentiles, stage_percentiles
from faster_core.policy import Policy
from faster_core.policy.engines import ENGINES
from faster_core.provenance import git_commit

# Inferences with every policy before any is timed.
WARMUP = 5
# A run with more passes than this is timed in fewer rounds: every n-th.
MANY_PASSES = 100
MANY_PASSES_EVERY = 5
ORACLE = 'eager'


@dataclasses.dataclass(kw_only=True)
class _Entry:
    contestant: Contestant
    policy: Policy
    every: int
    totals: list[float] = dataclasses.field(default_factory=list)
    stages: list[StageTiming] = dataclasses.field(default_factory=list)
    memory_mb: float = 0.0


def available_engines(device: torch.device) -> list[str]:
    """Return the engines that can run on a device with what is installed here."""
    found = [name for name in ENGINES if name not in ('cuda_graph', 'openvino')]
    if device.type == 'cuda':
        return [*found, 'cuda_graph']
    try:
        import openvino  # noqa: F401
    except ImportError:
        return found
    return [*found, 'openvino']


def measure(
    preset: str,
    contestants: Sequence[Contestant],
    engines: Sequence[str],
    *,
    device: torch.device,
    dtype: str,
    runs: int,
    seed: int = 0,
    on_round: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Time everything.

    Args:
        preset: name that goes into the report.
        contestants: heads.
        engines: names.
        device: all run there.
        dtype: 'float32' or 'bfloat16'.
        runs: rounds; in each every engine runs every head once (those of many passes in every
            fifth), so that what else the machine does meets all alike.
        seed: of the images.
        on_round: called after every round.

    Returns:
        the report of `faster-vla bench policy --json`.
    """
    if runs < 1:
        raise ValueError(f'runs: expected >= 1, found {runs}')
    entries: dict[str, dict[str, _Entry]] = {}
    skipped: dict[str, str] = {}
    for engine in engines:
        entries[engine] = {}
        for contestant in contestants:
            try:
                policy = Policy(contestant.parts, device=str(device), dtype=dtype, engine=engine)
                policy.warmup(WARMUP)
                if policy.whole:  # its stages are made when they are used
                    policy.predict(policy.make_example(), staged=True)
            except ConfigError as e:
                skipped[f'{engine} {contestant.key}'] = str(e)
                continue
            every = MANY_PASSES_EVERY if contestant.passes > MANY_PASSES else 1
            entries[engine][contestant.key] = _Entry(
                contestant=contestant, policy=policy, every=every
            )
    rng = np.random.default_rng(seed)
    oracle = next(iter(next(iter(entries.values())).values())).policy
    for index in range(runs):
        observation = random_observation(oracle, rng)
        for by_head in entries.values():
            for entry in by_head.values():
                if index % entry.every == 0:
                    _run(entry, observation, device)
        if on_round is not None:
            on_round()
    report = {
        'preset': preset,
        'device': _device_name(device),
        'dtype': dtype,
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'machine': describe_machine(),
        'git_sha': git_commit() or None,
        'n_runs': runs,
        'memory_is': 'peak allocated' if device.type == 'cuda' else 'weights',
        **limits.measure_peaks(device, oracle.model.dtype),
        'skipped': skipped,
        'engines': {
            engine: {key: _summary(entry) for key, entry in by_head.items()}
            for engine, by_head in entries.items()
        },
    }
    report['asked'] = _asked(report, contestants, device, dtype)
    return report


def _run(entry: _Entry, observation: Any, device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    chunk = entry.policy.predict(observation)
    entry.totals.append(chunk.timing.total_ms)
    if entry.policy.whole:
        chunk = entry.policy.predict(observation, staged=True)
    entry.stages.append(chunk.timing)
    if device.type == 'cuda':
        entry.memory_mb = max(entry.memory_mb, torch.cuda.max_memory_allocated(device) / 2**20)
    else:
        model = entry.policy.model
        entry.memory_mb = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20


def _summary(entry: _Entry) -> dict[str, Any]:
    return {
        'total_ms': percentiles(entry.totals),
        'stages_ms': stage_percentiles(entry.stages),
        'memory_mb': round(entry.memory_mb, 1),
        'passes': entry.contestant.passes,
        'n_runs': len(entry.totals),
    }


def _asked(
    report: dict[str, Any], contestants: Sequence[Contestant], device: torch.device, dtype: str
) -> dict[str, Any]:
    """Return per head what an inference asks for, the least time, and the best engine's share."""
    rows = {}
    for contestant in contestants:
        policy = Policy(contestant.parts, device=str(device), dtype=dtype, engine=ORACLE)
        observation = random_observation(policy, np.random.default_rng(0))
        row: dict[str, Any] = limits.asked(policy, observation, contestant.passes)
        arithmetic = row['tflop'] / report['peak_tflops'] * 1e3
        reading = row['gbyte'] / report['bandwidth_gbs'] * 1e3
        row['limit_ms'] = max(arithmetic, reading)
        times = {
            engine: heads[contestant.key]['total_ms']['p50']
            for engine, heads in report['engines'].items()
            if contestant.key in heads
        }
        if times:
            best = min(times, key=times.__getitem__)
            row |= {'best_engine': best, 'share_of_limit': row['limit_ms'] / times[best]}
        rows[contestant.key] = row
    return rows


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
