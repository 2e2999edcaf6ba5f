"""Virtual environments of the cells, and commands whose time is bounded."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
from typing import Any

from cells import Cell, constraints, declared, requirements, shown_versions

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / '.venv-matrix'
TREE = HOME / 'tree'
PINS = ROOT / 'scripts' / 'matrix_constraints'
INSTALL_LIMIT = 900.0  # s for one call of pip
LOCAL = ('--no-deps', '--no-build-isolation')


class CellError(Exception):
    """A step of a cell failed; the message says which, and ends with what it printed."""


def snapshot() -> str:
    """Put the last commit into `TREE` and return its sha.

    What is tested has a name then, and does not change while someone edits the working tree.
    """
    sha = run(['git', 'rev-parse', 'HEAD'], 'git', limit=30, cwd=ROOT).strip()
    if (TREE / '.git').exists():
        if run(['git', 'rev-parse', 'HEAD'], 'git', limit=30, cwd=TREE).strip() == sha:
            return sha
    shutil.rmtree(TREE, ignore_errors=True)
    run(['git', 'clone', '-q', '--shared', str(ROOT), str(TREE)], 'git clone', limit=120)
    run(['git', 'checkout', '-q', '--detach', sha], 'git checkout', limit=60, cwd=TREE)
    return sha


def python_of(cell: Cell) -> pathlib.Path:
    """Return the interpreter of a cell's environment."""
    return HOME / cell.name / 'bin' / 'python'


def prepare(cell: Cell, interpreter: str) -> None:
    """Make a cell's environment, or leave it if it was made from the same versions.

    Raises:
        CellError: a step failed.
    """
    folder = HOME / cell.name
    pip = [str(python_of(cell)), '-m', 'pip', '--disable-pip-version-check', 'install', '-q']
    own = PINS / f'{cell.column}.txt'
    base = (TREE / 'constraints.txt').read_text(encoding='utf-8')
    pins = constraints(base, own.read_text(encoding='utf-8') if own.exists() else None)
    wanted = requirements(cell, declared(TREE / 'setup.py'), pins)
    messages = sorted(p for p in (TREE / 'faster_vla_msgs').rglob('*') if p.is_file())
    made_from = [interpreter, str(cell.torch), pins, *wanted]
    made_from += [p.read_text(encoding='utf-8') for p in messages] if cell.ros else []
    digest = hashlib.sha256('\0'.join(made_from).encode()).hexdigest()
    stamp = folder / 'made-from'
    if not stamp.exists() or stamp.read_text(encoding='utf-8') != digest:
        shutil.rmtree(folder, ignore_errors=True)
        run([interpreter, '-m', 'venv', str(folder)], 'venv', limit=120)
        file = folder / 'constraints.txt'
        file.write_text(pins, encoding='utf-8')
        pinned = [*pip, '-c', str(file)]
        run([*pinned, 'pip'], 'pip install pip', limit=INSTALL_LIMIT)
        if cell.torch:
            run([*pinned, 'torch'], 'pip install torch', limit=INSTALL_LIMIT)
        run([*pinned, *wanted], 'pip install', limit=INSTALL_LIMIT)
        if cell.ros:
            source = str(TREE / 'faster_vla_msgs')
            run([*pip, *LOCAL, source], 'build of faster_vla_msgs', limit=INSTALL_LIMIT)
        stamp.write_text(digest, encoding='utf-8')
    run([*pip, *LOCAL, '-e', str(TREE)], 'pip install of the project', limit=INSTALL_LIMIT)


def versions(cell: Cell) -> dict[str, str]:
    """Return the versions of a cell that a result shows."""
    command = [str(python_of(cell)), '-m', 'pip', 'list', '--format', 'json']
    return shown_versions(json.loads(run(command, 'pip list', limit=60)))


def run(command: Sequence[str], what: str, *, limit: float, **options: Any) -> str:
    """Run a command, its processes ended with it, and return what it prints.

    Raises:
        CellError: it failed, or took longer than `limit` seconds; the message is one line.
    """
    code, printed = run_bounded(command, limit=limit, **options)
    if code != 0:
        why = f'longer than {limit:.0f} s' if code is None else f'exit status {code}'
        raise CellError(f'{what}: {why}: {complaint(printed)}')
    return printed


def complaint(printed: str) -> str:
    """Return the line that says most about a failure: the first error, else the last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r'(\w*Error|ERROR|error|fatal)\b', line)]
    return (errors or lines[-1:] or ['it printed nothing'])[0][:300]


def run_bounded(
    command: Sequence[str],
    *,
    limit: float,
    cwd: pathlib.Path | None = None,
    log: pathlib.Path | None = None,
    **environment: str,
) -> tuple[int | None, str]:
    """Run a command in a session of its own and return (exit status, what it printed).

    Args:
        command: words.
        limit: s, after which the whole session is killed and the status is None.
        cwd: folder to run it in.
        log: file that takes what it prints, instead of the second value.
        environment: variables beside our own.
    """
    # The wheels' start-up code must run anew in another environment.
    left_out = {'_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'PYTHONPATH', 'VIRTUAL_ENV', 'LD_LIBRARY_PATH'}
    variables = {k: v for k, v in os.environ.items() if k not in left_out} | environment
    output = subprocess.PIPE if log is None else log.open('w', encoding='utf-8')
    process = subprocess.Popen(  # noqa: S603 - our own commands
        [*command],
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=limit)
        return process.returncode, printed or ''
    except subprocess.TimeoutExpired:
        return None, ''
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        if log is not None:
            output.close()
