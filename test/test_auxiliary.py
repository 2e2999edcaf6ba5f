"""Regressions that only training has: landmarks as targets, never as inputs."""

import dataclasses

import numpy as np
import pytest
from tiny_checkpoint import write_demos
import torch

from faster_core.config import from_mapping
from faster_core.data.episodes import load_episode, save_episode
from faster_core.errors import ConfigError
from faster_core.policy.auxiliary import Auxiliary, AuxiliaryWeights
from faster_core.policy.dataset import episode_places, Samples

ROWS, COLUMNS, OBJECTS = 4, 3, 2


def _samples(places=3 * OBJECTS, target=9, count=5):
    rng = np.random.default_rng(0)
    sizes = {'goal': COLUMNS, 'target': target, 'places': places}
    arrays = {k: rng.normal(size=(count, n)).astype(np.float32) for k, n in sizes.items()}
    return Samples(
        images=np.zeros((count, 1, 2, 2, 3), np.uint8),
        state=np.zeros((count, 2), np.float32),
        tokens=np.zeros((count, 6), np.int64),
        chunk=rng.normal(size=(count, ROWS, COLUMNS)).astype(np.float32),
        text=np.zeros(count, np.int64),
        texts=['grasp the cup'],
        episode=np.arange(count),
        **arrays,
    )


def _heads(samples, **weights):
    torch.manual_seed(0)
    return Auxiliary(
        AuxiliaryWeights(**weights), samples, width=8, num_image_tokens=4, num_state_tokens=2
    )


def _labels(samples):
    names = ('chunk', 'goal', 'target', 'places')
    return {n: torch.from_numpy(getattr(samples, n)) for n in names}


def test_the_sum_weighs_every_error():
    samples = _samples()
    weights = {'chunk': 1.0, 'goal': 0.5, 'target': 0.25, 'places': 2.0}
    features, hidden = torch.randn(5, 4, 8), torch.randn(5, 9, 8)
    total, errors = _heads(samples, **weights)(features, hidden, **_labels(samples))
    assert total.item() == pytest.approx(sum(weights[k] * e.item() for k, e in errors.items()))


def test_places_come_from_image_tokens_and_the_rest_from_the_last_tokens_of_the_backbone():
    samples = _samples()
    heads, features, hidden = _heads(samples), torch.randn(5, 4, 8), torch.randn(5, 9, 8)
    _, before = heads(features, hidden, **_labels(samples))
    _, other_images = heads(features + 1.0, hidden, **_labels(samples))
    changed = {k for k in before if before[k] != other_images[k]}
    assert changed == {'places'}
    early = hidden.clone()
    early[:, :-2] += 1.0
    _, other_words = heads(features, early, **_labels(samples))
    assert all(before[k] == other_words[k] for k in before)


def test_without_landmarks_only_chunk_and_goal_are_regressed():
    samples = _samples(places=0, target=0)
    features, hidden = torch.randn(5, 4, 8), torch.randn(5, 9, 8)
    total, errors = _heads(samples)(features, hidden, **_labels(samples))
    assert set(errors) == {'chunk', 'goal'}
    assert torch.isfinite(total)


def test_an_unknown_weight_is_refused():
    with pytest.raises(ConfigError, match='colour'):
        from_mapping(AuxiliaryWeights, {'colour': 1.0}, source='auxiliary')


# --- landmarks of an episode ------------------------------------------------------------------


@pytest.fixture
def episode(tmp_path):
    path = next(write_demos(tmp_path, episodes=1).glob('*.npz'))
    return load_episode(path), path


def _with_landmarks(episode, **points):
    steps = episode.num_steps
    tiled = {k: np.tile(np.array(p, np.float32), (steps, 1)) for k, p in points.items()}
    return dataclasses.replace(episode, target='cup', landmarks=tiled)


def test_the_target_is_told_from_base_and_hands_and_far_hands_are_alike(episode):
    seen = _with_landmarks(
        episode[0],
        cup=[0.5, 0.2, 0.7],
        bowl=[0.4, -0.3, 0.7],
        left_hand=[0.45, 0.25, 0.8],
        right_hand=[0.4, -0.9, 0.8],
    )
    target, places = episode_places(seen)
    base, left, right = target[0].reshape(3, 3)
    assert base == pytest.approx([5.0, 2.0, 7.0])
    assert left == pytest.approx([0.5, -0.5, -1.0], abs=1e-5)
    assert right == pytest.approx([1.0, 3.0, -1.0], abs=1e-5)  # 1.1 m away reads 0.3 m
    assert places[0] == pytest.approx([4.0, -3.0, 7.0, 5.0, 2.0, 7.0])
    assert len(places) == len(target) == seen.num_steps


def test_an_episode_without_landmarks_has_none(episode):
    target, places = episode_places(episode[0])
    assert target.shape == places.shape == (episode[0].num_steps, 0)


def test_landmarks_are_read_back_as_they_were_written(episode):
    written, path = _with_landmarks(episode[0], cup=[0.5, 0.2, 0.7]), episode[1]
    save_episode(path, written)
    back = load_episode(path)
    assert back.target == 'cup'
    assert np.array_equal(back.landmarks['cup'], written.landmarks['cup'])
