"""The linear path beside the network: principal components at the start, shared by robots."""

import numpy as np
import pytest
from small_tokenizers import config_of, D, H, motions, normalizer
import torch

from faster_core.embodiment import Kind
from faster_core.errors import ConfigError
from faster_core.tokenizer.autoencoder import Autoencoder
from faster_core.tokenizer.linear_path import LinearPath

MIXED = {'slot_map': 'mixed', 'latent_slots': 4}


def _chunks(count=400, seed=1):
    return torch.from_numpy(normalizer().normalize(motions(count, seed=seed)))


def _fitted(**changes):
    torch.manual_seed(0)
    autoencoder = Autoencoder(config_of('faster', linear_path='pca', **changes)).eval()
    autoencoder.linear.fit([autoencoder.linear.windows(_chunks())])
    return autoencoder


@pytest.mark.parametrize(
    'changes',
    [
        {'latent_dim': 16},  # a slot has 8 rows of at most 2 columns
        {**MIXED, 'latent_dim': 10},  # a time slot has 8 rows of 5 columns
    ],
)
def test_with_room_for_all_components_every_chunk_comes_back_before_any_training(changes):
    autoencoder = _fitted(**changes)
    chunks = _chunks(5, seed=7)
    assert torch.allclose(autoencoder.decode(autoencoder.encode(chunks)), chunks, atol=1e-4)


@pytest.mark.parametrize('latent_dim', [1, 3])
def test_with_less_room_the_largest_components_are_kept(latent_dim):
    autoencoder = _fitted(**MIXED, latent_dim=latent_dim)
    rows = _chunks().reshape(-1, H // 2 * D).numpy().astype(float)
    centred = rows - rows.mean(axis=0)
    basis = np.linalg.svd(centred, full_matrices=False)[2][: 4 * latent_dim]
    expected = rows.mean(axis=0) + centred @ basis.T @ basis
    found = autoencoder.decode(autoencoder.encode(_chunks())).reshape(expected.shape)
    assert np.allclose(found.detach().numpy(), expected, atol=1e-3)


def test_components_are_dealt_out_to_the_cells_in_turn():
    autoencoder = _fitted(**MIXED, latent_dim=5)
    spread = autoencoder.encode(_chunks()).flatten(0, 1).var(dim=0)  # [C_a, d_z]
    in_turn = spread.T.flatten()
    assert (in_turn[1:] <= in_turn[:-1] * (1 + 1e-4)).all()


def test_the_network_adds_nothing_at_first_and_learns():
    autoencoder = _fitted(latent_dim=2)
    chunks = _chunks(8)
    assert torch.equal(autoencoder.encode(chunks), autoencoder.linear.encode(chunks))
    (autoencoder.decode(autoencoder.encode(chunks)) - chunks).abs().mean().backward()
    assert autoencoder.to_patches[-1].weight.grad.abs().sum() > 0
    assert autoencoder.to_latent[-1].weight.grad.abs().sum() > 0


def test_robots_of_one_layout_have_the_same_maps_and_columns_of_their_own():
    fields = {'layout': 'by_kind', 'slot_width': 2, 'linear_path': 'pca', 'latent_dim': 16}
    arm, hand = int(Kind.JOINT_POSITION), int(Kind.GRIPPER_POSITION)
    first = Autoencoder(config_of('faster', slot_kinds=(arm, hand), **fields))
    small = {'group_sizes': (2,), 'slots_per_group': (1,), 'velocity_dims': ()}
    other = Autoencoder(config_of('faster', slot_kinds=(arm,), **fields, **small), first)
    first.linear.fit([first.linear.windows(_chunks())])
    assert other.linear.to_latent is first.linear.to_latent
    chunks = _chunks(3)[:, :, :2]
    assert torch.allclose(other.decode(other.encode(chunks)), chunks, atol=1e-4)


def test_data_that_never_varies_does_not_break_the_start():
    path = LinearPath(config_of('faster', linear_path='pca', **MIXED))
    still = torch.full((50, H, D), 0.25)
    path.fit([path.windows(still)])
    assert torch.allclose(path.decode(path.encode(still)), still, atol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'linear_path': 'dct'}, "linear_path: expected one of none, pca, found 'dct'"),
        ({'encode_beam': 0}, 'encode_beam: expected at least 1, found 0'),
    ],
)
def test_wrong_fields_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of('faster', **changes)
