"""Saving what FSDP has cut up: bit by bit the same, one tensor at a time, in one process only."""

import json
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
import sharded_worker
import torch
from torch import nn
from warm_processes import group

from faster_core.policy import train
from faster_core.training.ema import WeightAverage
from faster_core.training.sharding import whole


@pytest.fixture(scope='module')
def gathered(tmp_path_factory):
    out = tmp_path_factory.mktemp('gathered')
    group(out, 2, 'sharded_worker', str(out))
    return out


def test_the_first_process_gets_every_tensor_to_the_bit(gathered):
    expected, found = sharded_worker.tensors(), load_file(gathered / '0.safetensors')
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_the_other_processes_keep_nothing(gathered):
    assert load_file(gathered / '1.safetensors') == {}


@pytest.mark.parametrize('rank', [0, 1])
def test_no_device_holds_more_than_one_whole_tensor_at_a_time(gathered, rank):
    cut_up = sum(value.ndim > 0 for value in sharded_worker.tensors().values())
    assert json.loads((gathered / f'{rank}.json').read_text()) == [0] * cut_up


def test_what_is_kept_is_a_copy():
    weight = torch.ones(3)
    found = whole({'weight': weight})
    weight.zero_()
    assert found['weight'].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize('main', [False, True])
def test_a_save_copies_weights_average_and_optimiser_in_the_main_process_only(monkeypatch, main):
    """With FSDP all processes save; of a model of 3 B each copy has 48 GB in float32."""

    class SeenError(Exception):
        pass

    def pack(**groups):
        raise SeenError({name: sorted(values) for name, values in groups.items()})

    module = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2)).sum().backward()
    optimizer.step()
    training = train._Training.__new__(train._Training)
    training.accelerator = SimpleNamespace(is_main_process=main)
    monkeypatch.setattr(train, 'pack', pack)
    with pytest.raises(SeenError) as seen:
        training._save(None, module, WeightAverage(module, 0.9), optimizer)
    (groups,) = seen.value.args
    weights = ['bias', 'weight'] if main else []
    states = [f'{i}.{name}' for i in (0, 1) for name in ('exp_avg', 'exp_avg_sq', 'step')]
    assert groups == {
        'model': weights,
        'average': weights,
        'optimizer': states if main else [],
    }
