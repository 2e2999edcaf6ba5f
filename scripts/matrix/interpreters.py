"""Which Python interpreters this machine has: on PATH, of pyenv, of uv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

# Prints the row, then what is missing.
PROBE = """
import importlib.util, pathlib, sys, sysconfig
print('%d.%d' % sys.version_info[:2])
missing = [n for n in ('ensurepip', 'venv') if importlib.util.find_spec(n) is None]
if not (pathlib.Path(sysconfig.get_path('include')) / 'Python.h').is_file():
    missing.append('Python.h')
print(' '.join(missing))
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpreter:
    """One Python.

    Attributes:
        path: of the executable.
        found: where it was found: `running`, `PATH`, `pyenv` or `uv`.
        missing: what a virtual environment or a C extension needs and it lacks.
    """

    path: str
    found: str
    missing: tuple[str, ...] = ()


def candidates(row: str) -> Iterator[tuple[str, str]]:
    """Yield (executable, where it was found) of possible interpreters of a row, best first."""
    if row == '{}.{}'.format(*sys.version_info[:2]):
        yield getattr(sys, '_base_executable', sys.executable), 'running'
    if on_path := shutil.which(f'python{row}'):
        yield on_path, 'PATH'
    versions = pathlib.Path(os.environ.get('PYENV_ROOT', pathlib.Path.home() / '.pyenv'))
    for folder in sorted((versions / 'versions').glob(f'{row}.*'), reverse=True):
        yield str(folder / 'bin' / 'python'), 'pyenv'
    if uv := shutil.which('uv'):
        command = [uv, 'python', 'find', '--no-python-downloads', '--no-project', row]
        done = _run(command)
        if done:
            yield done.strip(), 'uv'


def find(row: str, tried: Iterable[tuple[str, str]] | None = None) -> Interpreter | None:
    """Return the first interpreter of a row that works; None: there is none.

    A complete one is preferred to one that lacks something.

    Args:
        row: e.g. `3.12`.
        tried: (executable, where it was found); by default `candidates(row)`.
    """
    incomplete = None
    for path, found in candidates(row) if tried is None else tried:
        lines = _run([path, '-c', PROBE]).splitlines()
        if len(lines) == 2 and lines[0] == row:
            answer = Interpreter(path=path, found=found, missing=tuple(lines[1].split()))
            if not answer.missing:
                return answer
            incomplete = incomplete or answer
    return incomplete


def _run(command: list[str]) -> str:
    """Return what a command prints; empty if it fails or takes longer than 30 s."""
    # A pyenv shim of a version that is not selected exists, and fails.
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout if done.returncode == 0 else ''
