"""`faster-vla bench policy`: what it reports, on small sizes."""

import functools
from importlib import metadata
import itertools
import json
import platform
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_checkpoint import tiny_parts
import torch
from torch.utils.flop_counter import FlopCounterMode

from faster_core.errors import ConfigError, DecodeError
from faster_core.evaluation.speed import limits
from faster_core.evaluation.speed import measure as module
from faster_core.evaluation.speed.contestants import demo_contestants, paper_contestants
from faster_core.evaluation.speed.measure import MANY_PASSES_EVERY, measure
from faster_core.evaluation.speed.memory import MemoryGauge, weight_bytes
from faster_core.evaluation.speed.presets import SPEED_PRESETS
from faster_core.evaluation.speed.report import draw, STAGES, table
from faster_core.evaluation.speed.run import compare, HEADS
from faster_core.policy import engines, Policy
from faster_core.policy.engines.plain import StaticEngine

CPU = torch.device('cpu')
measure_peaks = functools.cache(limits.measure_peaks)


@pytest.fixture(scope='module', autouse=True)
def _warm_and_measured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'WARMUP', 1)
        patch.setattr(limits, 'measure_peaks', measure_peaks)
        yield


@pytest.fixture(scope='module')
def single():
    return paper_contestants(
        SPEED_PRESETS['paper_single'], small=True, device=CPU, dtype=torch.float32
    )


@pytest.fixture(scope='module')
def report(single):
    chosen = [c for c in single if c.head != 'bins']
    return measure(
        'test', chosen, ['eager', 'static'], device=CPU, dtype='float32', runs=3, seed=1
    )


def test_the_single_arm_has_the_papers_tokens_and_blocks(single):
    assert [c.key for c in single] == [
        'block@21/7',
        'token@21/1',
        'fast@40/1',
        'bins@140/1',
        'flow@10',
    ]
    assert [c.passes for c in single] == [3, 21, 40, 140, 10]
    assert tuple(c.head for c in single) == HEADS


def test_the_whole_body_has_all_three_groupings():
    body = paper_contestants(
        SPEED_PRESETS['paper_whole_body'], small=True, device=CPU, dtype=torch.float32
    )
    blocks = [c for c in body if c.head == 'block']
    assert [(c.key, c.passes) for c in blocks] == [
        ('block@96/8', 12),
        ('block@126/21', 6),
        ('block@126/7', 18),
    ]
    assert len(body[0].parts.embodiment.cameras) == 3
    assert body[0].parts.model.backbone.tokens_per_image == 256


def test_all_heads_share_one_backbone_and_have_experts_of_one_size(single):
    assert len({id(c.parts.model.backbone) for c in single}) == 1
    shapes = {c.parts.model.expert.config.hidden_size for c in single}
    assert shapes == {128}


def test_the_demo_has_the_shipped_policy_itself():
    made = demo_contestants(_shipped())
    assert made[0].key == 'block@60/10'
    first = Policy.from_pretrained(_shipped(), device='cpu')
    example = first.make_example()
    found = Policy(made[0].parts, device='cpu').predict(example)
    assert np.array_equal(found.codes, first.predict(example).codes)


def _shipped():
    from faster_core import paths

    return str(paths.demo_checkpoint())


def test_the_report_has_every_engine_head_and_stage(report):
    assert set(report['engines']) == {'eager', 'static'}
    for heads in report['engines'].values():
        assert set(heads) == {'block@21/7', 'token@21/1', 'fast@40/1', 'flow@10'}
        for row in heads.values():
            assert 0 < row['total_ms']['p50'] <= row['total_ms']['p95'] <= row['total_ms']['p99']
            assert {f'{stage}_ms' for stage in STAGES} <= set(row['stages_ms'])
            parts = sum(row['stages_ms'][f'{stage}_ms']['p50'] for stage in STAGES)
            assert parts == pytest.approx(row['total_ms']['p50'], rel=0.6)
            assert row['n_runs'] == 3
            assert row['memory_mb'] > 1.0
    assert report['n_runs'] == 3
    assert report['skipped'] == {}
    json.dumps(report, allow_nan=False)


def test_more_passes_ask_for_more_weights_and_nothing_beats_the_hardware(report):
    asked = report['asked']
    assert asked['token@21/1']['gbyte'] > asked['flow@10']['gbyte'] > asked['block@21/7']['gbyte']
    for row in asked.values():
        assert row['tflop'] > 0
        assert 0 < row['share_of_limit'] < 1.5
        assert row['best_engine'] in ('eager', 'static')


def test_flops_are_those_of_matrix_products(single):
    found = limits.asked(single[0].parts, 3)
    model = single[0].parts.model
    vision = model.backbone.vlm.vision_tower
    layers = sum(
        m.weight.numel()
        for m in vision.modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    )
    # Two cameras, 256 tokens each, at least the products with the weights.
    assert found['tflop'] * 1e12 > 2 * 2 * 256 * layers
    assert found['tflop'] * 1e12 < 40 * 2 * 256 * layers


def _counted(parts):
    policy = Policy(parts, device='cpu', engine='eager')
    with FlopCounterMode(display=False) as counter:
        policy.predict(policy.make_example(), staged=True)
    return counter.get_total_flops()


def _asked_as_counted(parts):
    flow = parts.config.head == 'flow'
    passes = parts.config.flow_steps if flow else parts.model.num_blocks
    asked = round(limits.asked(parts, passes)['tflop'] * 1e12)
    # Of the kernels for attention on a CPU this one alone is counted.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return asked, _counted(parts)


@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'block_size': 1},
        {'order': 'slot', 'block_size': 6},
        {'code_embeddings': 'tied'},
        {'action_expert': 'none'},
        {'state_encoding': 'text'},
        {'head': 'flow'},
    ],
    ids=lambda fields: ' '.join(map(str, fields.values())),
)
def test_the_first_and_the_last_pass_tell_the_operations_of_all(fields):
    asked, counted = _asked_as_counted(tiny_parts(**fields))
    assert asked == counted


@pytest.mark.parametrize('head', [0, 1, 2, 4])
def test_operations_of_every_head_are_those_of_a_whole_inference(single, head):
    asked, counted = _asked_as_counted(single[head].parts)
    assert asked == counted


def test_the_operations_of_many_passes_are_counted_in_two(single):
    (bins,) = (c for c in single if c.head == 'bins')
    model, blocks = bins.parts.model, []
    with pytest.MonkeyPatch.context() as patch:
        original = model.block_logits
        patch.setattr(
            model,
            'block_logits',
            lambda inputs, block, prefix: blocks.append(block) or original(inputs, block, prefix),
        )
        limits.asked(bins.parts, bins.passes)
    assert blocks == [0, 139]


def test_a_head_of_many_passes_runs_every_fifth_round(single):
    bins = [c for c in single if c.head == 'bins']
    made = measure('test', bins, ['static'], device=CPU, dtype='float32', runs=6)
    assert made['engines']['static']['bins@140/1']['n_runs'] == -(-6 // MANY_PASSES_EVERY)


# --- what fails -------------------------------------------------------------------------------


class _Failing(StaticEngine):
    """Raises what it is told, at its n-th prefill."""

    name = 'failing'
    error, at = RuntimeError('CUDA error: an illegal memory access'), 1

    def prefill(self, features, inputs):
        self.count = getattr(self, 'count', 0) + 1
        if self.count >= self.at:
            raise self.error
        super().prefill(features, inputs)


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes the engine `failing` raise an error at its n-th inference."""
    monkeypatch.setitem(engines.ENGINES, 'failing', _Failing)

    def fail(error, at=1):
        monkeypatch.setattr(_Failing, 'error', error)
        monkeypatch.setattr(_Failing, 'at', at)

    return fail


def _measure(contestants, names, **options):
    options = {'runs': 2, **options}
    return measure('test', contestants, names, device=CPU, dtype='float32', **options)


@pytest.mark.parametrize('first', [True, False])
def test_an_engine_that_cannot_run_is_listed_with_its_reason(single, first):
    names = ['cuda_graph', 'eager'] if first else ['eager', 'cuda_graph']
    made = _measure(single[:1], names)
    assert 'expected device cuda' in made['skipped']['cuda_graph block@21/7']
    assert made['engines']['cuda_graph'] == {}
    assert made['engines']['eager']['block@21/7']['n_runs'] == 2
    assert made['asked']['block@21/7']['best_engine'] == 'eager'
    assert made['complete']


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (RuntimeError('CUDA error: out of memory'), 'RuntimeError: CUDA error: out of memory'),
        (DecodeError('the decoded chunk is not finite'), 'the decoded chunk is not finite'),
        (TypeError('of a compiler'), 'TypeError: of a compiler'),
    ],
)
def test_whatever_an_engine_raises_in_its_warm_up_the_others_are_measured(
    single, failing, error, reason
):
    failing(error)
    made = _measure(single[:1], ['failing', 'static'])
    assert made['skipped'] == {'failing block@21/7': reason}
    assert list(made['engines']['static']) == ['block@21/7']


def test_an_engine_that_fails_between_two_rounds_keeps_those_it_ran(single, failing):
    failing(RuntimeError('the device is gone'), at=1 + 1 + 3)  # warm-up, then the third round
    made = _measure(single[:1], ['failing', 'static'], runs=6)
    assert made['skipped'] == {'failing block@21/7': 'RuntimeError: the device is gone'}
    rows = {name: heads['block@21/7']['n_runs'] for name, heads in made['engines'].items()}
    assert rows == {'failing': 3, 'static': 6}


def test_if_nothing_could_be_measured_every_reason_is_told(single, failing):
    failing(RuntimeError('the device is gone'))
    with pytest.raises(ConfigError, match='nothing could be measured') as refused:
        _measure(single[:1], ['failing', 'cuda_graph'])
    for reason in ('failing block@21/7: RuntimeError: the device', 'expected device cuda'):
        assert reason in str(refused.value)


def test_a_measurement_is_reported_while_it_goes_on_and_before_operations_are_counted(
    single, monkeypatch
):
    def asked(*_):
        raise RuntimeError('killed here')

    monkeypatch.setattr(limits, 'asked', asked)
    monkeypatch.setattr(module, 'REPORT_EVERY', 2)
    seen = []
    made = _measure(
        single[:1], ['static'], runs=4, on_report=lambda report: seen.append(json.dumps(report))
    )
    seen = [json.loads(text) for text in seen]
    runs = [report['engines']['static']['block@21/7']['n_runs'] for report in seen]
    assert runs == [report['n_runs'] for report in seen] == [1, 3, 4]
    assert not any(report['complete'] for report in seen)
    assert seen[-1]['asked'] == made['asked'] == {}
    assert made['skipped'] == {'asked block@21/7': 'RuntimeError: killed here'}
    assert table(seen[0]).count('block@21/7') == 1


def _clock():
    """Stand for `time`: a second passes whenever it is looked at."""
    return SimpleNamespace(monotonic=itertools.count(1.0).__next__)


def test_after_the_deadline_no_round_begins_but_the_first(single, monkeypatch):
    monkeypatch.setattr(module, 'time', _clock())
    # Looked at once per engine and head, then before every round but the first.
    made = _measure(single[:1], ['static'], runs=100, deadline=4.5)
    assert (made['n_runs'], made['complete']) == (4, False)
    made = _measure(single[:1], ['static'], runs=100, deadline=6.5)
    assert made['n_runs'] == 1


def test_what_there_was_no_time_to_prepare_is_left_out(single, monkeypatch):
    monkeypatch.setattr(module, 'time', _clock())
    made = _measure(single[:1], ['static', 'eager'], deadline=1.5)
    assert list(made['engines']['static']) == ['block@21/7']
    assert 'no time left' in made['skipped']['eager block@21/7']


def test_an_engine_may_run_a_few_heads_only(single):
    made = _measure(single, ['static', 'eager'], only={'eager': ['flow'], 'static': ['block']})
    assert {name: list(heads) for name, heads in made['engines'].items()} == {
        'static': ['block@21/7'],
        'eager': ['flow@10'],
    }
    assert list(made['asked']) == ['block@21/7', 'flow@10']
    assert made['skipped'] == {}


# --- memory, versions, peaks, table, figure ---------------------------------------------------


def test_on_a_cpu_memory_is_that_of_the_weights(single, report):
    parts = single[0].parts
    expected = sum(t.nbytes for t in (*parts.model.parameters(), *parts.model.buffers()))
    vq = parts.tokenizer.model
    expected += sum(t.nbytes for t in (*vq.parameters(), *vq.buffers()))
    assert weight_bytes(parts) == expected
    assert MemoryGauge(CPU).taken() == 0
    found = report['engines']['static']['block@21/7']['memory_mb']
    assert found == pytest.approx(expected / 2**20, abs=0.1)
    assert report['memory_is'] == 'weights of policy and tokenizer'


def test_versions_stand_in_the_report(report):
    assert report['python'] == platform.python_version()
    assert report['torch'] == torch.__version__
    assert report['transformers'] == metadata.version('transformers')
    assert report['cuda'] == torch.version.cuda
    if report['cuda'] is None:
        assert report['driver'] is None


def test_peaks_are_measured_not_looked_up():
    peaks = measure_peaks(CPU, torch.float32)
    assert 0.001 < peaks['peak_tflops'] < 1000
    assert 0.1 < peaks['bandwidth_gbs'] < 10_000


def test_the_table_and_the_figure_show_every_row(report, tmp_path):
    text = table(report)
    assert text.count('| eager |') + text.count('| static |') >= 8
    assert '3 rounds' in text
    draw(report, tmp_path / 'bars.png')
    assert (tmp_path / 'bars.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'preset': 'large'}, 'preset: expected one of demo'),
        ({'preset': 'demo', 'engines': ('turbo',)}, 'engines: expected of'),
        ({'preset': 'demo', 'heads': ('fist',)}, 'heads: expected of'),
        ({'preset': 'demo', 'only': {'turbo': ('block',)}}, 'only: expected of'),
        ({'preset': 'demo', 'only': {'eager': ('fist',)}}, 'only: expected of'),
        ({'preset': 'demo', 'dtype': 'int4'}, 'dtype: expected of'),
        ({'preset': 'demo', 'device': 'tpu'}, 'device'),
    ],
)
def test_names_that_are_not_there_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        compare(**options)


def test_no_rounds_are_refused(single):
    with pytest.raises(ValueError, match='runs: expected >= 1'):
        measure('test', single[:1], ['eager'], device=CPU, dtype='float32', runs=0)


def test_the_command_prints_one_json_object_last(capsys):
    from faster_vla_ros.cli import main

    arguments = ['--preset', 'paper_single', '--small', '--engines', 'static', '--threads', '1']
    code = main(['bench', 'policy', *arguments, '--heads', 'block', '--iterations', '2', '--json'])
    assert code == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last['preset'] == 'paper_single_small'
    assert list(last['engines']['static']) == ['block@21/7']


@pytest.fixture
def bench(single, monkeypatch):
    """Return the command as a function; the policies are there already."""
    from faster_core.evaluation.speed import run
    from faster_vla_ros.cli import main

    monkeypatch.setattr(run, 'paper_contestants', lambda *_, **__: single)
    threads = torch.get_num_threads()
    yield lambda *arguments: main(
        ['bench', 'policy', '--preset', 'paper_single', '--small', '--threads', '1', *arguments]
    )
    torch.set_num_threads(threads)


SHORT = ('--engines', 'static', '--heads', 'block', '--iterations', '2')


def test_the_file_holds_the_report(bench, tmp_path, capsys):
    file = tmp_path / 'new' / 'report.json'
    assert bench(*SHORT, '--json', '--out', str(file)) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(file.read_text()) == last
    assert list(file.parent.iterdir()) == [file]


def test_a_measurement_that_is_killed_leaves_what_it_had_in_the_file(bench, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(limits, 'asked', stop)
    file = tmp_path / 'report.json'
    assert bench(*SHORT, '--json', '--out', str(file)) == 130
    left = json.loads(file.read_text())
    assert left['engines']['static']['block@21/7']['n_runs'] == left['n_runs'] == 2
    assert not left['complete']


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    bench, tmp_path, capsys
):
    (tmp_path / 'file').touch()
    out = str(tmp_path / 'file' / 'report.json')
    assert bench(*SHORT, '--iterations', '1000000', '--out', out) == 2
    assert f'--out: cannot write {out}' in capsys.readouterr().err


def test_a_file_that_cannot_be_written_any_more_does_not_lose_the_measurement(
    bench, tmp_path, monkeypatch, capsys
):
    file = tmp_path / 'new' / 'report.json'
    original = limits.asked

    def full(*arguments):
        file.unlink()
        file.mkdir()
        return original(*arguments)

    monkeypatch.setattr(limits, 'asked', full)
    assert bench(*SHORT, '--json', '--out', str(file)) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])['complete']
    assert f'--out: cannot write {file}' in printed.err


def test_a_file_from_before_stays_if_nothing_is_measured(bench, tmp_path, capsys):
    file = tmp_path / 'report.json'
    file.write_text('{}')
    assert bench('--heads', 'fist', '--out', str(file)) == 2
    assert file.read_text() == '{}'


def test_the_command_fails_if_something_named_is_left_out_and_prints_the_rest(bench, capsys):
    few = ('--heads', 'block', '--iterations', '1', '--json')
    assert bench('--engines', 'cuda_graph,static', *few) == 1
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert list(last['engines']['static']) == ['block@21/7']
    assert 'left out: cuda_graph block@21/7: engine cuda_graph' in printed.err


def test_what_is_not_installed_here_is_no_failure_unless_it_was_named(bench, monkeypatch, capsys):
    from faster_core.evaluation.speed import run

    monkeypatch.setattr(run, 'available_engines', lambda _: ['static', 'cuda_graph'])
    assert bench('--heads', 'block', '--iterations', '1', '--json') == 0
    assert 'left out: cuda_graph' in capsys.readouterr().err


def test_the_command_stops_in_time_and_says_how_many_rounds_there_were(bench, capsys):
    assert bench(*SHORT, '--iterations', '1000000', '--seconds', '1', '--json') == 0
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert 1 <= last['n_runs'] < 1_000_000
    assert f'{last["n_runs"]} of 1000000 rounds' in printed.err


def test_the_command_gives_an_engine_its_heads(bench, capsys):
    few = ('--engines', 'static,eager', '--heads', 'block,flow', '--iterations', '1', '--json')
    assert bench(*few, '--only', 'eager=flow') == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(last['engines']['static']) == ['block@21/7', 'flow@10']
    assert list(last['engines']['eager']) == ['flow@10']


def test_heads_of_an_engine_want_both_names(bench, capsys):
    with pytest.raises(SystemExit):
        bench('--only', 'eager')
    assert 'expected ENGINE=HEADS' in capsys.readouterr().err


@pytest.fixture
def measured(report, monkeypatch):
    from faster_core.evaluation.speed import run

    monkeypatch.setattr(run, 'compare', lambda *args, **options: report)
    return report


@pytest.mark.parametrize('name', ['file/bars.png', 'bars.nonsense'])
def test_a_figure_that_cannot_be_written_does_not_lose_the_measurement(
    measured, tmp_path, capsys, name
):
    from faster_vla_ros.cli import main

    (tmp_path / 'file').touch()
    figure = str(tmp_path / name)
    assert main(['bench', 'policy', '--json', '--figure', figure]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1]) == json.loads(json.dumps(measured))
    assert f'--figure: cannot write {figure}' in printed.err
    assert 'Traceback' not in printed.err


def test_without_matplotlib_the_measurement_is_not_lost(measured, tmp_path, capsys, monkeypatch):
    from faster_vla_ros.cli import main

    for name in ('matplotlib', 'matplotlib.figure'):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(['bench', 'policy', '--json', '--figure', str(tmp_path / 'bars.png')]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1]) == json.loads(json.dumps(measured))
    assert 'matplotlib is missing' in printed.err
