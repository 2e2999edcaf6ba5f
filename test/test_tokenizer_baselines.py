"""The rivals do what their authors published; otherwise comparing with them would be unfair."""

import dataclasses

import numpy as np
import pytest
from scipy.interpolate import BSpline
from small_tokenizers import config_of, D, fitted, H, motions, normalizer

from faster_core.errors import ConfigError, DecodeError
from faster_core.tokenizer.baselines.bins import Bins
from faster_core.tokenizer.baselines.bspline import BSplineTokenizer, spline_matrices
from faster_core.tokenizer.baselines.fast import coefficients, Fast, FastConfig
from faster_core.tokenizer.registry import TOKENIZERS

# --- FAST ---------------------------------------------------------------------------------------


def _fast(scale, **changes):
    chunks = normalizer().normalize(motions(2000, seed=9))
    return Fast.fit(config_of('fast', scale=scale, **changes), normalizer(), chunks)


def test_fast_compresses_smooth_signals_far_below_one_token_per_value():
    lengths = [len(row) for row in fitted('fast')(motions(200))]
    assert np.mean(lengths) < 0.5 * H * D


def test_fast_needs_more_tokens_for_rough_signals():
    rough = np.random.default_rng(0).normal(size=(100, H, D)).astype(np.float32) * 0.3
    rough = rough * normalizer().half_range + normalizer().centre
    smooth = np.mean([len(row) for row in fitted('fast')(motions(100))])
    assert np.mean([len(row) for row in fitted('fast')(rough)]) > 1.5 * smooth


def test_fast_trades_tokens_for_error_by_its_scale():
    chunks, tokens, errors = motions(200), [], []
    for scale in (5.0, 20.0, 80.0):
        tokenizer = _fast(scale)
        rows = tokenizer(chunks)
        error = np.abs(tokenizer.decode_tokens(rows) - chunks) / normalizer().half_range
        tokens.append(np.mean([len(row) for row in rows]))
        errors.append(error.mean())
    assert tokens == sorted(tokens)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_fast_is_lossless_but_for_rounding_the_coefficients():
    tokenizer, chunks = fitted('fast'), motions(50)
    normal = normalizer().normalize(chunks).astype(np.float64)
    error = tokenizer.decode(tokenizer.encode(chunks)) - normalizer().denormalize(normal)
    # An orthonormal transform: the error's energy is that of rounding, at most half a step each.
    energy = np.square(error / normalizer().half_range).sum(axis=(1, 2))
    inside = np.abs(normal).max(axis=(1, 2)) < 1.2  # the decoder clips at 1.5
    assert (energy[inside] <= H * D * (0.5 / tokenizer.config.scale) ** 2).all()


def test_fast_puts_low_frequencies_of_all_dimensions_first():
    chunk = np.zeros((1, H, D))
    chunk[0, :, 2] = 1.0
    chunk[0, :, 4] = np.cos(np.pi * (np.arange(H) + 0.5) / H)  # the first DCT-II basis function
    found = np.flatnonzero(coefficients(chunk, 10.0)[0])
    assert found.tolist() == [2, D + 4]


def test_a_string_of_the_wrong_number_of_coefficients_does_not_decode():
    tokenizer = fitted('fast')
    row = tokenizer(motions(1))[0]
    with pytest.raises(DecodeError, match=f'a chunk has {H * D}'):
        tokenizer.decode_tokens([row[:-1]])


def test_coefficients_never_seen_are_clipped_to_the_range_that_was():
    tokenizer = _fast(10.0)
    narrow = dataclasses.replace(tokenizer.config, lowest=-3, highest=3)
    clipped = Fast.fit(narrow, normalizer(), normalizer().normalize(motions(50)) * 0.01)
    values = coefficients(clipped._decode(clipped._encode(normalizer().normalize(motions(5)))), 10)
    assert values.min() >= clipped.config.lowest
    assert values.max() <= clipped.config.highest


def test_a_vocabulary_smaller_than_the_alphabet_is_refused():
    with pytest.raises(ConfigError, match='vocab_size 16: the rounded coefficients alone have'):
        _fast(40.0, vocab_size=16)


def test_fast_has_the_published_scale_and_vocabulary():
    config = FastConfig(horizon=H, action_dim=D)
    assert (config.scale, config.vocab_size) == (10.0, 1024)


# --- bins ---------------------------------------------------------------------------------------


def test_bins_take_one_token_per_value():
    assert {len(row) for row in fitted('bins')(motions(3))} == {H * D}


def test_a_binned_value_comes_back_within_half_a_bin():
    chunks = motions(100)
    normal = normalizer().normalize(chunks)
    decoded = fitted('bins')._decode(fitted('bins')._encode(normal))
    inside = np.abs(normal) <= 1.0
    assert inside.mean() > 0.9
    assert np.abs(decoded - normal)[inside].max() <= 1.0 / 256 + 1e-6
    assert np.abs(decoded).max() <= 1.0


def test_both_ends_of_the_range_have_a_bin():
    tokenizer = Bins(config_of('bins', num_bins=4), normalizer())
    ends = np.array([-9.0, -1.0, 0.999, 1.0, 9.0], dtype=np.float32)
    chunk = np.tile(ends, (1, H, 1))
    assert tokenizer._encode(chunk)[0, :D].tolist() == [0, 0, 3, 3, 3]


# --- residual VQ --------------------------------------------------------------------------------


def test_minivla_says_a_chunk_in_seven_tokens():
    assert {len(row) for row in fitted('minivla')(motions(3))} == {7}
    assert TOKENIZERS['minivla'].config_class(horizon=8, action_dim=7).codebook_size == 256


@pytest.mark.parametrize(('slots', 'levels'), [(1, 4), (2, 4), (4, 2)])
def test_vqvla_has_a_token_per_slot_and_level(slots, levels):
    config = config_of('vqvla', time_slots=slots, num_levels=levels)
    tokenizer = TOKENIZERS['vqvla'](config, normalizer())
    tokenizer.model.quantizer.levels[0].vectors.normal_()
    assert {len(row) for row in tokenizer(motions(2))} == {slots * levels}
    assert tokenizer.decode_tokens(tokenizer(motions(2))).shape == (2, H, D)


@pytest.mark.parametrize('slots', [0, H + 1])
def test_vqvla_with_impossible_slots_is_refused(slots):
    with pytest.raises(ConfigError, match=f'time_slots: expected 1..{H}, found {slots}'):
        config_of('vqvla', time_slots=slots)


# --- B-splines ----------------------------------------------------------------------------------


def test_bspline_takes_a_token_per_control_point_and_dimension():
    assert {len(row) for row in fitted('bspline')(motions(3))} == {8 * D}


def test_the_basis_is_that_of_clamped_splines():
    config = config_of('bspline', num_points=7, degree=3)
    basis, _ = spline_matrices(config)
    assert np.allclose(basis.sum(axis=1), 1.0)
    assert basis[0].tolist() == [1.0] + [0.0] * 6
    assert basis[-1, -1] == 1.0
    knots = np.r_[[0] * 3, np.linspace(0, 1, 5), [1] * 3]
    points = np.random.default_rng(0).normal(size=7)
    assert np.allclose(basis @ points, BSpline(knots, points, 3)(np.linspace(0, 1, H)))


def test_a_cubic_is_fitted_to_within_the_width_of_a_bin():
    config = config_of('bspline', num_points=6, degree=3, num_bins=4096)
    t = np.linspace(-1, 1, H)[None, :, None]
    factors = np.random.default_rng(0).normal(size=(300, 4, D)) * 0.2
    cubics = sum(factors[:, k : k + 1] * t**k for k in range(4))
    tokenizer = BSplineTokenizer.fit(config, normalizer(), cubics.astype(np.float32))
    error = np.abs(tokenizer._decode(tokenizer._encode(cubics)) - cubics)
    assert np.percentile(error, 90) < 1e-3
    coarse = BSplineTokenizer.fit(
        dataclasses.replace(config, num_bins=16), normalizer(), cubics.astype(np.float32)
    )
    assert np.abs(coarse._decode(coarse._encode(cubics)) - cubics).mean() > 10 * error.mean()


@pytest.mark.parametrize(
    'changes', [{'num_points': H + 1}, {'num_points': 4, 'degree': 4}, {'degree': 0}]
)
def test_splines_that_do_not_exist_are_refused(changes):
    with pytest.raises(ConfigError, match='num_points: expected degree'):
        config_of('bspline', **changes)
