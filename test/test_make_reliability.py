"""`make reliability`: every measurement runs, and what missed its target is named at the end."""

import shutil
import subprocess
import sys

from project_files import ROOT
import pytest

sys.path.insert(0, str(ROOT))

from scripts.reliability.tables import _commit

# In place of Python: notes what it is asked for and misses some targets.
PYTHON = """#!/bin/bash
echo "$*" >> "$NOTES"
[[ ! "$*" =~ $MISSING ]]
"""
NAMES = ('motion_quality', 'fuzz', 'fuzz_dds', 'failures', 'overhead', 'jitter', 'soak')


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Return a function: (pattern of what misses, whether priorities are allowed) -> result."""
    if shutil.which('make') is None:
        pytest.skip('needs make')

    def run(missing='', *, priorities=True):
        for name, text in {
            'python': PYTHON,
            'chrt': f'#!/bin/bash\nexit {int(not priorities)}\n',
        }.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv('NOTES', str(tmp_path / 'notes'))
        monkeypatch.setenv('MISSING', missing or 'nothing')
        monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
        done = subprocess.run(
            ['make', 'reliability', f'BIN={tmp_path}', 'READY=', f'RELIABILITY={tmp_path}'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done, (tmp_path / 'notes').read_text().splitlines()

    return run


def test_every_measurement_runs_and_then_the_documentation(measure):
    done, asked = measure()
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert any(f'scripts.reliability.{name} ' in line for line in asked), name
    assert any('jitter --fifo 5 ' in line for line in asked)
    assert asked[-1] == 'scripts/render_docs.py'


def test_a_missed_target_stops_nothing_and_is_named_at_the_end(measure):
    done, asked = measure('fuzz --json|--fifo')
    assert done.returncode != 0
    assert 'missed or failed: fuzz, jitter --fifo 5' in done.stderr
    assert any('soak' in line for line in asked)
    assert asked[-1] == 'scripts/render_docs.py'


def test_without_the_right_to_real_time_priorities_that_run_is_left_out_and_said(measure):
    done, asked = measure(priorities=False)
    assert done.returncode == 0
    assert not any('--fifo' in line for line in asked)
    assert 'left out: jitter --fifo 5' in done.stdout


def test_changes_that_were_not_committed_stay_visible_beside_the_commit():
    assert _commit('b909cff9b144768df6349ccbe2b7f549a054a9cb+changes') == 'b909cff9b1+changes'
    assert _commit('f24de566cf1a0e338a68b795fdead6631cafb62f') == 'f24de566cf'
