"""`faster-vla bench agreement`: engines against the oracle on recorded observations."""

import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from tiny_checkpoint import make_tiny_checkpoint, write_demos
import torch

from faster_core.cli import bench
from faster_core.errors import ConfigError
from faster_core.evaluation.speed import agreement as module
from faster_core.evaluation.speed.agreement import agreement, recorded
from faster_core.policy import engines, Policy
from faster_core.policy.engines.plain import StaticEngine


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp('agreement') / 'tiny')


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=4, steps=6)


class _Off(StaticEngine):
    """One code of the third block is another one."""

    name = 'off'

    def decode(self, sampling, **options):
        tokens = super().decode(sampling, **options).clone()
        place = 2 * self.model.block_size + 3
        level = tokens[0, place] // self.model.layout.codebook_size
        size = self.model.layout.codebook_size
        tokens[0, place] = level * size + (tokens[0, place] - level * size + 1) % size
        return tokens


def test_observations_are_spread_over_the_episodes(demos):
    found = list(recorded(demos, 8))
    assert len(found) == 8
    assert len({o.instruction for o in found}) == 4
    assert len({o.state.tobytes() for o in found}) == 8
    assert len(list(recorded(demos, 3))) == 3


def test_no_observation_comes_twice_where_episodes_are_short(demos):
    found = [o.state.tobytes() for o in recorded(demos, 100)]
    assert len(found) == len(set(found)) == 4 * 6


def test_an_engine_that_does_the_same_is_counted_so(folder, demos):
    seen = []
    report = agreement(folder, ['static'], recorded(demos, 8), lambda: seen.append(1))
    row = report['engines']['static']
    assert report['observations'] == len(seen) == row['same'] == 8
    assert (row['close'], row['wrong'], row['cases']) == (0, 0, [])
    assert row['error'] < 1e-5


@pytest.mark.parametrize(('margin', 'kind'), [(1e-3, 'wrong'), (1e3, 'close')])
def test_a_code_that_differs_is_counted_and_listed_with_its_margin(
    folder, demos, monkeypatch, margin, kind
):
    monkeypatch.setitem(engines.ENGINES, 'off', _Off)
    monkeypatch.setattr('faster_core.evaluation.speed.agreement.MARGIN', margin)
    row = agreement(folder, ['off'], recorded(demos, 4))['engines']['off']
    assert row[kind] == 4
    assert row['same'] == 0
    assert [c['block'] for c in row['cases']] == [2] * 4
    assert all(np.isfinite(c['margin']) and c['margin'] > 1e-3 for c in row['cases'])


class _Precise(StaticEngine):
    """Notes what convolutions and products of matrices may round to."""

    name = 'precise'
    seen: ClassVar[set] = set()

    def vision(self, pixels):
        self.seen.add((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return super().vision(pixels)


def test_float32_is_whole_on_a_gpu_while_engines_are_compared(folder, demos, monkeypatch):
    monkeypatch.setitem(engines.ENGINES, 'precise', _Precise)
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = True
        agreement(folder, ['precise'], recorded(demos, 1))
        assert _Precise.seen == {(False, False)}
        assert all(switch.allow_tf32 for switch in switches)
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@pytest.mark.parametrize('at', ['prefill', '__init__'])
def test_an_engine_that_fails_is_left_out_with_its_reason(folder, demos, monkeypatch, at):
    def fail(*_, **__):
        raise RuntimeError('CUDA error: out of memory')

    monkeypatch.setitem(engines.ENGINES, 'off', type('Failing', (StaticEngine,), {at: fail}))
    report = agreement(folder, ['off', 'static'], recorded(demos, 3))
    assert report['skipped'] == {'off': 'RuntimeError: CUDA error: out of memory'}
    assert list(report['engines']) == ['static']
    assert report['engines']['static']['same'] == 3
    with pytest.raises(ConfigError, match='no engine could be compared: off: RuntimeError'):
        agreement(folder, ['off'], recorded(demos, 3))


def test_all_run_on_the_device_that_was_asked_for(folder, demos, monkeypatch):
    devices = []

    def policy(parts, *, device, **options):
        devices.append(device)
        return Policy(parts, device='cpu', **options)

    monkeypatch.setattr(module, 'choose_device', torch.device)
    monkeypatch.setattr(module, 'Policy', policy)
    monkeypatch.setattr(module, 'device_name', str)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: None)
    report = agreement(folder, ['static'], recorded(demos, 2), device='cuda:1')
    assert devices == ['cuda:1', 'cuda:1']
    assert report['device'] == 'cuda:1'


@pytest.mark.gpu
def test_captured_graphs_give_the_codes_of_eager_on_the_gpu(folder, demos):
    report = agreement(folder, ['static', 'cuda_graph'], recorded(demos, 20), device='cuda')
    assert report['skipped'] == {}
    assert [row['wrong'] for row in report['engines'].values()] == [0, 0]


def test_a_folder_without_episodes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='no episodes'):
        list(recorded(tmp_path, 3))


@pytest.fixture
def command(folder, demos):
    from faster_vla_ros.cli import main

    options = ('--checkpoint', str(folder), '--episodes', str(demos), '--iterations', '4')
    threads = torch.get_num_threads()
    yield lambda *more: main(['bench', 'agreement', *options, '--threads', '1', '--json', *more])
    torch.set_num_threads(threads)


def test_the_command_fails_if_an_engine_is_wrong(command, tmp_path, monkeypatch, capsys):
    file = tmp_path / 'report.json'
    assert command('--engines', 'static', '--out', str(file)) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report['engines']['static']['same'] == 4
    assert report['torch'] == torch.__version__
    assert json.loads(file.read_text()) == report
    monkeypatch.setitem(engines.ENGINES, 'off', _Off)
    assert command('--engines', 'off') == 1


def test_the_command_fails_if_an_engine_could_not_run_and_prints_the_others(command, capsys):
    assert command('--engines', 'cuda_graph,static', '--device', 'cpu') == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])['engines']['static']['same'] == 4
    assert 'left out: cuda_graph: engine cuda_graph: expected device cuda' in printed.err


def test_the_command_asks_for_the_device_it_was_given(command, capsys):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    assert command('--engines', 'static', '--device', 'cuda') == 2
    assert 'sees 0 CUDA devices' in capsys.readouterr().err


def test_the_command_looks_at_no_more_observations_when_the_time_is_over(
    command, monkeypatch, capsys
):
    monkeypatch.setattr(bench, 'time', SimpleNamespace(monotonic=iter(range(100)).__next__))
    # At 0 until 3: two observations have begun by then.
    assert command('--engines', 'static', '--seconds', '3') == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['observations'] == 2
