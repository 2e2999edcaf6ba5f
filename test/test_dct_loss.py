"""The loss in frequency: an orthonormal cosine transform along time."""

import numpy as np
import pytest
from scipy.fft import dct
import torch

from faster_core.tokenizer.loss import dct_matrix, reconstruction_loss


@pytest.mark.parametrize('size', [1, 4, 20, 32])
def test_the_basis_is_orthonormal(size):
    basis = dct_matrix(size)
    assert torch.allclose(basis @ basis.T, torch.eye(size), atol=1e-5)


def test_the_first_row_is_the_mean_and_later_rows_oscillate_faster():
    basis = dct_matrix(16)
    assert torch.allclose(basis[0], torch.full((16,), 0.25), atol=1e-6)
    changes = [(np.diff(np.sign(row)) != 0).sum() for row in basis.numpy()]
    assert changes == list(range(16))


def test_energy_is_kept():
    signal = torch.randn(5, 32, 21)
    assert torch.allclose(
        (dct_matrix(32) @ signal).square().sum(), signal.square().sum(), rtol=1e-4
    )


def test_the_coefficients_are_scipys_along_time():
    signal = np.random.default_rng(0).normal(size=(3, 32, 21))
    ours = dct_matrix(32) @ torch.from_numpy(signal).float()
    assert np.allclose(ours, dct(signal, axis=1, norm='ortho'), atol=1e-5)


def test_the_loss_is_the_mean_absolute_error_in_time_and_in_frequency():
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(2, 3, 32, 21))
    losses = reconstruction_loss(
        torch.from_numpy(predicted).float(), torch.from_numpy(target).float(), dct_matrix(32)
    )
    error = predicted - target
    assert losses['time'].item() == pytest.approx(np.abs(error).mean(), rel=1e-4)
    expected = np.abs(dct(error, axis=1, norm='ortho')).mean()
    assert losses['dct'].item() == pytest.approx(expected, rel=1e-4)


def test_equal_chunks_cost_nothing():
    chunks = torch.randn(2, 32, 21)
    assert all(v == 0 for v in reconstruction_loss(chunks, chunks, dct_matrix(32)).values())


def test_a_constant_offset_weighs_in_one_coefficient_only():
    target = torch.zeros(1, 32, 1)
    loss = reconstruction_loss(target + 1.0, target, dct_matrix(32))
    assert loss['time'].item() == pytest.approx(1.0)
    assert loss['dct'].item() == pytest.approx(np.sqrt(32) / 32, rel=1e-4)
