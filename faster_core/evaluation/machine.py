"""What a measurement was taken on."""

from __future__ import annotations

from importlib import metadata
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

_DRIVER = pathlib.Path('/proc/driver/nvidia/version')


def num_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Return processor, usable cores and the version of torch (None if it is not installed)."""
    return {'cpu': _cpu(), 'cores': num_cores(), 'torch': _version('torch')}


def describe_software() -> dict[str, Any]:
    """Return versions: 'python', 'torch', 'transformers', 'cuda' (torch's) and 'driver'.

    None stands for what is not there.
    """
    import torch

    return {
        'python': platform.python_version(),
        'torch': torch.__version__,
        'transformers': _version('transformers'),
        'cuda': torch.version.cuda,
        'driver': _driver() if torch.version.cuda else None,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, of the kernel's module or of its own tool."""
    try:
        said = _DRIVER.read_text(encoding='utf-8')
    except OSError:
        try:
            said = subprocess.run(
                ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None
    found = re.search(r'\d+(\.\d+)+', said)
    return found[0] if found else None


def _cpu() -> str:
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
