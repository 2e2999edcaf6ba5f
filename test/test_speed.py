"""`faster-vla bench policy`: what it reports, on small sizes."""

import functools
import json
import sys

import numpy as np
import pytest
import torch

from faster_core.errors import ConfigError
from faster_core.evaluation.speed import limits
from faster_core.evaluation.speed import measure as module
from faster_core.evaluation.speed.contestants import demo_contestants, paper_contestants
from faster_core.evaluation.speed.measure import MANY_PASSES_EVERY, measure
from faster_core.evaluation.speed.presets import SPEED_PRESETS
from faster_core.evaluation.speed.report import draw, STAGES, table
from faster_core.evaluation.speed.run import compare, HEADS
from faster_core.policy import Policy

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
    policy = Policy(single[0].parts, device='cpu', engine='eager')
    from faster_core.evaluation.latency import random_observation
    from faster_core.evaluation.speed.limits import asked

    found = asked(policy, random_observation(policy, np.random.default_rng(0)), 3)
    model = policy.model
    vision = model.backbone.vlm.vision_tower
    layers = sum(
        m.weight.numel()
        for m in vision.modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    )
    # Two cameras, 256 tokens each, at least the products with the weights.
    assert found['tflop'] * 1e12 > 2 * 2 * 256 * layers
    assert found['tflop'] * 1e12 < 40 * 2 * 256 * layers


def test_a_head_of_many_passes_runs_every_fifth_round(single):
    bins = [c for c in single if c.head == 'bins']
    made = measure('test', bins, ['static'], device=CPU, dtype='float32', runs=6)
    assert made['engines']['static']['bins@140/1']['n_runs'] == -(-6 // MANY_PASSES_EVERY)


def test_an_engine_that_cannot_run_is_listed_with_its_reason(single):
    made = measure(
        'test', single[:1], ['eager', 'cuda_graph'], device=CPU, dtype='float32', runs=1
    )
    assert 'expected device cuda' in made['skipped']['cuda_graph block@21/7']
    assert made['engines']['cuda_graph'] == {}


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

    arguments = ['--preset', 'paper_single', '--small', '--engines', 'static']
    code = main(['bench', 'policy', *arguments, '--heads', 'block', '--iterations', '2', '--json'])
    assert code == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last['preset'] == 'paper_single_small'
    assert list(last['engines']['static']) == ['block@21/7']


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
