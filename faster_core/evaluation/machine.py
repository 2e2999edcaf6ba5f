"""What a measurement was taken on."""

from __future__ import annotations

from importlib import metadata
import os
import pathlib
import platform
from typing import Any


def num_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Return processor, usable cores and the version of torch (None if it is not installed)."""
    try:
        torch = metadata.version('torch')
    except metadata.PackageNotFoundError:
        torch = None
    return {'cpu': _cpu(), 'cores': num_cores(), 'torch': torch}


def _cpu() -> str:
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
