"""FASTerVQ as a function: patches, shapes, what decodes and what is refused."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from tiny_checkpoint import r1_lite, random_chunks, tiny_tokenizer, VQ
import torch

from faster_core.errors import CheckpointError, ConfigError, DecodeError
from faster_core.tokenizer import FasterVQ
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.loss import dct_matrix, reconstruction_loss
from faster_core.tokenizer.patchify import Patchifier

TOKENIZER = tiny_tokenizer()
LEVELS, SLOTS, SIZE = 3, (2, 10), VQ['codebook_size']
LOW = TOKENIZER.normalizer.centre - 1.5001 * TOKENIZER.normalizer.half_range
HIGH = TOKENIZER.normalizer.centre + 1.5001 * TOKENIZER.normalizer.half_range


def _codes(batch=4, seed=0, levels=LEVELS):
    return np.random.default_rng(seed).integers(0, SIZE, (batch, levels, *SLOTS))


def _uneven(**fields):
    return FasterVQConfig(
        horizon=12,
        group_sizes=(5, 1, 4),
        slots_per_group=(2, 1, 3),
        patch_length=3,
        width=8,
        heads=2,
        latent_dim=4,
        **fields,
    )


# --- patches --------------------------------------------------------------------------------


def test_groups_are_split_as_evenly_as_possible_into_slots():
    assert _uneven().slot_sizes == (3, 2, 1, 2, 1, 1)


def test_join_undoes_the_cut_for_groups_of_different_sizes():
    patchifier = Patchifier(_uneven())
    chunks = torch.randn(3, 12, 10)
    patches = patchifier(chunks)
    assert patches.shape == (3, 4, 6, 3 * 3)
    assert torch.equal(patchifier.join(patches), chunks)


def test_a_patch_holds_its_own_rows_and_dimensions_and_zeros_elsewhere():
    chunks = torch.arange(1.0, 121.0).view(1, 12, 10)
    patches = Patchifier(_uneven())(chunks)
    # Time patch 2 (rows 6 to 8), slot 3: the first two dimensions of the third group.
    expected = torch.zeros(3, 3)
    expected[:, :2] = chunks[0, 6:9, 6:8]
    assert torch.equal(patches[0, 2, 3], expected.flatten())


def test_every_padded_cell_is_zero_and_every_other_one_is_used():
    patches = Patchifier(_uneven())(torch.ones(1, 12, 10))
    assert patches.sum() == 12 * 10
    assert set(patches.unique().tolist()) == {0.0, 1.0}


def test_padded_cells_of_the_decoder_get_no_gradient_from_the_loss():
    patchifier = Patchifier(_uneven())
    used = patchifier(torch.ones(1, 12, 10)).expand(2, -1, -1, -1) > 0
    predicted = torch.randn(used.shape, requires_grad=True)
    losses = reconstruction_loss(
        patchifier.join(predicted), torch.randn(2, 12, 10), dct_matrix(12)
    )
    (losses['time'] + losses['dct']).backward()
    assert (predicted.grad[~used] == 0).all()
    assert (predicted.grad[used] != 0).all()


def test_a_change_in_one_slot_changes_no_input_of_another_slot():
    patchifier = Patchifier(_uneven())
    chunks = torch.randn(1, 12, 10)
    changed = chunks.clone()
    changed[:, :, 5] += 1.0
    difference = (patchifier(chunks) - patchifier(changed)).abs().sum(dim=(0, 1, 3))
    assert (difference > 0).tolist() == [False, False, True, False, False, False]


# --- configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    'fields',
    [
        {'patch_length': 5},
        {'patch_length': 4, 'time_slots': 5},
        {'patch_length': 4, 'time_slots': 1, 'horizon': 24},
        {'patch_length': 0},
        {'time_slots': 0},
        {'heads': 0},
        {'slots_per_group': (2, 1)},
        {'slots_per_group': (2, 2, 1)},
        {'slots_per_group': (0, 1, 1)},
        {'width': 10, 'heads': 4},
        {'codebook_size': 1},
        {'num_levels': 0},
    ],
)
def test_shapes_that_do_not_divide_are_refused(fields):
    values = {
        'horizon': 24,
        'group_sizes': (5, 1, 4),
        'slots_per_group': (2, 1, 3),
        'width': 8,
        'heads': 2,
    }
    with pytest.raises(ConfigError):
        FasterVQConfig(**{**values, **fields})


def test_the_r1_lite_has_126_or_fewer_tokens_in_a_fixed_shape():
    config = TOKENIZER.config
    assert config.latent_shape == SLOTS
    assert config.num_tokens == LEVELS * SLOTS[0] * SLOTS[1] == 60


def test_one_slot_per_dimension_gives_the_papers_126_tokens():
    config = FasterVQConfig.from_embodiment(r1_lite(), slots_per_group=(6, 1, 6, 1, 4, 3))
    assert config.latent_shape == (2, 21)
    assert config.num_tokens == 126


# --- encode and decode ------------------------------------------------------------------------


@pytest.mark.parametrize('scale', [0.0, 1.0, 1e6])
def test_code_shape_and_range_do_not_depend_on_the_values(scale):
    codes = TOKENIZER.encode(random_chunks(5) * np.float32(scale))
    assert codes.shape == (5, LEVELS, *SLOTS)
    assert codes.dtype == np.int64
    assert codes.min() >= 0 and codes.max() < SIZE


def test_numpy_in_gives_numpy_out_and_torch_in_gives_torch_out():
    chunks = random_chunks(2)
    codes, codes_torch = TOKENIZER.encode(chunks), TOKENIZER.encode(torch.from_numpy(chunks))
    assert isinstance(codes, np.ndarray) and torch.is_tensor(codes_torch)
    assert np.array_equal(codes, codes_torch.numpy())
    actions, actions_torch = TOKENIZER.decode(codes), TOKENIZER.decode(codes_torch)
    assert isinstance(actions, np.ndarray) and torch.is_tensor(actions_torch)
    assert np.array_equal(actions, actions_torch.numpy())
    assert actions.dtype == np.float32


def test_a_single_chunk_equals_a_batch_of_one():
    chunk = random_chunks(1)[0]
    codes = TOKENIZER.encode(chunk)
    assert codes.shape == (LEVELS, *SLOTS)
    assert np.array_equal(codes, TOKENIZER.encode(chunk[None])[0])
    actions = TOKENIZER.decode(codes)
    assert actions.shape == (32, 21)
    assert np.allclose(actions, TOKENIZER.decode(codes[None])[0], atol=1e-6)


def test_what_else_is_in_the_batch_does_not_change_the_codes():
    chunks = random_chunks(6)
    alone = np.stack([TOKENIZER.encode(c) for c in chunks])
    assert (alone == TOKENIZER.encode(chunks)).mean() > 0.999


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, LEVELS), constant=st.booleans())
def test_every_code_tensor_in_range_decodes_to_bounded_actions(seed, levels, constant):
    codes = _codes(2, seed, levels)
    if constant:
        codes[:] = codes.flat[0]
    actions = TOKENIZER.decode(codes)
    assert actions.shape == (2, 32, 21)
    assert np.isfinite(actions).all()
    assert (actions >= LOW).all() and (actions <= HIGH).all()


def test_actions_stay_bounded_when_the_network_gives_huge_values():
    tokenizer = tiny_tokenizer()
    tokenizer.model.autoencoder.to_patches[1].weight.data.mul_(1e6)
    actions = tokenizer.decode(_codes())
    assert (actions >= LOW).all() and (actions <= HIGH).all()


def test_a_network_that_gives_nan_raises_instead_of_moving_the_robot():
    tokenizer = tiny_tokenizer()
    tokenizer.model.autoencoder.to_patches[1].bias.data.fill_(float('nan'))
    with pytest.raises(DecodeError, match='not finite'):
        tokenizer.decode(_codes())


def test_the_first_levels_decode_and_say_the_same_as_num_levels():
    codes = _codes()
    for levels in range(1, LEVELS + 1):
        prefix = TOKENIZER.decode(codes[:, :levels])
        assert np.array_equal(prefix, TOKENIZER.decode(codes, num_levels=levels))


def test_every_level_changes_the_decoded_chunk():
    codes = _codes()
    decoded = [TOKENIZER.decode(codes, num_levels=n) for n in range(1, LEVELS + 1)]
    assert not np.allclose(decoded[0], decoded[1], atol=1e-5)
    assert not np.allclose(decoded[1], decoded[2], atol=1e-5)


@pytest.mark.parametrize(
    'codes',
    [
        np.full((1, 3, 2, 10), SIZE),
        np.full((1, 3, 2, 10), -1),
        np.zeros((1, 4, 2, 10), int),
        np.zeros((1, 0, 2, 10), int),
        np.zeros((0, 3, 2, 10), int),
        np.zeros((1, 3, 10, 2), int),
        np.zeros((60,), int),
        np.zeros((1, 3, 2, 10), np.float32),
    ],
)
def test_codes_out_of_range_or_shape_are_refused(codes):
    with pytest.raises(DecodeError, match='codes'):
        TOKENIZER.decode(codes)


@pytest.mark.parametrize('num_levels', [0, -1, 4])
def test_a_number_of_levels_that_is_not_there_is_refused(num_levels):
    with pytest.raises(DecodeError, match='num_levels'):
        TOKENIZER.decode(_codes(), num_levels=num_levels)


@pytest.mark.parametrize('shape', [(1, 31, 21), (1, 32, 20), (32,), (1, 1, 32, 21)])
def test_chunks_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match='expected'):
        TOKENIZER.encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_chunks_that_are_not_finite_are_refused(bad):
    chunks = random_chunks(1)
    chunks[0, 3, 4] = bad
    with pytest.raises(ValueError, match='finite'):
        TOKENIZER.encode(chunks)


# --- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize('convert', [np.asarray, torch.from_numpy])
def test_tokens_and_codes_are_inverses(convert):
    codes = convert(_codes())
    tokens = TOKENIZER.tokens(codes)
    assert tuple(tokens.shape) == (4, 60)
    assert (TOKENIZER.codes(tokens) == codes).all()


def test_token_order_is_level_then_time_slot_then_action_slot():
    codes = _codes(1)
    tokens = TOKENIZER.tokens(codes)
    assert tokens[0, (2 * 2 + 1) * 10 + 7] == codes[0, 2, 1, 7]


def test_fewer_tokens_become_fewer_levels():
    tokens = TOKENIZER.tokens(_codes())
    assert np.array_equal(TOKENIZER.codes(tokens[:, :40]), _codes()[:, :2])


# --- disk ---------------------------------------------------------------------------------------


def test_saved_and_loaded_tokenizers_agree_exactly(tmp_path):
    TOKENIZER.save_pretrained(tmp_path / 'vq')
    loaded = FasterVQ.from_pretrained(tmp_path / 'vq')
    assert loaded.config == TOKENIZER.config
    chunks = random_chunks(3)
    assert np.array_equal(loaded.encode(chunks), TOKENIZER.encode(chunks))
    assert np.array_equal(loaded.decode(_codes()), TOKENIZER.decode(_codes()))


@pytest.mark.parametrize('name', ['config.json', 'normalization.json', 'model.safetensors'])
@pytest.mark.parametrize('damage', ['missing', 'truncated', 'empty'])
def test_a_damaged_folder_is_refused(tmp_path, name, damage):
    TOKENIZER.save_pretrained(tmp_path)
    file = tmp_path / name
    if damage == 'missing':
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == 'empty' else -20])
    with pytest.raises(CheckpointError, match=name):
        FasterVQ.from_pretrained(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    tiny_tokenizer(width=24).save_pretrained(tmp_path / 'other')
    (tmp_path / 'other' / 'model.safetensors').replace(tmp_path / 'model.safetensors')
    with pytest.raises(CheckpointError, match=r'model\.safetensors'):
        FasterVQ.from_pretrained(tmp_path)


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_no_codes_decode_to_a_larger_step_than_in_the_data(seed):
    rows = TOKENIZER.decode(_codes(seed=seed))
    steps = np.abs(np.diff(rows, axis=1))
    assert (steps <= TOKENIZER.normalizer.largest_step + 1e-5).all()
