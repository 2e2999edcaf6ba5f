"""Training of FASTerVQ: it learns, it resumes exactly, it leaves its traces."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from tiny_checkpoint import home_action, r1_lite, random_chunks, VQ, write_demos
import torch

from faster_core import paths
from faster_core.data.episodes import EpisodeError, load_episode, save_episode
from faster_core.errors import ConfigError
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.evaluate import evaluate
from faster_core.tokenizer.train import held_out_chunks, TokenizerTrainConfig, train
from faster_core.training.run_folder import RunFolder


def _config(**fields):
    values = {
        'embodiment': str(paths.embodiment_file('r1_lite')),
        'model': dict(VQ),
        'steps': 12,
        'batch_size': 16,
        'held_out': 4,
        'log_every': 4,
        'save_every': 4,
    }
    return TokenizerTrainConfig(**{**values, **fields})


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    # Drawing takes longer than these runs; `uninterrupted`, of module scope, still draws.
    monkeypatch.setattr(RunFolder, 'plot', lambda self: None)


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=8, steps=32, size=2)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, demos):
    out = tmp_path_factory.mktemp('tokenizer') / 'run'
    rows = list(train(_config(), demos, out))
    return out, rows


def _weights(out):
    return FasterVQ.from_pretrained(out / 'checkpoint').model.state_dict()


def test_every_step_is_reported_and_losses_every_few(uninterrupted):
    _, rows = uninterrupted
    assert [row['step'] for row in rows] == list(range(1, 13))
    logged = [row['step'] for row in rows if 'time' in row]
    assert logged == [4, 8, 12]
    assert all({'time', 'dct', 'commitment'} <= set(rows[step - 1]) for step in logged)


def test_metrics_plot_and_checkpoint_are_there(uninterrupted):
    out, _ = uninterrupted
    lines = [json.loads(x) for x in (out / 'metrics.jsonl').read_text().splitlines()]
    assert {line['step'] for line in lines} == {4, 8, 12}
    held_out = [line for line in lines if 'held_out_left_arm' in line]
    assert len(held_out) == 3
    assert (out / 'metrics.png').read_bytes().startswith(b'\x89PNG')
    assert FasterVQ.from_pretrained(out / 'checkpoint').encode(random_chunks(2)).shape[0] == 2


def test_no_file_of_a_run_is_a_pickle(uninterrupted):
    suffixes = {p.suffix for p in uninterrupted[0].rglob('*') if p.is_file()}
    assert suffixes <= {'.json', '.jsonl', '.png', '.safetensors'}


@pytest.mark.parametrize('stop_after', [3, 4, 6, 11])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, demos, uninterrupted, stop_after):
    out = tmp_path / 'run'
    list(itertools.islice(train(_config(), demos, out), stop_after))
    # Whatever else drew random numbers in between must not matter.
    torch.manual_seed(999)
    rows = list(train(_config(), demos, out))
    assert rows[0]['step'] == stop_after // 4 * 4 + 1
    expected = _weights(uninterrupted[0])
    found = _weights(out)
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_a_finished_run_is_not_trained_again(tmp_path, demos):
    config = _config(steps=4)
    list(train(config, demos, tmp_path / 'run'))
    before = (tmp_path / 'run' / 'checkpoint' / 'model.safetensors').read_bytes()
    assert list(train(config, demos, tmp_path / 'run')) == []
    assert (tmp_path / 'run' / 'checkpoint' / 'model.safetensors').read_bytes() == before


def test_another_configuration_in_the_same_folder_is_refused(demos, uninterrupted):
    with pytest.raises(ConfigError, match='another configuration'):
        next(train(_config(learning_rate=5e-4), demos, uninterrupted[0]))


def test_the_seed_decides_the_result(tmp_path, demos, uninterrupted):
    list(train(_config(seed=1), demos, tmp_path / 'run'))
    other, weights = _weights(tmp_path / 'run'), _weights(uninterrupted[0])
    assert not all(torch.equal(other[k], v) for k, v in weights.items())


def test_a_folder_without_demonstrations_is_refused(tmp_path):
    with pytest.raises(EpisodeError, match='no episodes'):
        next(train(_config(), tmp_path, tmp_path / 'run'))


def test_an_unknown_field_of_the_model_is_refused(tmp_path, demos):
    with pytest.raises((ConfigError, TypeError), match='colour'):
        next(train(_config(model=VQ | {'colour': 3}), demos, tmp_path / 'run'))


def test_held_out_episodes_are_every_nth(demos):
    embodiment = r1_lite()
    assert held_out_chunks(demos, embodiment, 4, 'absolute').shape == (2 * 32, 32, 21)
    first = held_out_chunks(demos, embodiment, 8, 'absolute')
    assert np.array_equal(held_out_chunks(demos, embodiment, 4, 'absolute')[:32], first)


def test_relative_chunks_are_absolute_ones_less_the_state_they_start_from(demos):
    embodiment = r1_lite()
    absolute = held_out_chunks(demos, embodiment, 8, 'absolute')
    relative = held_out_chunks(demos, embodiment, 8, 'state')
    state = load_episode(min(demos.glob('*.npz'))).state
    arm = embodiment.action_slices['left_arm']
    expected = state[:, None, embodiment.state_slices['left_arm']].repeat(32, axis=1)
    assert np.allclose((absolute - relative)[:, :, arm], expected, atol=1e-6)
    base = embodiment.action_slices['base']
    assert np.array_equal(absolute[:, :, base], relative[:, :, base])


def _episodes_of_one_posture_each(folder):
    """Write demonstrations in which one number per episode says all."""
    rng = np.random.default_rng(0)
    pattern = rng.normal(0.0, 0.05, 21)
    pattern[[6, 13]] = 0.0
    for path in sorted(write_demos(folder, episodes=20, steps=16, size=2).glob('*.npz')):
        posture = home_action() + rng.uniform(-1, 1) * pattern
        action = np.tile(posture, (16, 1)).astype(np.float32)
        save_episode(path, dataclasses.replace(load_episode(path), action=action))
    return folder


def test_a_short_fit_reduces_the_error_on_unseen_chunks(tmp_path):
    demos = _episodes_of_one_posture_each(tmp_path / 'demos')
    config = _config(
        model=VQ | {'width': 32},
        steps=150,
        batch_size=32,
        learning_rate=5e-3,
        offset_noise=0.0,
        ema_decay=0.5,
        save_every=150,
    )
    embodiment = r1_lite()
    unseen = held_out_chunks(demos, embodiment, config.held_out, 'absolute')
    list(train(config, demos, tmp_path / 'run'))
    tokenizer = FasterVQ.from_pretrained(tmp_path / 'run' / 'checkpoint')
    error = evaluate(tokenizer, embodiment, unseen)['mae_normalized']
    # The best chunk that says nothing: the middle of every dimension's range.
    middle = np.abs((unseen - tokenizer.normalizer.centre) / tokenizer.normalizer.half_range)
    assert error['3'] < 0.8 * middle.mean()
    assert error['3'] < 0.9 * error['1']


# --- the report -----------------------------------------------------------------------------


def test_the_report_counts_errors_per_component_and_threshold(uninterrupted):
    embodiment = r1_lite()
    tokenizer = FasterVQ.from_pretrained(uninterrupted[0] / 'checkpoint')
    chunks = random_chunks(20)
    report = evaluate(tokenizer, embodiment, chunks, batch=7)
    error = np.abs(tokenizer.decode(tokenizer.encode(chunks)) - chunks)
    assert report['mae']['left_gripper'] == pytest.approx(error[:, :, 6].mean(), rel=1e-4)
    assert report['vrr']['0.005'] == pytest.approx((error < 5e-3).mean(), abs=1e-3)
    assert report['vrr']['0.001'] <= report['vrr']['0.005'] <= report['vrr']['0.01']
    assert list(report['mae_normalized']) == ['1', '2', '3']
    assert len(report['perplexity']) == len(report['used']) == 3
    assert all(0 < share <= 1 for share in report['used'])


def test_perplexity_is_the_number_of_evenly_used_codes(uninterrupted, monkeypatch):
    tokenizer = FasterVQ.from_pretrained(uninterrupted[0] / 'checkpoint')
    codes = np.arange(4 * 60).reshape(4, 3, 2, 10) % 8
    monkeypatch.setattr(tokenizer, 'encode', lambda chunks: codes)
    report = evaluate(tokenizer, r1_lite(), random_chunks(4))
    assert report['used'] == [8 / VQ['codebook_size']] * 3
    assert all(p == pytest.approx(8.0, abs=0.2) for p in report['perplexity'])
