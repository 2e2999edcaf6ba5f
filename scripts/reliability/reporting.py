"""Figures of a measurement and where they came from, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
import platform
import sys
import time
from typing import Any

import numpy as np

from faster_core.provenance import git_commit

RESULTS = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'results' / 'reliability'


def stolen() -> float:
    """Return the seconds of this machine's cores that its host took away since it started."""
    first = pathlib.Path('/proc/stat').read_text(encoding='ascii').split()
    return int(first[8]) / os.sysconf('SC_CLK_TCK')  # "cpu" and seven others before it


_BEGUN = time.monotonic(), stolen()


def percentiles(values: Sequence[float], digits: int = 2) -> dict[str, float | int | None]:
    """Return p50, p99, p99.9 and the largest of values, and their number."""
    if not len(values):
        return {'n': 0, 'p50': None, 'p99': None, 'p999': None, 'max': None}
    array = np.asarray(values, dtype=float)
    cuts = {'p50': 50.0, 'p99': 99.0, 'p999': 99.9, 'max': 100.0}
    found = {k: round(float(np.percentile(array, q)), digits) for k, q in cuts.items()}
    return {'n': len(array), **found}


def machine() -> dict[str, Any]:
    """Return what ran, and how busy it was."""
    cpu = ''
    for line in pathlib.Path('/proc/cpuinfo').read_text(encoding='ascii').splitlines():
        if line.startswith('model name'):
            cpu = line.partition(':')[2].strip()
            break
    fifo = os.sched_getscheduler(0) == os.SCHED_FIFO
    return {
        'cores': os.cpu_count(),
        'cpu': cpu,
        'kernel': platform.release(),
        'python': platform.python_version(),
        'scheduling': f'SCHED_FIFO {os.sched_getparam(0).sched_priority}'
        if fifo
        else 'SCHED_OTHER',
        'load_1min': round(os.getloadavg()[0], 2),
    }


def write(
    name: str, result: dict[str, Any], path: pathlib.Path | None, *, show: bool = True
) -> None:
    """Write a result to a file and show it, with machine, commit and command."""
    given = sys.argv[1:]
    if '--json' in given:  # where it was written does not matter
        at = given.index('--json')
        given = given[:at] + given[at + 2 :]
    begun, before = _BEGUN
    cores = (os.cpu_count() or 1) * (time.monotonic() - begun)
    taken = {'stolen_percent': round(100.0 * (stolen() - before) / cores, 2)}
    result = result | {
        'machine': (result.get('machine') or machine()) | taken,
        'git_sha': git_commit(),
        'command': ' '.join(['python', '-m', f'scripts.reliability.{name}', *given]),
    }
    text = json.dumps(result, indent=1)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + '\n', encoding='utf-8')
    if show:
        print(text)
