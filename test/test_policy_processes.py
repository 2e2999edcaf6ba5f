"""Training on several processes: one joint batch, whoever computes it."""

import itertools

import numpy as np
import pytest
from tiny_checkpoint import tiny_tokenizer, write_demos
import torch
from training_helpers import (
    lines,
    same,
    small_config,
    state,
    torchrun,
    train_in_group,
    weights,
)

from faster_core.errors import ConfigError
from faster_core.policy import Policy
from faster_core.policy.train import train
from faster_core.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    monkeypatch.setattr(RunFolder, 'plot', lambda self: None)


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=4, steps=5)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer')
    tiny_tokenizer().save_pretrained(path)
    return path


def _long(**fields):
    return small_config(
        **{'steps': 50, 'batch_size': 8, 'log_every': 1, 'save_every': 25, **fields}
    )


@pytest.fixture(scope='module')
def alone(tmp_path_factory, demos, tokenizer):
    out = tmp_path_factory.mktemp('policy') / 'one'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, 'plot', lambda self: None)
        list(train(_long(), demos, tokenizer, out))
    return out


def _losses(out):
    return np.array([line['loss'] for line in lines(out) if 'loss' in line])


def test_two_processes_have_the_losses_of_one_on_the_same_joint_batch(
    tmp_path, demos, tokenizer, alone
):
    torchrun(_long(), demos, tokenizer, tmp_path / 'two', processes=2)
    one, two = _losses(alone), _losses(tmp_path / 'two')
    assert len(one) == len(two) == 50
    difference = np.abs(one - two).max()
    print(f'largest difference of the losses of 1 and 2 processes in 50 steps: {difference:.2e}')
    assert difference < 1e-4
    assert one[-5:].mean() < one[:5].mean()


@pytest.mark.slow  # what one process resumes, and what two of them do, is tested in every run
def test_two_processes_interrupted_and_resumed_end_with_the_same_weights(
    tmp_path, demos, tokenizer
):
    config = small_config(gradient_accumulation=2)
    train_in_group(config, demos, tokenizer, tmp_path / 'whole', processes=2)
    out = tmp_path / 'cut'
    # A state of step 2 as an interruption leaves it: three processes' worth of files are gone.
    list(itertools.islice(run_two(config, demos, tokenizer, out), 3))
    assert 2 <= RunFolder(out, config.to_dict()).load_state()[0] < 6
    train_in_group(config, demos, tokenizer, out, processes=2)
    assert same(weights(tmp_path / 'whole'), weights(out))


def run_two(config, demos, tokenizer, out):
    """Train with two processes of our own."""
    import dataclasses

    return train(dataclasses.replace(config, workers=2), demos, tokenizer, out)


def test_sharded_over_two_processes_the_losses_are_the_same(tmp_path, demos, tokenizer, alone):
    config = _long(fsdp=True, steps=50, gradient_checkpointing=True)
    out = tmp_path / 'run'
    train_in_group(config, demos, tokenizer, out, processes=2)
    assert np.abs(_losses(alone) - _losses(out)).max() < 1e-4
    policy = Policy.from_pretrained(out / 'checkpoint', device='cpu')
    assert np.isfinite(policy.predict(policy.make_example()).values).all()
    for name, value in state(alone, 'model').items():
        assert torch.allclose(value, state(out, 'model')[name], atol=1e-3), name


@pytest.mark.slow
def test_a_sharded_training_resumes_exactly(tmp_path, demos, tokenizer):
    config, out = small_config(fsdp=True), tmp_path / 'run'
    train_in_group(config, demos, tokenizer, out, processes=2)
    expected = weights(out)
    assert RunFolder(out, config.to_dict()).load_state()[0] == 6
    again = tmp_path / 'again'
    list(itertools.islice(run_two(config, demos, tokenizer, again), 2))
    train_in_group(config, demos, tokenizer, again, processes=2)
    assert same(expected, weights(again))


def test_one_process_cannot_shard(tmp_path, demos, tokenizer):
    with pytest.raises(ConfigError, match='fsdp: there is one process'):
        next(train(small_config(fsdp=True), demos, tokenizer, tmp_path / 'run'))
