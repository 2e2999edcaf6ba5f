"""Encoder variants, slot maps, strides, presets: what the configuration can ask for."""

import numpy as np
import pytest
from scipy.fft import dctn
from small_tokenizers import config_of, D, H, motions, normalizer
import torch

from faster_core.errors import ConfigError
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.autoencoder import Autoencoder
from faster_core.tokenizer.loss import dct_matrix, reconstruction_loss
from faster_core.tokenizer.presets import PRESETS

# --- encoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['taae', 'transformer', 'cnn'])
def test_every_encoder_gives_the_same_grid_and_comes_back(kind):
    autoencoder = Autoencoder(config_of('faster', encoder=kind))
    latents = autoencoder.encode(torch.randn(3, H, D))
    assert latents.shape == (3, 2, 3, 8)
    assert autoencoder.decode(latents).shape == (3, H, D)


@pytest.mark.parametrize(
    ('kind', 'present'),
    [
        ('taae', {'qkv', 'out', 'local', 'norm1', 'norm2', 'norm3', 'mlp'}),
        ('transformer', {'qkv', 'out', 'norm1', 'norm3', 'mlp'}),
        ('cnn', {'local', 'mix', 'norm2', 'norm3', 'mlp'}),
    ],
)
def test_an_encoder_has_the_parts_of_its_kind_only(kind, present):
    block = Autoencoder(config_of('faster', encoder=kind)).encoder[0]
    assert {name for name, _ in block.named_children()} == present


def test_a_convolution_sees_its_neighbourhood_and_attention_everything():
    torch.manual_seed(0)
    reach = {}
    for kind in ('transformer', 'cnn'):
        config = config_of('faster', encoder=kind, patch_length=1, time_slots=16)
        encoder = Autoencoder(config).encoder
        x = torch.randn(1, 16, 3, 16, requires_grad=True)
        encoder(x)[0, 0].sum().backward()
        reach[kind] = int((x.grad[0].abs().sum(dim=(1, 2)) > 0).sum())
    assert reach == {'transformer': 16, 'cnn': 2}


def test_all_parts_of_an_encoder_learn():
    for kind in ('taae', 'transformer', 'cnn'):
        autoencoder = Autoencoder(
            config_of('faster', encoder=kind, slot_map='mixed', latent_slots=4)
        )
        x = torch.randn(2, H, D)
        (autoencoder.decode(autoencoder.encode(x)) - x).abs().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in autoencoder.parameters())


# --- slots and strides --------------------------------------------------------------------------


@pytest.mark.parametrize('slots', [1, 2, 5])
def test_mixed_slots_make_the_number_of_tokens_free(slots):
    config = config_of('faster', slot_map='mixed', latent_slots=slots)
    tokenizer = FasterVQ(config, normalizer())
    assert config.latent_shape == (2, slots)
    assert config.num_tokens == 3 * 2 * slots
    codes = tokenizer.encode(motions(2))
    assert codes.shape == (2, 3, 2, slots)
    assert tokenizer.decode(codes).shape == (2, H, D)


@pytest.mark.parametrize(
    'fields',
    [
        {'slot_map': 'mixed'},
        {'latent_slots': 4},
        {'slot_map': 'mixed', 'latent_slots': 0},
    ],
)
def test_slots_and_their_map_must_agree(fields):
    with pytest.raises(ConfigError, match='latent_slots: expected a number >= 1 with slot_map'):
        config_of('faster', **fields)


@pytest.mark.parametrize(
    ('patch', 'slots', 'given', 'resolved'),
    [
        (4, 2, None, (2,)),
        (2, 2, None, (2, 2)),
        (2, 2, [4], (4,)),
        (4, 4, None, ()),
        (1, 1, [16], (16,)),
    ],
)
def test_strides_take_the_patches_to_the_slots(patch, slots, given, resolved):
    config = config_of('faster', patch_length=patch, time_slots=slots, strides=given)
    assert config.strides == resolved
    latents = Autoencoder(config).encode(torch.randn(1, H, D))
    assert latents.shape[1] == slots


@pytest.mark.parametrize('strides', [[2], [3], [1, 4], [-2, -2]])
def test_strides_that_do_not_are_refused(strides):
    with pytest.raises(ConfigError, match=r'horizon 16: expected patch_length 2 \* time_slots 2'):
        config_of('faster', patch_length=2, time_slots=2, strides=strides)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'encoder': 'lstm'}, "encoder: expected one of taae, transformer, cnn, found 'lstm'"),
        ({'slot_map': 'any'}, "slot_map: expected one of split, mixed, found 'any'"),
        ({'velocity_dims': (5,)}, r'velocity_dims: expected 0..4, found \[5\]'),
    ],
)
def test_unknown_choices_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        config_of('faster', **fields)


# --- loss ---------------------------------------------------------------------------------------


def test_the_two_dimensional_transform_is_that_of_scipy():
    predicted, target = torch.randn(2, H, D), torch.randn(2, H, D)
    losses = reconstruction_loss(predicted, target, dct_matrix(H), both=True)
    error = (predicted - target).numpy()
    expected = np.abs(dctn(error, axes=(1, 2), norm='ortho')).mean()
    assert losses['dct'].item() == pytest.approx(expected, rel=1e-4)


# --- presets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'shape', 'tokens', 'millions'),
    [
        ('single_arm_eef', (1, 7), 21, 8),
        ('single_arm_joint', (1, 8), 24, 8),
        ('dual_arm', (2, 14), 84, 13),
        ('whole_body', (2, 21), 126, 12),
        ('whole_body_96', (2, 16), 96, 12),
    ],
)
def test_presets_have_the_papers_grids_and_sizes(name, shape, tokens, millions):
    for suffix in ('', '_small'):
        config = PRESETS[name + suffix].config()
        assert config.latent_shape == shape
        assert config.num_tokens == tokens
    with torch.device('meta'):
        weights = sum(p.numel() for p in Autoencoder(PRESETS[name].config()).parameters())
    assert round(weights / 1e6) == pytest.approx(millions, abs=1)
    assert PRESETS[name].config().codebook_size == 4096


def test_whole_body_96_is_decoded_in_blocks_of_eight():
    config = PRESETS['whole_body_96'].config()
    assert config.latent_shape[1] % 8 == 0
    assert config.num_tokens // 8 == 12


def test_a_preset_can_be_changed_field_by_field():
    config = PRESETS['dual_arm_small'].config(codebook_size=64)
    assert (config.codebook_size, config.horizon) == (64, 50)
