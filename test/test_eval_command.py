"""`faster-vla eval`: options, exit status, JSON line, file of episodes; with and without ROS."""

import inspect
import json
import sys
import types

import pytest
from tiny_checkpoint import make_tiny_checkpoint

from faster_core.chunk import StageTiming
from faster_core.evaluation import run
from faster_core.evaluation.closed_loop import EpisodeResult
from faster_core.evaluation.records import read_records
from faster_core.policy.checkpoint import checkpoint_sha256
from faster_core.sim.tasks import TASKS
from faster_vla_ros import cli

KEYS = {
    'robot', 'episodes', 'seeds', 'via_ros', 'success_rate', 'wilson', 'per_instruction',
    'swapped', 'other_images', 'baselines', 'changed', 'chunks', 'latency_ms', 'stages_ms', 'rtf',
    'rtf_min', 'first_command_ms', 'observation_age_ms', 'paired', 'checkpoint_sha', 'git_sha',
    'machine', 'error',
}  # fmt: skip

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'tiny')


def evaluate(*options):
    return cli.main(['eval', 'r1lite_wbc', *map(str, options)])


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)


def refused(capsys, *options):
    """Return what a refused command says; it must say it in one line, without a traceback."""
    try:
        status = evaluate(*options)
    except SystemExit as e:  # argparse
        status = e.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ''
    assert 'Traceback' not in captured.err
    return captured.err


@pytest.fixture
def episodes(monkeypatch):
    """Replace episodes by results: successful unless their (seed, task) is in the returned set."""
    failures, calls = set(), []

    def run_jobs(todo, checkpoint, **options):
        calls.append(types.SimpleNamespace(todo=todo, **options))
        for job in todo:
            yield EpisodeResult(
                seed=job.seed,
                task=job.task,
                success=job.who == 'policy' and (job.seed, job.task) not in failures,
                original_success=False,
                seconds=5.0,
                num_chunks=2,
                rejected=(),
                timings=(StageTiming(total_ms=50.0, decode_block_ms=(4.0, 5.0)),) * 2,
            )

    monkeypatch.setattr('faster_core.evaluation.run.run_jobs', run_jobs)
    return types.SimpleNamespace(failures=failures, calls=calls)


# --- without ROS ------------------------------------------------------------------------------


def test_real_episodes_end_in_one_json_line_and_a_file_of_records(checkpoint, capsys, tmp_path):
    out = tmp_path / 'episodes.jsonl'
    status = evaluate(
        '--tasks', 'drive_yellow', '--episodes', 1, '--seed', 9800, '--workers', 1,
        '--time-limit', 0.6, '--checkpoint', checkpoint, '--out', out, '--json',
    )  # fmt: skip
    assert status == 0
    captured = capsys.readouterr()
    assert captured.out.count('\n') == 1
    report = json.loads(captured.out, parse_constant=pytest.fail)
    assert KEYS <= report.keys()
    assert (report['robot'], report['episodes'], report['seeds']) == ('r1_lite', 1, [9800])
    assert report['success_rate'] == 0.0
    assert report['chunks'] >= 2
    assert 0 < report['latency_ms']['p50'] <= report['latency_ms']['p99']
    assert report['stages_ms']['decode_block_ms']['p50'] > 0
    assert report['per_instruction'].keys() == {TASKS['drive_yellow'].instruction}
    assert report['swapped']['episodes'] == report['other_images']['episodes'] == 1
    assert report['baselines'].keys() == {'zero_action', 'mean_trajectory'}
    assert report['checkpoint_sha'] == checkpoint_sha256(checkpoint)
    assert report['machine'].keys() == {'cpu', 'cores', 'torch'}
    assert [r.who for r in read_records(out)] == [
        'policy', 'swapped', 'other_images', 'zero_action', 'mean_trajectory',
    ]  # fmt: skip
    assert 'episode' in captured.err  # the progress bar


def test_episodes_are_counted_per_instruction_and_all_tasks_are_the_default(
    checkpoint, episodes, capsys
):
    assert evaluate('--episodes', 3, '--only', 'policy', '--checkpoint', checkpoint, '--json') == 0
    report = last_line(capsys)
    assert report['episodes'] == 3 * len(TASKS)
    assert report['seeds'] == [10000, 10001, 10002]
    assert all(row['episodes'] == 3 for row in report['per_instruction'].values())
    assert len(report['per_instruction']) == len(TASKS)
    assert report['swapped'] is report['baselines'] is report['other_images'] is None
    assert [call.todo[0].who for call in episodes.calls] == ['policy']


def test_latency_time_limit_and_workers_reach_the_episodes(checkpoint, episodes, capsys):
    evaluate(
        '--latency', 0.05, '--time-limit', 7, '--workers', 3, '--episodes', 1, '--only', 'policy',
        '--checkpoint', checkpoint,
    )  # fmt: skip
    call = episodes.calls[0]
    assert (call.settings.latency, call.settings.time_limit, call.workers) == (0.05, 7.0, 3)
    assert call.policy_options == {}


def test_engine_and_precision_reach_the_policy_and_the_report(checkpoint, capsys):
    status = evaluate(
        '--tasks', 'drive_yellow', '--episodes', 1, '--workers', 1, '--time-limit', 0.4,
        '--only', 'policy', '--engine', 'eager', '--dtype', 'bfloat16',
        '--checkpoint', checkpoint, '--json',
    )  # fmt: skip
    assert status == 0
    report = last_line(capsys)
    assert (report['engine'], report['dtype']) == ('eager', 'bfloat16')
    assert report['chunks'] > 0


def test_a_precision_that_is_not_known_is_refused(checkpoint, capsys):
    options = ('--episodes', 1, '--workers', 1, '--only', 'policy', '--checkpoint', checkpoint)
    assert "found 'float7'" in refused(capsys, *options, '--dtype', 'float7')


def test_people_get_a_table_instead_of_json(checkpoint, episodes, capsys):
    assert evaluate('--episodes', 2, '--tasks', 'pick_red', '--checkpoint', checkpoint) == 0
    out = capsys.readouterr().out
    assert '2 of 2' in out
    assert 'pick up the red block' in out
    assert '{' not in out


@pytest.mark.parametrize(('limit', 'status'), [(0.5, 0), (0.51, 1)])
def test_min_success_decides_the_exit_status(checkpoint, episodes, capsys, limit, status):
    episodes.failures.add((10001, 'pick_red'))
    found = evaluate(
        '--tasks', 'pick_red', '--episodes', 2, '--only', 'policy', '--min-success', limit,
        '--checkpoint', checkpoint, '--json',
    )  # fmt: skip
    assert found == status
    assert last_line(capsys)['success_rate'] == 0.5


def test_two_files_are_paired_episode_by_episode(checkpoint, episodes, capsys, tmp_path):
    options = (
        '--tasks', 'pick_red,pick_blue', '--episodes', 2, '--checkpoint', checkpoint, '--json',
    )  # fmt: skip
    first = tmp_path / 'first.jsonl'
    episodes.failures.add((10001, 'pick_red'))
    evaluate(*options, '--out', first)
    capsys.readouterr()
    episodes.failures.clear()
    assert evaluate(*options, '--only', 'policy', '--paired', first) == 0
    paired = last_line(capsys)['paired']
    assert (paired['pairs'], paired['difference']) == (4, 0.25)
    assert (paired['only_here'], paired['only_there']) == (1, 0)


def test_episodes_that_could_not_be_run_fail_and_keep_what_was_done(
    checkpoint, capsys, monkeypatch, episodes, tmp_path
):
    complete = run.run_jobs

    def breaks(todo, checkpoint, **options):
        yield next(complete(todo, checkpoint, **options))
        raise run.WorkerError('a process that ran episodes ended')

    monkeypatch.setattr('faster_core.evaluation.run.run_jobs', breaks)
    out = tmp_path / 'episodes.jsonl'
    status = evaluate(
        '--tasks', 'pick_red', '--episodes', 4, '--only', 'policy', '--checkpoint', checkpoint,
        '--out', out, '--json',
    )  # fmt: skip
    assert status == 1
    report = last_line(capsys)
    assert report['episodes'] == 1
    assert '1 of 4 episodes' in report['error']
    assert len(read_records(out)) == 1


def test_baselines_alone_need_no_checkpoint(episodes, capsys, tmp_path):
    options = ('--only', 'baselines', '--episodes', 1, '--checkpoint', tmp_path / 'none', '--json')
    assert evaluate(*options) == 0
    report = last_line(capsys)
    assert report['checkpoint_sha'] is report['success_rate'] is None
    assert report['baselines']['zero_action']['success_rate'] == 0.0


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--episodes', 0), 'expected a whole number > 0'),
        (('--seed', -1), 'expected a whole number >= 0'),
        (('--latency', 'nan'), 'expected seconds >= 0'),
        (('--time-limit', 0), 'expected seconds > 0'),
        (('--min-success', 1.5), 'expected a number from 0 to 1'),
        (('--only', 'luck'), 'invalid choice'),
        (('--tasks', 'pick_red,fly'), 'unknown fly; known: pick_red'),
        (('--tasks', 'pick_red,pick_red'), 'named twice'),
        (('--swap-during-motion', 3), 'needs --ros'),
        (('--only', 'swapped', '--min-success', 0.5), 'add --only policy'),
        (('--ros', '--latency', 0.1), 'without ROS'),
        (('--ros', '--workers', 2), 'without ROS'),
        (('--ros', '--engine', 'eager'), 'without ROS'),
        (('--ros', '--dtype', 'bfloat16'), 'without ROS'),
        (('--ros', '--only', 'baselines'), 'without ROS'),
    ],
)
def test_options_that_make_no_sense_are_refused(capsys, options, message):
    assert message in refused(capsys, *options)


def test_an_unknown_graph_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as ending:
        cli.main(['eval', 'r2d2'])
    assert ending.value.code == 2
    assert 'r1lite_wbc' in capsys.readouterr().err


@pytest.mark.parametrize('ros', [(), ('--ros',)])
def test_a_missing_checkpoint_is_refused_before_anything_starts(capsys, tmp_path, episodes, ros):
    missing = tmp_path / 'none'
    message = refused(capsys, '--checkpoint', missing, *ros)
    assert str(missing) in message
    assert 'make train-demo' in message
    assert not episodes.calls


def test_files_are_checked_before_anything_starts(checkpoint, capsys, tmp_path, episodes):
    here = ('--checkpoint', checkpoint)
    same = tmp_path / 'same.jsonl'
    same.touch()
    assert 'cannot write' in refused(capsys, *here, '--out', same / 'x.jsonl')
    assert 'cannot read' in refused(capsys, *here, '--paired', tmp_path / 'none.jsonl')
    assert 'would replace' in refused(capsys, *here, '--paired', same, '--out', same)
    assert not episodes.calls


# --- through ROS ------------------------------------------------------------------------------


@pytest.fixture
def graph(monkeypatch):
    """Replace the graph: every job succeeds at once; returns what was asked of it."""
    from faster_vla_ros.episodes import RosEpisode
    from faster_vla_ros.episodes import run_ros_episodes as real

    asked = types.SimpleNamespace(jobs=[], options={}, ends_after=None)

    def run_ros_episodes(jobs, checkpoint, *, on_result, **options):
        from faster_vla_ros.session import SessionError

        inspect.signature(real).bind(jobs, checkpoint, on_result=on_result, **options)
        asked.options = options | {'checkpoint': checkpoint}
        for job in jobs:
            if len(asked.jobs) == asked.ends_after:
                raise SessionError('policy_node does not answer')
            asked.jobs.append(job)
            on_result(
                RosEpisode(
                    seed=job.seed,
                    task=job.task,
                    instruction=TASKS[job.task].instruction,
                    success=True,
                    seconds=4.0,
                    num_chunks=3,
                    rejected=(),
                    timings=(StageTiming(total_ms=90.0, decode_block_ms=(9.0,)),) * 3,
                    observation_age_ms=(6.0, 8.0),
                    first_command_ms=(25.0, 35.0),
                    rows_executed=(2, 2),
                    real_time_factor=0.98 if job.first_instruction else 1.0,
                    flush_ms=30.0 if job.first_instruction else None,
                )
            )

    monkeypatch.setattr('faster_vla_ros.episodes.run_ros_episodes', run_ros_episodes)
    return asked


@pytest.mark.ros
def test_two_episodes_through_ros_as_the_check_runs_them(graph, checkpoint, capsys, tmp_path):
    out = tmp_path / 'ros.jsonl'
    status = evaluate(
        '--ros', '--tasks', 'pick_red', '--episodes', 2, '--seed', 9000, '--json',
        '--checkpoint', checkpoint, '--out', out,
    )  # fmt: skip
    assert status == 0
    report = last_line(capsys)
    assert KEYS <= report.keys()
    assert [(j.seed, j.task) for j in graph.jobs] == [(9000, 'pick_red'), (9001, 'pick_red')]
    assert graph.options['checkpoint'] == str(checkpoint)
    assert graph.options['graph'] == 'r1lite_wbc'
    assert report['via_ros'] is True
    assert (report['episodes'], report['success_rate'], report['rtf']) == (2, 1.0, 1.0)
    assert report['first_command_ms']['p50'] == 30.0
    assert report['observation_age_ms']['p50'] == 7.0
    assert report['swapped'] is report['baselines'] is report['changed'] is None
    assert all(r.via_ros for r in read_records(out))


@pytest.mark.ros
def test_instructions_changed_in_mid_motion_are_reported_apart(graph, checkpoint, capsys):
    status = evaluate(
        '--ros', '--tasks', 'pick_red,drive_purple', '--episodes', 1, '--swap-during-motion', 3,
        '--checkpoint', checkpoint, '--json',
    )  # fmt: skip
    assert status == 0
    report = last_line(capsys)
    changed = [j for j in graph.jobs if j.first_instruction]
    assert len(changed) == 3
    assert all(j.swap_after == 1.5 for j in changed)
    assert all(j.first_instruction != TASKS[j.task].instruction for j in changed)
    assert report['episodes'] == 2  # the plain ones
    assert report['changed']['episodes'] == 3
    assert report['changed']['flush_ms']['p99'] == 30.0
    assert report['rtf_min'] == 1.0  # of the plain ones


@pytest.mark.ros
@pytest.mark.parametrize(('ends_after', 'status'), [(1, 1), (0, 2)])
def test_a_graph_that_ends_makes_the_command_fail(graph, checkpoint, capsys, ends_after, status):
    graph.ends_after = ends_after
    found = evaluate(
        '--ros', '--tasks', 'pick_red', '--episodes', 2, '--checkpoint', checkpoint, '--json'
    )
    assert found == status
    captured = capsys.readouterr()
    assert 'does not answer' in captured.err
    assert 'Traceback' not in captured.err


def test_without_ros_nothing_of_ros_is_needed(checkpoint, episodes, capsys, monkeypatch):
    for name in ('rclpy', 'faster_vla_ros.episodes', 'faster_vla_ros.session'):
        monkeypatch.setitem(sys.modules, name, None)
    assert evaluate('--episodes', 1, '--only', 'policy', '--checkpoint', checkpoint) == 0
