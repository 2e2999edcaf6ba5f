"""scripts/bench_gpu.sh: nine minutes at most, and one part that fails loses no other."""

import re
import subprocess

from project_files import ROOT
import pytest

SCRIPT = ROOT / 'scripts' / 'bench_gpu.sh'
PARTS = ['paper_single', 'paper_whole_body', 'agreement', 'compile']

# In place of Python: notes what it is asked for, writes what `--out` names, and fails if told to.
PYTHON = """#!/bin/bash
[ "$1" = -c ] && exit 1  # no matplotlib
echo "$*" >> "$NOTES"
while [ $# -gt 0 ]; do
    [ "$1" = --out ] && out="$2"
    shift
done
if [[ "$out" =~ $FAILING ]]; then echo "why it failed"; exit 3; fi
[ -d "$(dirname "$out")" ] && echo '{}' > "$out"
"""
# In place of timeout: notes the limit.
TIMEOUT = """#!/bin/bash
[ "$1" = --kill-after ] && { kill_after="$2"; shift 2; }
echo "$1 $kill_after" >> "$LIMITS"
shift
exec "$@"
"""


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Return a function: (pattern of --out that fails) -> result, notes, limits in seconds."""

    def run(failing='nothing', **environment):
        for name, text in {'python': PYTHON, 'timeout': TIMEOUT}.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        for name in ('NOTES', 'LIMITS'):
            monkeypatch.setenv(name, str(tmp_path / name))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv('FAILING', failing)
        monkeypatch.setenv('PYTHON', str(tmp_path / 'python'))
        monkeypatch.setenv('OUT', str(tmp_path / 'out'))
        monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
        done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=60)
        notes = (tmp_path / 'NOTES').read_text().splitlines()
        limits = [line.split() for line in (tmp_path / 'LIMITS').read_text().splitlines()]
        return done, notes, [tuple(map(int, pair)) for pair in limits]

    return run


def _written(tmp_path):
    return sorted(path.stem for path in (tmp_path / 'out').glob('*.json'))


def test_every_part_runs_with_a_file_of_its_own(measure, tmp_path):
    done, notes, _ = measure(EPISODES='episodes')
    assert done.returncode == 0, done.stderr
    assert _written(tmp_path) == sorted(PARTS)
    assert len(notes) == len(PARTS)
    assert all('--device cuda' in line for line in notes)


@pytest.mark.parametrize('episodes', ['', 'episodes'])
def test_all_parts_together_take_nine_minutes_at_most(measure, episodes):
    _, notes, limits = measure(EPISODES=episodes)
    if not episodes:  # they are recorded in the time of what looks at them
        assert limits.pop(2)[0] < limits[2][0]
    assert sum(limit + kill_after for limit, kill_after in limits) <= 9 * 60
    for line, (limit, _) in zip((n for n in notes if ' bench ' in n), limits, strict=True):
        assert int(re.search(r'--seconds (\d+)', line)[1]) < limit


@pytest.mark.parametrize('failing', PARTS)
def test_a_part_that_fails_is_named_at_the_end_and_the_others_run(measure, tmp_path, failing):
    done, _, _ = measure(f'/{failing}.json', EPISODES='episodes')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f'failed: {failing}'
    assert 'why it failed' in done.stderr
    assert _written(tmp_path) == sorted(set(PARTS) - {failing})


def test_the_comparison_gets_the_episodes_it_was_given(measure):
    _, notes, _ = measure(EPISODES='brought/along')
    (line,) = (line for line in notes if ' agreement ' in line)
    assert '--episodes brought/along --iterations 1000' in line


def test_without_episodes_they_are_recorded_first(measure, tmp_path):
    done, notes, _ = measure(EPISODES='')
    assert done.returncode == 0
    places = [i for i, line in enumerate(notes) if 'demos collect' in line]
    assert len(places) == 1
    assert f'--out {tmp_path}/out/episodes' in notes[places[0]]
    assert f'--episodes {tmp_path}/out/episodes' in notes[places[0] + 1]
    assert re.search(r'pick_red: \d', (tmp_path / 'out' / 'episodes.yaml').read_text())


def test_every_engine_of_a_gpu_and_every_head_is_measured(measure):
    from faster_core.evaluation.speed.run import HEADS
    from faster_core.policy.engines import ENGINES

    _, notes, _ = measure(EPISODES='episodes')
    single = [line for line in notes if '--preset paper_single' in line]
    asked = {name for line in single for name in re.search(r'--engines (\S+)', line)[1].split(',')}
    assert asked == set(ENGINES) - {'openvino'}
    # A graph runs all heads: no choice is made for it.
    assert '--heads' not in single[0] and '--only cuda_graph' not in single[0]
    body = [line for line in notes if '--preset paper_whole_body' in line]
    assert len(body) == 1 and '--heads' not in body[0]
    assert HEADS == ('block', 'token', 'fast', 'bins', 'flow')


def test_what_the_script_asks_for_is_what_the_command_takes(measure):
    import argparse

    from faster_core.cli import bench

    _, notes, _ = measure(EPISODES='episodes')
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    for line in notes:
        args = parser.parse_args(line.split()[2:])
        assert args.what in ('policy', 'agreement') and args.out


def test_its_own_episodes_are_a_collection_that_is_allowed_and_long_enough(measure, tmp_path):
    import yaml

    from faster_core.config import from_mapping
    from faster_core.sim.demos import DemoConfig

    measure(EPISODES='')
    text = (tmp_path / 'out' / 'episodes.yaml').read_text()
    config = from_mapping(DemoConfig, yaml.safe_load(text), source='the script')
    # An episode has some ninety observations; more than half of each is not needed.
    assert sum(config.episodes.values()) >= 1000 / 45
