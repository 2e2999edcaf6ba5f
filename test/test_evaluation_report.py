"""What episodes add up to: summaries, records on disk, pairs of two runs, the report."""

import dataclasses
import json
import types

import pytest

from faster_core.chunk import StageTiming
from faster_core.errors import ConfigError
from faster_core.evaluation import run
from faster_core.evaluation.closed_loop import EpisodeResult
from faster_core.evaluation.records import EpisodeRecord, paired, read_records, record_writer
from faster_core.evaluation.report import build_report, to_json, to_table
from faster_core.evaluation.statistics import wilson_interval


def result(task, success, **fields):
    timing = StageTiming(decode_block_ms=(10.0, 20.0), total_ms=80.0)
    values = {
        'seed': 1,
        'task': task,
        'success': success,
        'original_success': False,
        'seconds': 4.0 if success else 15.0,
        'num_chunks': 3,
        'rejected': (),
        'timings': (timing,) * 3,
    }
    return EpisodeResult(**(values | fields))


def test_summary_adds_up_per_instruction():
    results = [
        result('pick_red', True),
        result('pick_red', False, rejected=('too_old', 'too_old')),
        result('drive_yellow', True, seconds=6.0),
        result('drive_yellow', True, seconds=8.0),
    ]
    summary = run.summarize(results)
    assert summary['episodes'] == 4
    assert summary['success_rate'] == 0.75
    assert summary['wilson'] == pytest.approx(wilson_interval(3, 4), abs=1e-4)
    red = summary['per_instruction']['pick up the red block']
    assert (red['episodes'], red['success_rate'], red['mean_seconds']) == (2, 0.5, 4.0)
    yellow = summary['per_instruction']['drive to the yellow post']
    assert yellow['mean_seconds'] == 7.0
    assert summary['chunks'] == 12
    assert summary['rejected_chunks'] == {'too_old': 2}
    assert summary['latency_ms']['p99'] == 80.0


def test_mean_time_is_of_successes_only_and_none_without_any():
    assert run.rates([result('pick_red', False)])['mean_seconds'] is None


def test_swapped_summary_tells_given_from_original():
    results = [
        result('pick_blue', True),
        result('pick_blue', False, original_success=True),
        result('pick_blue', False),
        result('pick_blue', False),
    ]
    summary = run.summarize_swapped(results)
    assert (summary['given_rate'], summary['original_rate'], summary['episodes']) == (
        0.25,
        0.25,
        4,
    )
    assert summary['original_wilson'] == pytest.approx(wilson_interval(1, 4), abs=1e-4)


# --- records and pairs ---------------------------------------------------------------------------


def record(seed, success, *, task='pick_red', who='policy', via_ros=False):
    return EpisodeRecord(
        seed=seed, task=task, success=success, seconds=1.5, chunks=9, who=who, via_ros=via_ros
    )


def test_records_come_back_as_they_were_written_and_are_on_disk_at_once(tmp_path):
    path = tmp_path / 'episodes.jsonl'
    with record_writer(path) as write:
        write(record(1, True))
        assert read_records(path) == [record(1, True)]
        write(record(2, False, who='swapped'))
    assert read_records(path) == [record(1, True), record(2, False, who='swapped')]
    assert set(json.loads(path.read_text().splitlines()[0])) == {
        'seed', 'task', 'success', 'seconds', 'chunks', 'who', 'via_ros',
    }  # fmt: skip


@pytest.mark.parametrize('line', ['{"seed": 1}', 'no json', '[]', '{"seed": 1, "more": 2}'])
def test_a_line_that_is_no_record_is_refused_with_its_number(tmp_path, line):
    path = tmp_path / 'episodes.jsonl'
    with record_writer(path) as write:
        write(record(1, True))
    path.write_text(path.read_text() + line + '\n')
    with pytest.raises(ConfigError, match=r'episodes\.jsonl:2'):
        read_records(path)


def test_the_folder_of_the_records_is_created(tmp_path):
    path = tmp_path / 'deep' / 'er' / 'episodes.jsonl'
    with record_writer(path) as write:
        write(record(1, True))
    assert read_records(path) == [record(1, True)]


def test_records_cannot_be_written_below_a_file(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='cannot write'), record_writer(tmp_path / 'file' / 'x'):
        pass


def test_pairs_have_the_same_seed_and_task_and_are_of_the_policy():
    here = [
        record(1, True),
        record(2, True),
        record(3, False),
        record(4, True),
        record(5, True, who='swapped'),
        record(6, True),
    ]
    there = [
        record(1, True, via_ros=True),
        record(2, False, via_ros=True),
        record(3, True, via_ros=True),
        record(4, False, via_ros=True),
        record(5, False, via_ros=True),
        record(6, False, via_ros=True, task='pick_blue'),
    ]
    assert paired(here, there) == {
        'pairs': 4,
        'difference': 0.25,
        'only_here': 2,
        'only_there': 1,
        'mcnemar_p': 1.0,
    }
    assert paired(there, here)['difference'] == -0.25


def test_files_without_a_common_episode_have_no_difference():
    assert paired([record(1, True)], [record(2, True)])['difference'] is None


# --- report --------------------------------------------------------------------------------------


def ros_result(task, success, **fields):
    own = result(task, success)
    values = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    values |= {
        'real_time_factor': 1.0,
        'first_command_ms': (20.0, 30.0),
        'observation_age_ms': (5.0,),
        'flush_ms': None,
    }
    return types.SimpleNamespace(**(values | fields))


def report(results, **fields):
    values = {'robot': 'r1_lite', 'seeds': range(7, 9), 'via_ros': False, 'checkpoint_sha': 'ab'}
    return build_report(results, **(values | fields))


def test_report_has_every_key_whatever_was_run():
    full = report(
        {
            'policy': [result('pick_red', True)],
            'swapped': [result('pick_blue', False)],
            'other_images': [result('pick_red', False)],
            'zero_action': [result('pick_red', False)],
        },
        real_seconds=2.0,
    )
    nothing = report({'mean_trajectory': [result('pick_red', False)]})
    assert full.keys() == nothing.keys()
    assert full['seeds'] == [7, 8]
    assert full['swapped']['given_rate'] == 0.0
    assert full['baselines'].keys() == {'zero_action'}
    assert full['simulated_per_real_second'] == 2.0
    assert full['rtf'] is None
    assert nothing['success_rate'] is None
    assert nothing['swapped'] is None


def test_report_through_ros_has_mean_and_lowest_real_time_factor_and_the_wire_times():
    results = {
        'policy': [
            ros_result('pick_red', True),
            ros_result('pick_red', True, real_time_factor=0.9),
        ],
        'changed': [
            ros_result('pick_red', True, flush_ms=40.0),
            ros_result('pick_red', False),
        ],
    }
    found = report(results, via_ros=True)
    assert (found['rtf'], found['rtf_min']) == (0.95, 0.9)
    assert found['first_command_ms']['p50'] == 25.0
    assert found['first_command_ms']['chunks'] == 4
    assert found['observation_age_ms']['p99'] == 5.0
    assert found['changed']['episodes'] == 2
    assert found['changed']['success_rate'] == 0.5
    assert found['changed']['flushes'] == 1
    assert found['changed']['flush_ms']['p50'] == 40.0
    assert found['simulated_per_real_second'] is None


def test_json_never_holds_nan_or_infinity():
    odd = ros_result(
        'pick_red', True, real_time_factor=float('nan'), first_command_ms=(float('nan'),)
    )
    line = to_json(report({'policy': [odd]}, via_ros=True))
    values = json.loads(line, parse_constant=pytest.fail)
    assert values['rtf'] is None
    assert '\n' not in line


def test_table_names_every_instruction_and_what_is_missing():
    results = {
        'policy': [result('pick_red', True), result('drive_yellow', False)],
        'zero_action': [result('pick_red', False)],
    }
    text = to_table(report(results, error='a process ended'))
    red = next(line for line in text.splitlines() if 'pick up the red block' in line)
    assert '1 of 1' in red
    assert '100 %' in red
    assert 'drive to the yellow post' in text
    assert 'baseline zero action' in text
    assert 'INCOMPLETE: a process ended' in text
