"""`make test`: who runs which module, and that the process without graphs waits for the others."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
# Each test notes its module, its process, how that is scheduled, and what a graph would find.
MODULE = """
import json, os, time
import pytest
@pytest.mark.{marker}
@pytest.mark.parametrize('number', range({count}))
def test_where(number):
    time.sleep(0.02)
    who = [{name!r}, os.getpid(), os.sched_getscheduler(0), os.getenv('RMW_IMPLEMENTATION')]
    with open({notes!r}, 'a') as notes:
        notes.write(json.dumps(who) + '\\n')
"""
COUNT = 6  # tests per module, of which there are as many


def _run(folder, with_graphs, *arguments):
    """Run modules 0 to 5, those of `with_graphs` marked; return what the tests noted, in order."""
    notes = folder / 'notes.jsonl'
    for number in range(COUNT):
        name = f'test_{number}.py'
        marker = 'ros' if number in with_graphs else 'other'
        module = MODULE.format(marker=marker, count=COUNT, name=name, notes=str(notes))
        (folder / name).write_text(module)
    (folder / 'pytest.ini').write_text('[pytest]\nmarkers =\n  ros\n  other\n')
    environment = {k: v for k, v in os.environ.items() if not k.startswith('PYTEST_')}
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'workers', '-p', 'no:cacheprovider', *arguments],
        cwd=folder,
        env=environment | {'PYTHONPATH': str(HERE), 'RMW_IMPLEMENTATION': 'ours'},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    noted = [json.loads(line) for line in notes.read_text().splitlines()]
    assert len(noted) == COUNT * COUNT
    return noted


def test_modules_with_graphs_run_in_one_process_and_the_others_in_idle_time(tmp_path):
    pytest.importorskip('xdist')
    noted = _run(tmp_path, {1, 4}, '--numprocesses', '2')
    graphs = [line for line in noted if line[0] in ('test_1.py', 'test_4.py')]
    (process,) = {process for _, process, _, _ in graphs}
    assert {tuple(line[2:]) for line in graphs} == {(os.sched_getscheduler(0), 'ours')}
    assert [line for line in noted if line[1] == process][: len(graphs)] == graphs, 'graphs first'
    others = [line for line in noted if line[1] != process]
    assert others
    assert {tuple(line[2:]) for line in others} == {(os.SCHED_IDLE, 'rmw_for_tests_marked_ros')}


def test_one_process_runs_them_in_their_order_and_is_left_as_it_is(tmp_path):
    noted = _run(tmp_path, {1, 4})
    assert [name for name, *_ in noted] == sorted(name for name, *_ in noted)
    assert {tuple(line[2:]) for line in noted} == {(os.sched_getscheduler(0), 'ours')}
