"""What both trainings share: the run folder, averaged weights, schedules."""

import contextlib
import json

import pytest
import torch
from torch import nn

from faster_core.errors import CheckpointError, ConfigError
from faster_core.training import run_folder
from faster_core.training.ema import WeightAverage
from faster_core.training.run_folder import (
    optimizer_tensors,
    pack,
    restore_optimizer,
    RunFolder,
    unpack,
)
from faster_core.training.schedules import cosine_schedule

CONFIG = {'steps': 10, 'model': {'width': 4, 'slots': (1, 2)}}


# --- configuration ---------------------------------------------------------------------------


def test_a_folder_reopens_with_its_own_configuration(tmp_path):
    RunFolder(tmp_path / 'deep' / 'run', CONFIG)
    RunFolder(tmp_path / 'deep' / 'run', dict(reversed(CONFIG.items())))
    assert json.loads((tmp_path / 'deep' / 'run' / 'config.json').read_text())['steps'] == 10


def test_a_folder_of_another_configuration_is_refused_and_left_alone(tmp_path):
    RunFolder(tmp_path, CONFIG)
    before = (tmp_path / 'config.json').read_bytes()
    with pytest.raises(ConfigError, match=r'config\.json'):
        RunFolder(tmp_path, CONFIG | {'steps': 11})
    assert (tmp_path / 'config.json').read_bytes() == before


# --- metrics -----------------------------------------------------------------------------------


def test_metrics_of_one_step_are_merged_and_steps_are_sorted(tmp_path):
    run = RunFolder(tmp_path, CONFIG)
    run.log(20, loss=0.5)
    run.log(10, loss=1.0)
    run.log(20, held_out=0.25)
    assert run.metrics() == [
        {'step': 10, 'loss': 1.0},
        {'step': 20, 'loss': 0.5, 'held_out': 0.25},
    ]


def test_after_a_resume_the_newest_line_of_a_step_wins(tmp_path):
    RunFolder(tmp_path, CONFIG).log(10, loss=1.0)
    run = RunFolder(tmp_path, CONFIG)
    run.log(10, loss=0.9)
    assert run.metrics() == [{'step': 10, 'loss': 0.9}]


def test_a_line_cut_short_by_a_kill_does_not_spoil_the_others(tmp_path):
    run = RunFolder(tmp_path, CONFIG)
    run.log(1, loss=1.0)
    run.log(2, loss=0.5)
    with (tmp_path / 'metrics.jsonl').open('a') as f:
        f.write('{"step": 3, "lo')
    assert [row['step'] for row in run.metrics()] == [1, 2]


def test_a_run_without_metrics_has_none(tmp_path):
    assert RunFolder(tmp_path, CONFIG).metrics() == []


@pytest.mark.parametrize('names', [(), ('a',), ('a', 'b', 'c', 'd', 'e')])
def test_the_plot_is_a_picture_however_many_metrics_there_are(tmp_path, names):
    run = RunFolder(tmp_path, CONFIG)
    for step in range(3):
        run.log(step, **dict.fromkeys(names, step * 0.5))
    path = run.plot()
    assert path == tmp_path / 'metrics.png'
    assert path.read_bytes().startswith(b'\x89PNG')


# --- state -------------------------------------------------------------------------------------

TENSORS = {
    'weights': torch.randn(3, 4),
    'flag': torch.tensor(True),
    'bytes': torch.arange(7, dtype=torch.uint8),
    'half': torch.randn(5).to(torch.bfloat16),
    'view': torch.arange(12).view(3, 4).T,
}


def test_a_state_comes_back_exactly(tmp_path):
    run = RunFolder(tmp_path, CONFIG)
    assert run.load_state() is None
    run.save_state(7, TENSORS, {'elapsed': 1.5, 'name': 'x'})
    step, tensors, extra = RunFolder(tmp_path, CONFIG).load_state()
    assert (step, extra) == (7, {'elapsed': 1.5, 'name': 'x'})
    assert set(tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)


def test_tensors_that_share_memory_are_stored_each_for_itself(tmp_path):
    run, weights = RunFolder(tmp_path, CONFIG), torch.ones(4)
    run.save_state(1, {'a': weights, 'b': weights, 'part': weights[:2]})
    _, tensors, _ = run.load_state()
    tensors['a'].zero_()
    assert torch.equal(tensors['b'], torch.ones(4))
    assert torch.equal(tensors['part'], torch.ones(2))


def test_only_tensors_that_share_memory_are_copied_before_they_are_written(tmp_path, monkeypatch):
    """A state of a model of 3 B has 48 GB on the host, once."""
    written = {}
    monkeypatch.setattr(
        run_folder, 'save_file', lambda tensors, path, metadata: written.update(tensors)
    )
    weights, table = torch.ones(4), torch.arange(12.0).view(3, 4)
    given = {'own': torch.zeros(2, 3), 'a': weights, 'b': weights, 'part': table[:2], 't': table.T}
    with contextlib.suppress(FileNotFoundError):  # nothing was written that could be renamed
        RunFolder(tmp_path, CONFIG).save_state(1, given)
    at = {name: value.data_ptr() for name, value in written.items()}
    assert at['own'] == given['own'].data_ptr()
    assert at['a'] == weights.data_ptr()
    assert len(set(at.values())) == len(given)
    assert all(torch.equal(written[name], value) for name, value in given.items())
    assert all(value.is_contiguous() for value in written.values())


def test_an_interrupted_write_leaves_the_last_state(tmp_path):
    run = RunFolder(tmp_path, CONFIG)
    run.save_state(1, TENSORS)
    (tmp_path / 'state.partial').write_bytes(b'half')
    assert run.load_state()[0] == 1
    run.save_state(2, TENSORS)
    assert run.load_state()[0] == 2


@pytest.mark.parametrize('keep', [0, 4, 100, -1])
def test_a_damaged_state_is_refused_by_name(tmp_path, keep):
    run = RunFolder(tmp_path, CONFIG)
    run.save_state(1, TENSORS)
    path = tmp_path / 'state.safetensors'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r'state\.safetensors'):
        run.load_state()


def test_groups_of_tensors_are_packed_and_unpacked():
    a, b = {'x': torch.ones(1), 'y/z': torch.zeros(2)}, {'x': torch.full((1,), 3.0)}
    packed = pack(model=a, model2=b)
    assert unpack(packed, 'model') == a
    assert unpack(packed, 'model2') == b
    assert unpack(packed, 'other') == {}


# --- optimiser -----------------------------------------------------------------------------------


def _train(module, optimizer, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(8, 4, generator=generator)).square().sum().backward()
        optimizer.step()


def _new(fused):
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    return module, torch.optim.AdamW(module.parameters(), lr=0.01, fused=fused)


@pytest.mark.parametrize('fused', [False, True])
def test_a_restored_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path, fused):
    module, optimizer = _new(fused)
    _train(module, optimizer, 5, seed=1)
    run = RunFolder(tmp_path, CONFIG)
    run.save_state(5, pack(model=module.state_dict(), optimizer=optimizer_tensors(optimizer)))
    _train(module, optimizer, 5, seed=2)

    other, resumed = _new(fused)
    _, tensors, _ = run.load_state()
    other.load_state_dict(unpack(tensors, 'model'))
    restore_optimizer(resumed, unpack(tensors, 'optimizer'))
    _train(other, resumed, 5, seed=2)
    assert torch.equal(other.weight, module.weight)


def test_restoring_keeps_the_new_optimisers_own_learning_rate():
    module, optimizer = _new(False)
    _train(module, optimizer, 1, seed=1)
    other = torch.optim.AdamW(module.parameters(), lr=0.5)
    restore_optimizer(other, optimizer_tensors(optimizer))
    assert other.param_groups[0]['lr'] == 0.5


# --- averaged weights ------------------------------------------------------------------------


def test_the_average_follows_the_definition():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = WeightAverage(module, decay=0.9)
    expected = 0.0
    for n, value in enumerate([1.0, 2.0, 3.0], start=1):
        module.weight.data.fill_(value)
        average.update(module)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert average.values['weight'].item() == pytest.approx(expected, rel=1e-6)


def test_the_average_is_a_copy_and_takes_flags_as_they_are():
    module = nn.BatchNorm1d(2)
    average = WeightAverage(module, decay=0.9)
    module.weight.data.fill_(5.0)
    module.num_batches_tracked.fill_(7)
    assert average.values['weight'].tolist() == [1.0, 1.0]
    average.update(module)
    assert average.values['num_batches_tracked'] == 7


# --- schedule ------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_falls_to_the_floor():
    rate = [cosine_schedule(p / 100, warmup=0.1, peak=2.0, floor=0.5) for p in range(101)]
    assert rate[0] == 0.0
    assert rate[5] == pytest.approx(1.0)
    assert rate[10] == pytest.approx(2.0)
    assert rate[55] == pytest.approx(1.25)
    assert rate[100] == pytest.approx(0.5)
    assert rate[10:] == sorted(rate[10:], reverse=True)


def test_past_the_end_the_rate_stays_and_without_warm_up_it_starts_at_the_peak():
    assert cosine_schedule(1.7, warmup=0.1, peak=2.0, floor=0.5) == pytest.approx(0.5)
    assert cosine_schedule(0.0, warmup=0.0, peak=2.0) == pytest.approx(2.0)
