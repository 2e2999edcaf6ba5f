"""Training of FASTerVLA: samples, augmentation, resume, several processes."""

import collections
import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_checkpoint import INSTRUCTIONS, r1_lite, tiny_tokenizer, write_demos
import torch
from training_helpers import lines, same, small_config, STEPS, weights

from faster_core.data.episodes import chunk_labels, EpisodeError, load_episode
from faster_core.errors import ConfigError, FasterVlaError, InstructionError
from faster_core.policy import Policy
from faster_core.policy.augment import augment
from faster_core.policy.batches import Batches
from faster_core.policy.checkpoint import load
from faster_core.policy.dataset import build_cache, MADE_FROM, open_cache
from faster_core.policy.train import train
from faster_core.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    # Drawing takes longer than these runs; `uninterrupted`, of module scope, still draws.
    monkeypatch.setattr(RunFolder, 'plot', lambda self: None)


@pytest.fixture(scope='module')
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp('demos'), episodes=4, steps=5)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer')
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, demos, tokenizer):
    out = tmp_path_factory.mktemp('policy') / 'run'
    rows = list(train(small_config(), demos, tokenizer, out, {'commit': 'abc'}))
    return out, rows


# --- a run --------------------------------------------------------------------------------------


def test_a_run_reports_logs_and_leaves_a_policy_that_predicts(uninterrupted):
    out, rows = uninterrupted
    assert [row['step'] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]['progress'] == 1.0
    assert {'level0', 'level1', 'level2', 'end', 'auxiliary'} <= set(rows[-1])
    assert {line['step'] for line in lines(out) if 'held_out_error' in line} == {2, 4, 6}
    assert (out / 'metrics.png').read_bytes().startswith(b'\x89PNG')
    policy = Policy.from_pretrained(out / 'checkpoint', device='cpu')
    assert policy.predict(policy.make_example()).values.shape == (32, 21)


def test_metadata_tells_steps_data_and_commit(uninterrupted):
    metadata = json.loads((uninterrupted[0] / 'checkpoint' / 'metadata.json').read_text())
    train_part = metadata['train']
    assert train_part['commit'] == 'abc'
    assert train_part['steps'] == STEPS
    assert train_part['samples'] == 4 * STEPS
    assert train_part['episodes'] == 4
    assert 0 < train_part['held_out_error'] < 3


def test_training_changes_the_weights_and_saves_their_average(uninterrupted):
    state = load_file(uninterrupted[0] / 'state.safetensors')
    head = 'model.head.weight'
    assert torch.equal(state[f'average/{head}'], weights(uninterrupted[0])['head.weight'])
    assert not torch.equal(state[f'average/{head}'], state[f'model/{head}'])


def test_saving_often_does_not_change_what_is_learnt(tmp_path, demos, tokenizer, uninterrupted):
    # Regression: evaluating the averaged weights overwrote the trained ones at every save.
    list(train(small_config(save_every=100), demos, tokenizer, tmp_path / 'run'))
    assert same(weights(tmp_path / 'run'), weights(uninterrupted[0]))


@pytest.mark.parametrize('stop_after', [1, 2, 5])
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path, demos, tokenizer, uninterrupted, stop_after
):
    out = tmp_path / 'run'
    list(itertools.islice(train(small_config(), demos, tokenizer, out), stop_after))
    rows = list(train(small_config(), demos, tokenizer, out))
    assert rows[0]['step'] == stop_after // 2 * 2 + 1
    assert same(weights(out), weights(uninterrupted[0]))


def test_another_configuration_in_the_same_folder_is_refused(demos, tokenizer, uninterrupted):
    with pytest.raises(ConfigError, match='another configuration'):
        next(train(small_config(seed=5), demos, tokenizer, uninterrupted[0]))


@pytest.fixture(scope='module')
def another_tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp('another')
    tiny_tokenizer(seed=7).save_pretrained(path)
    return path


def test_another_tokenizer_in_the_same_folder_is_refused(
    demos, tokenizer, another_tokenizer, uninterrupted
):
    with pytest.raises(ConfigError, match=r'cache was made from .* \(tokenizer: checksum'):
        next(train(small_config(), demos, another_tokenizer, uninterrupted[0]))
    # The same files elsewhere, as the result of a run folder, are the same tokenizer.
    run = another_tokenizer / 'run'
    shutil.copytree(tokenizer, run / 'checkpoint')
    assert list(train(small_config(), demos, run, uninterrupted[0])) == []


def test_other_demonstrations_in_the_same_folder_are_refused(
    tmp_path, demos, tokenizer, uninterrupted
):
    others = write_demos(tmp_path / 'others', episodes=4, steps=5, seed=9)
    message = r'\(demonstrations: 4 episodes, checksum \w+; now: 4 episodes, checksum \w+\): give'
    with pytest.raises(ConfigError, match=message):
        next(train(small_config(), others, tokenizer, uninterrupted[0]))
    copied = shutil.copytree(demos, tmp_path / 'copied')
    assert list(train(small_config(), copied, tokenizer, uninterrupted[0])) == []
    (copied / '0003.npz').unlink()
    with pytest.raises(ConfigError, match=r'4 episodes, .*now: 3 episodes'):
        next(train(small_config(), copied, tokenizer, uninterrupted[0]))


def test_a_run_of_before_checksums_were_recorded_goes_on(
    tmp_path, demos, tokenizer, uninterrupted
):
    out = tmp_path / 'run'
    list(itertools.islice(train(small_config(), demos, tokenizer, out), 3))
    (out / 'cache' / MADE_FROM).unlink()
    assert [r['step'] for r in train(small_config(), demos, tokenizer, out)] == [3, 4, 5, 6]
    assert same(weights(out), weights(uninterrupted[0]))


def test_a_time_limit_ends_a_run_early_with_a_checkpoint(tmp_path, demos, tokenizer):
    config = small_config(steps=10**6, max_minutes=1e-4)
    rows = list(train(config, demos, tokenizer, tmp_path / 'run'))
    assert len(rows) < 100
    assert load(tmp_path / 'run' / 'checkpoint').embodiment.name == 'r1_lite'


def test_the_expert_waits_for_the_backbone(tmp_path, demos, tokenizer):
    config = small_config(backbone_first=0.5)
    out = tmp_path / 'run'
    first = list(itertools.islice(train(config, demos, tokenizer, out), STEPS // 2))
    logged = [row for row in first if 'chunk' in row]
    assert logged
    assert not any('level0' in row for row in logged)
    last = list(train(config, demos, tokenizer, out))[-1]
    assert {'level0', 'chunk'} <= set(last)


def test_a_batch_the_workers_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r'batch_size 5 .* workers 2'):
        small_config(batch_size=5, workers=2)


def test_paraphrases_join_the_vocabulary(tmp_path, demos, tokenizer):
    config = small_config(steps=1, paraphrases={INSTRUCTIONS[0]: ['grasp crimson thing']})
    list(train(config, demos, tokenizer, tmp_path / 'run'))
    text = load(tmp_path / 'run' / 'checkpoint').text
    text.check('grasp crimson thing')
    with pytest.raises(InstructionError):
        text.check('seize vermilion stuff')


# --- several processes ------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_one_policy(tmp_path, demos, tokenizer):
    config = small_config(workers=2)
    out = tmp_path / 'run'
    rows = list(train(config, demos, tokenizer, out))
    assert [row['step'] for row in rows] == list(range(1, STEPS + 1))
    policy = Policy.from_pretrained(out / 'checkpoint', device='cpu')
    assert np.isfinite(policy.predict(policy.make_example()).values).all()


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_run_with_an_error(tmp_path, demos, tokenizer):
    config = small_config(workers=2, held_out=1)
    with pytest.raises(FasterVlaError, match='training process ended'):
        list(train(config, demos, tokenizer, tmp_path / 'run'))


# --- samples ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def samples(tmp_path_factory, demos):
    folder = tmp_path_factory.mktemp('cache')
    build_cache(demos, folder, r1_lite(), tiny_tokenizer(), 48)
    return open_cache(folder)


def test_samples_hold_what_the_episodes_say(samples, demos):
    vq = tiny_tokenizer()
    assert len(samples) == 20
    assert samples.images.shape == (20, 3, 48, 48, 3)
    assert samples.texts == list(INSTRUCTIONS[:4])
    episode = load_episode(demos / '0002.npz')
    rows = slice(10, 15)
    labels = chunk_labels(episode.action, r1_lite())
    assert (samples.episode[rows] == 2).all() and (samples.text[rows] == 2).all()
    assert np.array_equal(samples.state[rows], episode.state)
    assert np.allclose(samples.chunk[rows], vq.normalizer.normalize(labels))
    offsets = np.arange(60) // 20 * 32
    assert np.array_equal(vq.codes(samples.tokens[rows] - offsets), vq.encode(labels))


def test_samples_of_several_folders_stand_one_after_the_other(tmp_path, demos, samples):
    more = tmp_path / 'more'
    more.mkdir()
    shutil.copy(demos / '0001.npz', more)
    build_cache([demos, more], tmp_path / 'cache', r1_lite(), tiny_tokenizer(), 48)
    both = open_cache(tmp_path / 'cache')
    assert np.array_equal(both.state[:20], samples.state)
    assert np.array_equal(both.tokens[20:], samples.tokens[5:10])
    assert np.array_equal(both.text[20:], samples.text[5:10])
    assert both.episode[20:].tolist() == [4] * 5
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(ConfigError, match=r'no episodes \(\*\.npz\) in .*empty$'):
        build_cache([demos, empty], tmp_path / 'other', r1_lite(), tiny_tokenizer(), 48)


def test_a_complete_cache_is_not_built_again(tmp_path, demos):
    for _ in range(2):
        build_cache(demos, tmp_path / 'cache', r1_lite(), tiny_tokenizer(), 24)
        times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'cache').iterdir()}
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'cache').iterdir()} == times


def test_a_complete_cache_needs_the_demonstrations_only_to_compare_them(tmp_path, demos):
    folder = tmp_path / 'cache'
    build_cache(demos, folder, r1_lite(), tiny_tokenizer(), 24)
    arguments = (tmp_path / 'nowhere', folder, r1_lite(), tiny_tokenizer(), 24)
    with pytest.raises(ConfigError, match=f'now: 0 episodes.* without {MADE_FROM} the samples'):
        build_cache(*arguments)
    (folder / MADE_FROM).unlink()
    build_cache(*arguments)


def test_a_cache_of_another_size_or_embodiment_is_refused(tmp_path, demos):
    build_cache(demos, tmp_path, r1_lite(), tiny_tokenizer(), 24)
    with pytest.raises(ConfigError, match='image_size: 24; now: 48'):
        build_cache(demos, tmp_path, r1_lite(), tiny_tokenizer(), 48)
    other = dataclasses.replace(r1_lite(), source=r1_lite().source + '\n')
    with pytest.raises(ConfigError, match=r'\(embodiment: checksum'):
        build_cache(demos, tmp_path, other, tiny_tokenizer(), 24)


def test_a_file_that_is_no_episode_is_told_when_it_is_compared(tmp_path, demos):
    build_cache(demos, tmp_path / 'cache', r1_lite(), tiny_tokenizer(), 24)
    (tmp_path / '0000.npz').write_bytes(b'half')
    with pytest.raises(EpisodeError, match=r'0000\.npz'):
        build_cache(tmp_path, tmp_path / 'cache', r1_lite(), tiny_tokenizer(), 24)


def test_demonstrations_of_another_embodiment_are_refused(tmp_path, demos):
    other = dataclasses.replace(r1_lite(), source=r1_lite().source + '\n')
    with pytest.raises(ConfigError, match='another version of embodiment'):
        build_cache(demos, tmp_path / 'cache', other, tiny_tokenizer(), 48)


def test_held_out_episodes_never_enter_a_batch(tmp_path, demos, tokenizer, monkeypatch):
    seen = set()
    make = Batches.make

    def spy(self, rows, rng=None):
        if rng is not None:
            seen.update(self.samples.episode[rows].tolist())
        return make(self, rows, rng)

    monkeypatch.setattr(Batches, 'make', spy)
    list(train(small_config(steps=12, save_every=12), demos, tokenizer, tmp_path / 'run'))
    # Every third of the episodes 0, 1, 2, 3 is held out.
    assert seen == {1, 2}


def test_episodes_that_take_turns_are_held_out_of_every_instruction(samples):
    # Two instructions that take turns: every second episode would be of one of them only.
    turns = dataclasses.replace(samples, text=samples.episode % 2)
    held = turns.held_out(2)
    assert [held[turns.episode == e].tolist() for e in range(4)] == [
        [True] * 5,
        [True] * 5,
        [False] * 5,
        [False] * 5,
    ]


@pytest.mark.parametrize(('share', 'expected'), [(1.0, {0, 1}), (0.0, {0, 1, 2, 3, 4})])
def test_the_first_rows_of_episodes_can_be_drawn_more_often(
    tmp_path, demos, tokenizer, monkeypatch, share, expected
):
    seen = collections.Counter()
    make = Batches.make

    def spy(self, rows, rng=None):
        if rng is not None:
            seen.update((rows % 5).tolist())  # all episodes have 5 rows
        return make(self, rows, rng)

    monkeypatch.setattr(Batches, 'make', spy)
    config = small_config(steps=12, save_every=12, start_share=share, start_rows=2)
    list(train(config, demos, tokenizer, tmp_path / 'run'))
    assert set(seen) == expected


def test_a_run_without_episodes_to_train_on_is_refused(tmp_path, demos, tokenizer):
    with pytest.raises(ConfigError, match='held_out 1 leaves no episode'):
        list(train(small_config(held_out=1), demos, tokenizer, tmp_path / 'run'))


# --- augmentation -------------------------------------------------------------------------------


def _images(seed=0, batch=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, 2, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(('max_shift', 'colour'), [(0, 0.0), (2, 0.0), (0, 0.2), (3, 0.3)])
def test_augmentation_keeps_shape_and_type_and_its_input(max_shift, colour):
    images = _images()
    before = images.copy()
    result = augment(images, np.random.default_rng(1), max_shift=max_shift, colour=colour)
    assert result.shape == images.shape and result.dtype == np.uint8
    assert np.array_equal(images, before)


def test_augmentation_that_is_off_changes_nothing():
    images = _images()
    assert np.array_equal(augment(images, np.random.default_rng(1), max_shift=0, colour=0), images)


def test_a_shift_moves_every_image_by_whole_pixels_and_repeats_edges():
    images = _images(batch=6)
    shifted = augment(images, np.random.default_rng(1), max_shift=2, colour=0)
    found = set()
    pairs = zip(images.reshape(-1, 16, 16, 3), shifted.reshape(-1, 16, 16, 3), strict=True)
    for image, result in pairs:
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode='edge')
        moves = [
            (dy, dx)
            for dy, dx in itertools.product(range(5), repeat=2)
            if np.array_equal(padded[dy : dy + 16, dx : dx + 16], result)
        ]
        assert len(moves) == 1
        found.update(moves)
    assert len(found) > 3


def test_a_change_of_colour_is_bounded_and_differs_between_images():
    grey = np.full((8, 2, 4, 4, 3), 128, np.uint8)
    result = augment(grey, np.random.default_rng(1), max_shift=0, colour=0.1).astype(int)
    assert np.abs(result - 128).max() <= 13
    assert len(np.unique(result)) > 5


def test_the_same_generator_state_gives_the_same_images():
    images = _images()
    results = [
        augment(images, np.random.default_rng(seed), max_shift=2, colour=0.2) for seed in (1, 1, 2)
    ]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
