"""`faster-vla bench`: what it measures and what it prints."""

import json

import numpy as np
import pytest
from tiny_checkpoint import make_tiny_checkpoint, MODEL, tiny_parts
import torch

from faster_core.chunk import StageTiming
from faster_core.evaluation import latency
from faster_core.policy import Policy
from faster_core.policy.checkpoint import checkpoint_sha256
from faster_vla_ros import cli

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'tiny')


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_bench_prints_one_json_line_with_percentiles_by_stage(checkpoint, capsys):
    status = cli.main(
        ['bench', '--checkpoint', str(checkpoint), '--iterations', '4', '--threads', '1', '--json']
    )
    assert status == 0
    out = capsys.readouterr().out
    assert out.count('\n') == 1
    report = json.loads(out, parse_constant=pytest.fail)
    assert report['iterations'] == 4
    assert report['threads'] == 1
    stages = report['stages_ms']
    for name in ('preprocess', 'vision', 'prefill', 'decode_block', 'detokenize', 'total'):
        values = stages[f'{name}_ms']
        assert 0 < values['p50'] <= values['p95'] <= values['p99']
    assert stages['total_ms']['p50'] == report['latency_ms']['p50']
    # A block is a part of decoding, decoding a part of the whole.
    assert stages['decode_block_ms']['p50'] < stages['decode_ms']['p50']
    assert stages['decode_ms']['p50'] < report['latency_ms']['max']
    assert report['tokens'] == 3 * 2 * 10
    assert report['blocks'] == report['tokens'] // MODEL['block_size']
    parts = tiny_parts()
    assert report['parameters']['policy'] == sum(p.numel() for p in parts.model.parameters())
    assert (report['cameras'], report['image_size']) == (3, 96)
    assert report['device'].split(':')[0] in ('cpu', 'cuda')
    assert report['dtype'] in ('float32', 'bfloat16')
    assert report['checkpoint_sha'] == checkpoint_sha256(checkpoint)


def test_people_get_a_table(checkpoint, capsys):
    arguments = ['--checkpoint', str(checkpoint), '--iterations', '2', '--threads', '1']
    assert cli.main(['bench', *arguments]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ['milliseconds', 'p50', 'p95', 'p99']
    assert 'detokenize' in out
    assert '2 inferences, 3 cameras of 96 pixels, 60 tokens in 6 blocks' in out


@pytest.mark.parametrize('option', ['--iterations', '--threads'])
def test_bench_refuses_counts_below_one(capsys, option):
    with pytest.raises(SystemExit) as ending:
        cli.main(['bench', option, '0'])
    assert ending.value.code == 2
    assert 'expected a whole number > 0' in capsys.readouterr().err


def test_bench_says_which_checkpoint_is_missing(tmp_path, capsys):
    assert cli.main(['bench', '--checkpoint', str(tmp_path / 'none')]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / 'none') in err
    assert 'Traceback' not in err


class Counting:
    """Wraps a policy and counts."""

    def __init__(self, policy):
        self.policy, self.seen, self.warmups = policy, [], []
        self.image_size, self.make_example = policy.image_size, policy.make_example

    def warmup(self, iterations):
        self.warmups.append((iterations, len(self.seen)))

    def predict(self, observation):
        self.seen.append(observation)
        return self.policy.predict(observation)


def test_every_measured_inference_sees_fresh_images_and_the_warm_up_comes_before():
    policy, ticks = Counting(Policy(tiny_parts(), device='cpu')), []
    timings = latency.measure(policy, iterations=3, warmup=5, on_run=lambda: ticks.append(1))
    assert len(timings) == len(policy.seen) == len(ticks) == 3
    assert policy.warmups == [(5, 0)]
    heads = [o.images['head'] for o in policy.seen]
    assert (heads[0] != heads[1]).any()
    assert (heads[1] != heads[2]).any()
    assert (policy.seen[0].images['head'] != policy.seen[0].images['wrist_left']).any()


def test_images_are_reproducible_and_have_been_through_jpeg():
    policy = Policy(tiny_parts(), device='cpu')
    first, again = (
        latency.random_observation(policy, np.random.default_rng(3)).images['head']
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    raw = np.random.default_rng(3).integers(0, 256, first.shape, dtype=np.uint8)
    assert (first != raw).any()
    assert first.shape == (96, 96, 3)


def test_the_summary_has_the_mean_and_the_worst():
    timings = [StageTiming(total_ms=v, decode_block_ms=(1.0,)) for v in (10.0, 20.0, 60.0)]
    values = latency.summarize_latency(timings)['latency_ms']
    assert (values['p50'], values['mean'], values['max']) == (20.0, 30.0, 60.0)


def test_measuring_nothing_is_refused():
    with pytest.raises(ValueError, match='iterations'):
        latency.measure(None, iterations=0)
