"""Our quantiser against `vector-quantize-pytorch`: same codes, same EMA updates."""

import pytest
from small_tokenizers import config_of
import torch

from faster_core.tokenizer.quantizer import Codebook, ResidualQuantizer

vq = pytest.importorskip('vector_quantize_pytorch', reason='the oracle is in the extra `test`')
DIM, SIZE = 8, 32


def _oracle(decay=0.9):
    other = vq.VectorQuantize(
        dim=DIM,
        codebook_size=SIZE,
        decay=decay,
        eps=1e-12,
        threshold_ema_dead_code=0,
        commitment_weight=1.0,
        kmeans_init=False,
    )
    return other


def _same_codebook(codebook, other):
    inner = other._codebook
    codebook.vectors.copy_(inner.embed[0])
    codebook.sums.copy_(inner.embed[0])
    codebook.uses.fill_(1.0)
    codebook.initialised.fill_(True)
    inner.cluster_size.fill_(1.0)
    inner.embed_avg.copy_(inner.embed)


def test_the_same_codebook_gives_the_same_codes_and_vectors():
    torch.manual_seed(0)
    codebook, other = Codebook(SIZE, DIM, 0.9, 0.0), _oracle()
    _same_codebook(codebook, other)
    rows = torch.randn(500, DIM)
    quantised, indices, _ = other.eval()(rows[None])
    assert torch.equal(codebook.nearest(rows), indices[0])
    assert torch.allclose(codebook.vectors[codebook.nearest(rows)], quantised[0], atol=1e-6)


def test_ema_updates_are_equal_over_many_steps():
    torch.manual_seed(0)
    codebook, other = Codebook(SIZE, DIM, 0.9, 0.0), _oracle(decay=0.9)
    _same_codebook(codebook, other)
    other.train()
    before = codebook.vectors.clone()
    for _ in range(12):
        rows = torch.randn(400, DIM) * 0.5 + 0.2
        indices = codebook.nearest(rows)
        _, theirs, _ = other(rows[None])
        assert torch.equal(indices, theirs[0])
        codebook.update(rows, indices)
        assert torch.allclose(codebook.uses, other._codebook.cluster_size[0], atol=1e-3)
        assert torch.allclose(codebook.vectors, other._codebook.embed[0], atol=1e-4)
    assert (codebook.vectors - before).abs().max() > 0.1


def test_residual_levels_give_the_codes_of_the_residual_oracle():
    torch.manual_seed(0)
    other = vq.ResidualVQ(
        dim=DIM, num_quantizers=3, codebook_size=SIZE, kmeans_init=False, threshold_ema_dead_code=0
    ).eval()
    ours = ResidualQuantizer(config_of('faster', latent_dim=DIM, codebook_size=SIZE)).eval()
    for level, layer in zip(ours.levels, other.layers, strict=True):
        _same_codebook(level, layer)
    z = torch.randn(4, 10, DIM)
    quantised, codes, _ = ours(z)
    expected, theirs, _ = other(z)
    assert torch.equal(codes, theirs.permute(2, 0, 1))
    assert torch.allclose(quantised, expected, atol=1e-5)


def test_the_commitment_loss_is_the_oracles():
    torch.manual_seed(0)
    other = vq.ResidualVQ(
        dim=DIM,
        num_quantizers=3,
        codebook_size=SIZE,
        kmeans_init=False,
        threshold_ema_dead_code=0,
        commitment_weight=1.0,
        decay=0.9,
    ).train()
    ours = ResidualQuantizer(
        config_of(
            'faster', latent_dim=DIM, codebook_size=SIZE, ema_decay=0.9, dead_code_threshold=0.0
        )
    )
    for level, layer in zip(ours.levels, other.layers, strict=True):
        _same_codebook(level, layer)
    z = torch.randn(2, 50, DIM)
    _, _, commitment = ours.train()(z)
    _, _, losses = other(z)
    assert commitment.item() == pytest.approx(losses.mean().item(), rel=1e-4)
