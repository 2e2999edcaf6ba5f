"""`make reliability`: every measurement runs, and what missed its target is named at the end."""

import json
import shutil
import subprocess
import sys

from project_files import ROOT
import pytest

sys.path.insert(0, str(ROOT))

from scripts.reliability import tables
from scripts.reliability.tables import _commit, _jitter_command

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
    for what in (
        'failures --robot aloha ',
        'jitter --fifo 5 ',
        'jitter --rate 200 --fifo 5 ',
        'overhead --state-rate 500 ',
    ):
        assert any(f'scripts.reliability.{what}' in line for line in asked), what
    assert asked[-1] == 'scripts/render_docs.py'


def test_a_missed_target_stops_nothing_and_is_named_at_the_end(measure):
    done, asked = measure('fuzz --json|jitter --fifo')
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


@pytest.mark.parametrize(
    ('run', 'options'),
    [
        (('SCHED_OTHER, nice 0', 'products of matrices', 100.0), '--minutes 10 --rate 100'),
        (('SCHED_FIFO 5', 'products of matrices', 200.0), '--minutes 10 --rate 200 --fifo 5'),
        (('SCHED_OTHER, nice 0', 'nothing', 100.0), '--minutes 10 --rate 100 --idle'),
    ],
)
def test_every_run_of_jitter_names_the_command_that_measures_it_again(run, options):
    fields = dict(zip(('scheduling', 'beside', 'rate'), run, strict=True))
    expected = f'python -m scripts.reliability.jitter {options}'
    assert _jitter_command({'minutes': 10.0, **fields}) == expected


def test_the_table_of_the_overhead_has_the_rates_that_were_measured_and_no_others(
    tmp_path, monkeypatch
):
    shown = json.loads((tables.RESULTS / 'overhead.json').read_text(encoding='utf-8'))
    monkeypatch.setattr(tables, 'RESULTS', tmp_path)
    (tmp_path / 'overhead.json').write_text(json.dumps(shown | {'state_rate': 200.0}))
    assert '| 200 |' in tables.overhead() and 'overhead_500' not in tables.overhead()
    (tmp_path / 'overhead_500.json').write_text(json.dumps(shown | {'state_rate': 500.0}))
    assert '| 500 |' in tables.overhead() and 'overhead_500.json' in tables.overhead()
