"""What holds for every action tokenizer: shapes, rules for short chunks, disk, bad input."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from small_tokenizers import D, fitted, H, KINDS, motions, normalizer
import torch

from faster_core.errors import CheckpointError, DecodeError
from faster_core.tokenizer.interface import fill_rest, pad_chunks
from faster_core.tokenizer.registry import load_tokenizer, TOKENIZERS

every_kind = pytest.mark.parametrize('kind', KINDS)
FIXED = [k for k in KINDS if k != 'fast']


def test_the_registry_knows_every_tokenizer_that_is_compared():
    assert set(TOKENIZERS) == {'faster', 'fast', 'bins', 'minivla', 'vqvla', 'bspline'}
    assert all(TOKENIZERS[kind].kind == kind for kind in TOKENIZERS)


# --- there and back -----------------------------------------------------------------------------


@every_kind
def test_chunks_come_back_in_shape_type_and_range(kind):
    tokenizer, chunks = fitted(kind), motions(5)
    decoded = tokenizer.decode(tokenizer.encode(chunks))
    assert decoded.shape == chunks.shape
    assert decoded.dtype == np.float32
    normal = (decoded - normalizer().centre) / normalizer().half_range
    assert np.abs(normal).max() <= 1.5 + 1e-5


@every_kind
def test_one_chunk_is_a_batch_of_one(kind):
    tokenizer, chunks = fitted(kind), motions(3)
    batch, single = tokenizer.encode(chunks[1:2]), tokenizer.encode(chunks[1])
    assert np.array_equal(np.asarray(batch[0]), np.asarray(single))
    assert np.allclose(tokenizer.decode(single), tokenizer.decode(batch)[0], atol=1e-6)


@every_kind
def test_tokens_are_integers_of_the_vocabulary_and_go_back_to_the_same_actions(kind):
    tokenizer, chunks = fitted(kind), motions(4)
    tokens = tokenizer(chunks)
    assert all(0 <= t < tokenizer.vocab_size for row in tokens for t in row)
    assert all(type(t) is int for row in tokens for t in row)
    expected = tokenizer.decode(tokenizer.encode(chunks))
    assert np.allclose(tokenizer.decode_tokens(tokens), expected, atol=1e-6)


@every_kind
def test_tensors_give_what_arrays_give(kind):
    tokenizer, chunks = fitted(kind), motions(3)
    codes = tokenizer.encode(torch.from_numpy(chunks))
    for mine, other in zip(codes, tokenizer.encode(chunks), strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(other))
    if kind != 'fast':
        assert torch.is_tensor(codes)
        assert torch.is_tensor(tokenizer.decode(codes))


@pytest.mark.parametrize('kind', FIXED)
def test_a_fixed_number_of_tokens_can_be_had_as_one_array(kind):
    tokenizer, chunks = fitted(kind), motions(4)
    array = tokenizer(chunks, return_tensors='np')
    tensor = tokenizer(chunks, return_tensors='pt')
    assert array.tolist() == tokenizer(chunks) == tensor.tolist()


def test_ragged_tokens_as_one_array_are_refused():
    tokenizer, chunks = fitted('fast'), motions(40)
    assert len({len(row) for row in tokenizer(chunks)}) > 1
    with pytest.raises(ValueError, match='different numbers of tokens'):
        tokenizer(chunks, return_tensors='np')


def test_an_unknown_tensor_library_is_refused():
    with pytest.raises(ValueError, match="expected None, 'np' or 'pt', got 'jax'"):
        fitted('bins')(motions(1), return_tensors='jax')


# --- short chunks -------------------------------------------------------------------------------


@every_kind
def test_a_masked_chunk_is_encoded_as_the_robot_that_comes_to_rest(kind):
    tokenizer, chunk = fitted(kind), motions(1)[0]
    rested = chunk.copy()
    rested[5:, :-1] = chunk[4, :-1]
    rested[5:, -1] = 0.0  # the last dimension is a velocity
    garbage = chunk.copy()
    garbage[5:] = 77.0
    masked = tokenizer.encode(garbage, mask=np.arange(H) < 5)
    assert np.array_equal(np.asarray(masked), np.asarray(tokenizer.encode(rested)))


@given(lengths=st.lists(st.integers(1, H), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_padding_marks_exactly_the_rows_that_were_given(lengths):
    chunks = [np.full((n, D), i + 1.0, np.float32) for i, n in enumerate(lengths)]
    padded, mask = pad_chunks(chunks, H)
    assert padded.shape == (len(lengths), H, D)
    assert mask.sum(axis=1).tolist() == lengths
    filled = fill_rest(padded, mask, ())
    assert (filled == np.arange(1, len(lengths) + 1)[:, None, None]).all()


@pytest.mark.parametrize(
    'mask', [np.zeros(H), np.arange(H) > 2, np.arange(H) % 2 == 0], ids=['none', 'start', 'gaps']
)
def test_a_mask_that_is_no_run_from_the_start_is_refused(mask):
    with pytest.raises(ValueError, match='unreal ones only at the end'):
        fitted('bins').encode(motions(1)[0], mask=mask)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r'mask: expected \[1, 16\], found \[1, 15\]'):
        fitted('bins').encode(motions(1)[0], mask=np.ones(H - 1))


@pytest.mark.parametrize(
    'chunks',
    [[], [np.zeros((0, D))], [np.zeros((H + 1, D))], [np.zeros((2, D)), np.zeros((2, D + 1))]],
    ids=['none', 'empty', 'long', 'widths'],
)
def test_chunks_that_cannot_be_padded_are_refused(chunks):
    with pytest.raises(ValueError, match=r'chunks: expected \[1\.\.16, D\]'):
        pad_chunks(chunks, H)


# --- bad input ----------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ('actions', 'found'),
    [
        (np.zeros((H - 1, D)), r'found \[15, 5\]; shorter chunks need a mask'),
        (np.zeros((2, H, D + 1)), r'found \[2, 16, 6\]'),
        (np.zeros(H), r'found \[16\]'),
        (np.full((H, D), np.nan), 'not finite'),
        (np.full((H, D), np.inf), 'not finite'),
        ([np.zeros((3, D)), np.zeros((4, D))], 'different lengths'),
    ],
    ids=['short', 'wide', 'flat', 'nan', 'inf', 'ragged'],
)
def test_wrong_actions_are_refused_with_what_was_found(kind, actions, found):
    with pytest.raises(ValueError, match=found):
        fitted(kind).encode(actions)


@every_kind
def test_tokens_out_of_range_are_refused(kind):
    tokenizer = fitted(kind)
    row = tokenizer(motions(1))[0]
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(DecodeError, match=f'found .*{bad}'):
            tokenizer.decode_tokens([[bad, *row[1:]]])


@every_kind
def test_a_wrong_number_of_tokens_is_refused(kind):
    tokenizer = fitted(kind)
    row = tokenizer(motions(1))[0]
    with pytest.raises(DecodeError):
        tokenizer.decode_tokens([row + row[:1]])
    with pytest.raises(DecodeError):
        tokenizer.decode_tokens([[]])


@every_kind
def test_tokens_that_are_no_integers_are_refused(kind):
    row = np.asarray(fitted(kind)(motions(1))[0], dtype=np.float64)
    with pytest.raises(DecodeError, match='integers'):
        fitted(kind).decode_tokens(row[None])


# --- disk ---------------------------------------------------------------------------------------


@every_kind
def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path, kind):
    tokenizer, chunks = fitted(kind), motions(6)
    tokenizer.save_pretrained(tmp_path / 'saved')
    loaded = load_tokenizer(tmp_path / 'saved')
    assert type(loaded) is type(tokenizer)
    assert loaded.config == tokenizer.config
    assert loaded(chunks) == tokenizer(chunks)
    assert np.array_equal(
        loaded.decode(loaded.encode(chunks)), tokenizer.decode(tokenizer.encode(chunks))
    )
    assert loaded.num_parameters == tokenizer.num_parameters
    assert loaded.vocab_size == tokenizer.vocab_size


@every_kind
@pytest.mark.parametrize('how', ['missing', 'no json', 'unknown key', 'other kind'])
def test_a_damaged_configuration_is_refused(tmp_path, kind, how):
    fitted(kind).save_pretrained(tmp_path)
    path = tmp_path / 'config.json'
    values = json.loads(path.read_text())
    if how == 'missing':
        path.unlink()
    elif how == 'no json':
        path.write_text('{')
    else:
        path.write_text(
            json.dumps(values | ({'colour': 3} if how == 'unknown key' else {'kind': 'zip'}))
        )
    with pytest.raises(CheckpointError, match=r'config\.json|expected kind'):
        load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError):
        TOKENIZERS[kind].from_pretrained(tmp_path)


@pytest.mark.parametrize(('kind', 'file'), [('faster', 'model.safetensors'), ('fast', 'bpe.json')])
@pytest.mark.parametrize('how', ['missing', 'cut'])
def test_a_damaged_fitted_file_is_refused(tmp_path, kind, file, how):
    fitted(kind).save_pretrained(tmp_path)
    path = tmp_path / file
    if how == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=file):
        load_tokenizer(tmp_path)
