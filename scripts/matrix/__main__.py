"""`make matrix`: our tests on every Python found and on the wheels of two ROS distributions.

Results go to docs/results/matrix.json and from there into docs/matrix.md. What is tested is the
last commit; environments stay in .venv-matrix/ and are made anew when a version changes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pathlib
import sys
import time
from typing import Any

import cells
from cells import Cell
import environment
from environment import CellError, HOME, ROOT, TREE
import interpreters
import report

RESULTS = ROOT / 'docs' / 'results' / 'matrix.json'
PAGE = ROOT / 'docs' / 'matrix.md'
COMMAND = 'make matrix'
IMPORT = """
import importlib, pkgutil
for name in {modules!r}:
    importlib.import_module('faster_core.' + name)
for room in {rooms!r}:
    package = importlib.import_module('faster_core.' + room)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
        importlib.import_module(module.name)
"""


def not_run(cell: Cell, why: str) -> dict[str, Any]:
    """Return the result of a cell that was not run."""
    return {'python': cell.python, 'column': cell.column, 'status': 'not run', 'why': why}


def why_impossible(cell: Cell, interpreter: interpreters.Interpreter | None) -> str | None:
    """Return why a cell cannot be run on this machine; None: it can."""
    if interpreter is None:
        return 'not found on this machine'
    needed = {'ensurepip', 'venv'} | ({'Python.h'} if cell.ros else set())
    missing = sorted(needed & set(interpreter.missing))
    return f'this Python lacks {", ".join(missing)}' if missing else None


def run_tests(cell: Cell, limit: float) -> dict[str, Any]:
    """Run a cell's tests in its environment and return what came out.

    Raises:
        CellError: a module that needs no torch cannot be imported, or pytest wrote no report.
    """
    python, junit = str(environment.python_of(cell)), HOME / f'{cell.name}.xml'
    started = time.perf_counter()
    if not cell.torch:
        code = IMPORT.format(modules=cells.TORCHLESS_MODULES, rooms=cells.TORCHLESS_ROOMS)
        environment.run([python, '-c', code], 'import without torch', limit=100, cwd=TREE)
    junit.unlink(missing_ok=True)
    status, _ = environment.run_bounded(
        [python, '-m', 'pytest', *cells.pytest_arguments(cell, TREE), f'--junitxml={junit}'],
        limit=limit,
        cwd=TREE,
        log=HOME / f'{cell.name}.log',
        PYTHONPATH=str(pathlib.Path(__file__).parent),
        COLUMNS='100',
    )
    seconds = round(time.perf_counter() - started, 1)
    log = f'.venv-matrix/{cell.name}.log'
    if status is None:
        raise CellError(f'tests: longer than {limit:.0f} s; {log}')
    if not junit.exists():
        raise CellError(f'tests: exit status {status} and no report; {log}')
    result = cells.outcome(junit.read_text(encoding='utf-8'))
    good = status == 0 and result['failed'] == 0 and result['passed'] > 0
    why = '' if good else f'pytest ended with {status}; {log}'
    return {'status': 'passed' if good else 'failed', 'why': why, **result, 'seconds': seconds}


def run_cell(cell: Cell, commit: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a cell; a step that fails is a failed cell, not an error of ours."""
    interpreter = interpreters.find(cell.python)
    why = why_impossible(cell, interpreter)
    if why:
        return not_run(cell, why)
    result = {'python': cell.python, 'column': cell.column, 'found': interpreter.found}
    result |= {
        'torch': cell.torch,
        'whole': cell.whole,
        'commit': commit,
        'command': f'{COMMAND} ARGS={cell.name}',
    }
    try:
        started = time.perf_counter()
        environment.prepare(cell, interpreter.path)
        result['setup_seconds'] = round(time.perf_counter() - started, 1)
        if args.prepare:
            return result | not_run(cell, 'only prepared')
        return result | run_tests(cell, args.limit) | {'packages': environment.versions(cell)}
    except CellError as e:
        why = str(e).replace(str(ROOT), '.')
        return result | {'status': 'failed', 'why': why}


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument('cells', nargs='*', help='e.g. 3.12-jazzy; default: all')
    parser.add_argument('--main', default='{}.{}'.format(*sys.version_info[:2]), metavar='3.X')
    parser.add_argument('--limit', type=float, default=900.0, help='s for the tests of a cell')
    parser.add_argument('--prepare', action='store_true', help='make environments, test nothing')
    return parser.parse_args()


def main() -> int:
    """Run the cells asked for; 1 if one failed, 2 if there is no such cell or another run."""
    args = arguments()
    grid = cells.grid(args.main)
    unknown = sorted(set(args.cells) - {cell.name for cell in grid})
    if unknown:
        print(f'no cell {unknown}; expected {[cell.name for cell in grid]}', file=sys.stderr)
        return 2
    HOME.mkdir(exist_ok=True)
    with (HOME / 'lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('another make matrix is running here', file=sys.stderr)
            return 2
        return run_all([c for c in grid if not args.cells or c.name in args.cells], args)


def run_all(chosen: list[Cell], args: argparse.Namespace) -> int:
    """Run cells one after the other (the tests are sensitive to time); 1 if one failed."""
    commit, results = environment.snapshot(), []
    for cell in chosen:
        results.append(run_cell(cell, commit, args))
        print(f'{cell.name}: {report.line(results[-1])}', flush=True)
        if not args.prepare:
            save(results[-1:])
    return 1 if any(r['status'] == 'failed' for r in results) else 0


def save(results: list[dict[str, Any]]) -> None:
    """Write the results, those of other cells kept or not run, and the table of the page."""
    old = json.loads(RESULTS.read_text(encoding='utf-8'))['cells'] if RESULTS.exists() else []
    blank = [not_run(cell, 'not asked for yet') for cell in cells.grid('')]
    results = report.merged([*blank, *old], results)
    content = {'command': COMMAND, 'cores': os.cpu_count(), 'cells': results}
    RESULTS.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    PAGE.write_text(report.filled(PAGE.read_text(encoding='utf-8'), results), encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
