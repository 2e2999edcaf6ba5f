"""`faster-vla bench policy`: from names to the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from faster_core import paths
from faster_core.errors import ConfigError
from faster_core.evaluation.machine import num_cores
from faster_core.evaluation.speed.contestants import demo_contestants, paper_contestants
from faster_core.evaluation.speed.measure import available_engines, measure, OnReport
from faster_core.evaluation.speed.presets import DEMO, speed_preset
from faster_core.policy.engines import ENGINES
from faster_core.policy.policy import choose_device, DTYPES

HEADS = ('block', 'token', 'fast', 'bins', 'flow')


def compare(
    preset: str,
    *,
    small: bool = False,
    checkpoint: str = '',
    engines: Sequence[str] = (),
    heads: Sequence[str] = (),
    only: Mapping[str, Sequence[str]] | None = None,
    device: str = 'auto',
    dtype: str = 'auto',
    threads: int | None = None,
    runs: int = 100,
    deadline: float | None = None,
    on_round: Callable[[], None] | None = None,
    on_report: OnReport | None = None,
) -> dict[str, Any]:
    """Build the heads of a preset and time them (`measure`).

    Args:
        preset: 'demo' or a name of `SPEED_PRESETS`.
        small: a small backbone in place of the paper's.
        checkpoint: of 'demo'; empty: the shipped one.
        engines: only these; empty: all that can run.
        heads: only these; empty: all.
        only: engine -> heads, for engines that do not run all of them.
        device: 'auto', 'cpu', 'cuda', ...
        dtype: 'auto' (bfloat16 on CUDA, else float32), 'float32' or 'bfloat16'.
        threads: of torch; None: all cores.
        runs: rounds that count.
        deadline: when to begin nothing new (`time.monotonic`, seconds).
        on_round: called after every round.
        on_report: called with the report so far, every few rounds.

    Raises:
        ConfigError: an unknown preset, engine, head, device or dtype; nothing could be measured.
    """
    where, only = choose_device(device), only or {}
    if dtype == 'auto':
        dtype = 'bfloat16' if where.type == 'cuda' else 'float32'
    for name, given, known in (
        ('dtype', [dtype], DTYPES),
        ('engines', engines, ENGINES),
        ('heads', heads, HEADS),
        ('only', only, ENGINES),
        *(('only', few, HEADS) for few in only.values()),
    ):
        if unknown := [value for value in given if value not in known]:
            raise ConfigError(f'{name}: expected of {", ".join(known)}, found {unknown}')
    torch.set_num_threads(threads or num_cores())
    if preset == DEMO:
        made = demo_contestants(checkpoint or str(paths.demo_checkpoint()))
    else:
        made = paper_contestants(
            speed_preset(preset), small=small, device=where, dtype=DTYPES[dtype]
        )
    return measure(
        preset + ('_small' if small else ''),
        [c for c in made if not heads or c.head in heads],
        engines or available_engines(where),
        device=where,
        dtype=dtype,
        runs=runs,
        only=only,
        deadline=deadline,
        on_round=on_round,
        on_report=on_report,
    )
