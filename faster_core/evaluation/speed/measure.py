"""Timing of every engine with every head, interleaved in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import time
from typing import Any

import numpy as np
import torch

from faster_core.chunk import StageTiming
from faster_core.errors import ConfigError, FasterVlaError
from faster_core.evaluation.latency import random_observation
from faster_core.evaluation.machine import describe_machine, describe_software
from faster_core.evaluation.speed import limits
from faster_core.evaluation.speed.contestants import Contestant
from faster_core.evaluation.speed.memory import MEMORY_IS, MemoryGauge, weight_bytes
from faster_core.evaluation.statistics import percentiles, stage_percentiles
from faster_core.observation import Observation
from faster_core.policy import Policy
from faster_core.policy.engines import ENGINES
from faster_core.policy.policy import DTYPES
from faster_core.provenance import git_commit

# Inferences with every policy before any is timed.
WARMUP = 5
# A run with more passes than this is timed in fewer rounds: every n-th.
MANY_PASSES = 100
MANY_PASSES_EVERY = 5
# Rounds between two reports of a measurement that goes on.
REPORT_EVERY = 10
ORACLE = 'eager'

OnReport = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(kw_only=True)
class _Entry:
    contestant: Contestant
    policy: Policy
    every: int
    memory_mb: float
    works: bool = True
    totals: list[float] = dataclasses.field(default_factory=list)
    stages: list[StageTiming] = dataclasses.field(default_factory=list)


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
    only: Mapping[str, Sequence[str]] | None = None,
    deadline: float | None = None,
    seed: int = 0,
    on_round: Callable[[], None] | None = None,
    on_report: OnReport | None = None,
) -> dict[str, Any]:
    """Time everything. What fails is left out, with its reason; all else is measured.

    Args:
        preset: name that goes into the report.
        contestants: heads.
        engines: names.
        device: all run there.
        dtype: 'float32' or 'bfloat16'.
        runs: rounds; in each every engine runs every head once (those of many passes in every
            fifth), so that what else the machine does meets all alike.
        only: engine -> heads, for engines that do not run all of them.
        deadline: when to begin nothing new (`time.monotonic`, seconds). What could not be
            prepared by then is left out; one round is always run.
        seed: of the images.
        on_round: called after every round.
        on_report: called every few rounds with the report so far ('complete' is False).

    Returns:
        the report of `faster-vla bench policy --json`.

    Raises:
        ConfigError: nothing could be measured; names every reason.
    """
    if runs < 1:
        raise ValueError(f'runs: expected >= 1, found {runs}')
    report: dict[str, Any] = {
        'preset': preset,
        'device': device_name(device),
        'dtype': dtype,
        **describe_software(),
        'threads': torch.get_num_threads(),
        'machine': describe_machine(),
        'git_sha': git_commit() or None,
        'n_runs': 0,
        'complete': False,
        'memory_is': MEMORY_IS[device.type],
        **limits.measure_peaks(device, DTYPES[dtype]),
        'skipped': {},
        'engines': {},
        'asked': {},
    }
    skipped = report['skipped']
    entries: dict[str, dict[str, _Entry]] = {}
    for engine in engines:
        entries[engine] = {}
        for contestant in contestants:
            if contestant.head not in (only or {}).get(engine, (contestant.head,)):
                continue
            with leave_out(skipped, f'{engine} {contestant.key}', device):
                if _over(deadline):
                    raise ConfigError('there was no time left to prepare it')
                entries[engine][contestant.key] = _prepare(contestant, engine, device, dtype)
    rng = np.random.default_rng(seed)
    while report['n_runs'] < runs and (working := _working(entries)):
        if report['n_runs'] and _over(deadline):
            break
        observation = random_observation(working[0][1].policy, rng)
        for name, entry in working:
            if report['n_runs'] % entry.every == 0:
                entry.works = False
                with leave_out(skipped, name, device):
                    _run(entry, observation)
                    entry.works = True
        report['n_runs'] += 1
        if on_round is not None:
            on_round()
        if on_report is not None and report['n_runs'] % REPORT_EVERY == 1:
            on_report(report | {'engines': _summaries(entries)})
    report['engines'] = _summaries(entries)
    if not any(report['engines'].values()):
        reasons = '; '.join(f'{name}: {reason}' for name, reason in skipped.items())
        raise ConfigError(f'nothing could be measured: {reasons or "no heads were chosen"}')
    if on_report is not None:
        on_report(report)
    report['asked'] = _asked(report, contestants, device)
    report['complete'] = report['n_runs'] == runs
    return report


@contextlib.contextmanager
def leave_out(skipped: dict[str, str], name: str, device: torch.device) -> Iterator[None]:
    """Note why something failed, and go on: what else is measured does not depend on it.

    Args:
        skipped: name -> reason; gets an entry if the block raises.
        name: of what is tried.
        device: where.
    """
    stream = torch.cuda.current_stream(device) if device.type == 'cuda' else None
    try:
        yield
    except FasterVlaError as e:
        skipped[name] = str(e)
    except Exception as e:  # whatever an engine, its compiler or the device stumbles over
        skipped[name] = f'{type(e).__name__}: {e}'
    if name in skipped and stream is not None:
        torch.cuda.set_stream(stream)  # a capture that fails does not leave its own


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _prepare(contestant: Contestant, engine: str, device: torch.device, dtype: str) -> _Entry:
    parts, options = contestant.parts, {'device': str(device), 'dtype': dtype}
    Policy(parts, engine=ORACLE, **options)  # brings the weights to the device
    gauge = MemoryGauge(device)
    policy = Policy(parts, engine=engine, **options)
    policy.warmup(WARMUP)
    memory = weight_bytes(parts) + gauge.taken()
    if policy.whole:  # its stages are made when they are used
        policy.predict(policy.make_example(), staged=True)
    return _Entry(
        contestant=contestant,
        policy=policy,
        every=MANY_PASSES_EVERY if contestant.passes > MANY_PASSES else 1,
        memory_mb=memory / 2**20,
    )


def _working(entries: Mapping[str, Mapping[str, _Entry]]) -> list[tuple[str, _Entry]]:
    return [
        (f'{engine} {key}', entry)
        for engine, by_head in entries.items()
        for key, entry in by_head.items()
        if entry.works
    ]


def _run(entry: _Entry, observation: Observation) -> None:
    chunk = entry.policy.predict(observation)
    total = chunk.timing.total_ms
    if entry.policy.whole:
        chunk = entry.policy.predict(observation, staged=True)
    entry.totals.append(total)
    entry.stages.append(chunk.timing)


def _summaries(entries: Mapping[str, Mapping[str, _Entry]]) -> dict[str, dict[str, Any]]:
    return {
        engine: {key: _summary(entry) for key, entry in by_head.items() if entry.totals}
        for engine, by_head in entries.items()
    }


def _summary(entry: _Entry) -> dict[str, Any]:
    return {
        'total_ms': percentiles(entry.totals),
        'stages_ms': stage_percentiles(entry.stages),
        'memory_mb': round(entry.memory_mb, 1),
        'passes': entry.contestant.passes,
        'n_runs': len(entry.totals),
    }


def _asked(
    report: dict[str, Any], contestants: Sequence[Contestant], device: torch.device
) -> dict[str, Any]:
    """Return per head what an inference asks for, the least time, and the best engine's share."""
    rows = {}
    for contestant in contestants:
        times = {
            engine: heads[contestant.key]['total_ms']['p50']
            for engine, heads in report['engines'].items()
            if contestant.key in heads
        }
        if not times:
            continue
        with leave_out(report['skipped'], f'asked {contestant.key}', device):
            row: dict[str, Any] = limits.asked(contestant.parts, contestant.passes)
            arithmetic = row['tflop'] / report['peak_tflops'] * 1e3
            reading = row['gbyte'] / report['bandwidth_gbs'] * 1e3
            row['limit_ms'] = max(arithmetic, reading)
            best = min(times, key=times.__getitem__)
            row |= {'best_engine': best, 'share_of_limit': row['limit_ms'] / times[best]}
            rows[contestant.key] = row
    return rows


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or 'cpu'."""
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
