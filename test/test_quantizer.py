"""Residual vector quantisation and its codebooks."""

import pytest
import torch

from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.quantizer import Codebook, ResidualQuantizer


def _quantizer(levels=3, size=8, dim=4, seed=0, **fields):
    torch.manual_seed(seed)
    config = FasterVQConfig(
        horizon=8,
        group_sizes=(3,),
        slots_per_group=(1,),
        num_levels=levels,
        codebook_size=size,
        latent_dim=dim,
        **fields,
    )
    return ResidualQuantizer(config)


def _filled(**arguments):
    quantizer = _quantizer(**arguments)
    for level in quantizer.levels:
        level.vectors.normal_()
        level.sums.copy_(level.vectors)
        level.uses.fill_(1.0)
        level.initialised.fill_(True)
    return quantizer.eval()


# --- one codebook -----------------------------------------------------------------------------


def test_nearest_is_the_vector_of_least_euclidean_distance():
    torch.manual_seed(0)
    codebook = Codebook(64, 6, 0.99, 0.1)
    codebook.vectors.normal_()
    rows = torch.randn(300, 6)
    expected = torch.tensor([int((codebook.vectors - r).norm(dim=1).argmin()) for r in rows])
    assert torch.equal(codebook.nearest(rows), expected)


def test_an_update_moves_vectors_as_computed_by_hand():
    codebook = Codebook(2, 1, decay=0.9, threshold=0.0)
    codebook.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    codebook.sums.copy_(torch.tensor([[0.0], [10.0]]))
    codebook.uses.fill_(1.0)
    codebook.update(torch.tensor([[1.0], [2.0], [14.0]]), torch.tensor([0, 0, 1]))
    # uses: 0.9 * 1 + 0.1 * [2, 1]; sums: 0.9 * [0, 10] + 0.1 * [3, 14].
    assert torch.allclose(codebook.uses, torch.tensor([1.1, 1.0]))
    assert torch.allclose(codebook.sums, torch.tensor([[0.3], [10.4]]))
    assert torch.allclose(codebook.vectors, torch.tensor([[0.3 / 1.1], [10.4]]))


def test_updates_converge_to_the_mean_of_what_chose_a_vector():
    codebook = Codebook(1, 2, decay=0.5, threshold=0.0)
    codebook.uses.fill_(1.0)
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    for _ in range(40):
        codebook.update(rows, torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(codebook.vectors, torch.tensor([[2.0, 4.0]]), atol=1e-5)


def test_an_unused_vector_keeps_its_place_until_it_is_dead():
    codebook = Codebook(2, 1, decay=0.5, threshold=0.2)
    codebook.vectors.copy_(torch.tensor([[0.0], [7.0]]))
    codebook.sums.copy_(codebook.vectors)
    codebook.uses.fill_(1.0)
    rows, indices = torch.tensor([[0.5], [0.25]]), torch.zeros(2, dtype=torch.int64)
    for uses in (0.5, 0.25):
        codebook.update(rows, indices)
        assert codebook.uses[1] == pytest.approx(uses)
        assert codebook.vectors[1].item() == pytest.approx(7.0)


def test_a_dead_vector_is_placed_on_data_with_the_statistics_of_an_average_one():
    torch.manual_seed(0)
    codebook = Codebook(3, 2, decay=0.5, threshold=0.6)
    codebook.vectors.copy_(torch.tensor([[0.0, 0.0], [50.0, 50.0], [1.0, 1.0]]))
    codebook.sums.copy_(codebook.vectors)
    codebook.uses.fill_(1.0)
    rows = torch.tensor([[0.1, 0.0], [0.0, 0.1], [1.0, 1.1], [1.1, 1.0]])
    codebook.update(rows, codebook.nearest(rows))
    distance = (rows - codebook.vectors[1]).norm(dim=1).min()
    assert distance < 0.1
    even = len(rows) / 3  # uses of a code if all were used alike
    assert codebook.uses[1] == pytest.approx(even)
    assert torch.allclose(codebook.sums[1], codebook.vectors[1] * even)
    # The next update does not throw it back: its history is that of an average code on the spot.
    before = codebook.vectors[1].clone()
    codebook.update(rows, torch.tensor([0, 0, 2, 2]))
    assert codebook.uses[1] != pytest.approx(0.25)
    assert (codebook.vectors[1] - before).norm() < 2.0


def test_the_first_batch_fills_the_codebook():
    torch.manual_seed(0)
    codebook = Codebook(16, 3, 0.99, 0.1)
    rows = torch.randn(64, 3) + 5.0
    codebook.initialise(rows)
    assert bool(codebook.initialised)
    nearest = torch.cdist(codebook.vectors, rows).min(dim=1).values
    assert nearest.max() < 0.2
    assert (codebook.uses == 64 / 16).all()
    assert torch.allclose(codebook.sums, codebook.vectors * 64 / 16)


def test_a_batch_smaller_than_the_codebook_fills_it_with_distinct_vectors():
    torch.manual_seed(0)
    codebook = Codebook(16, 3, 0.99, 0.1)
    codebook.initialise(torch.randn(2, 3))
    assert len(codebook.vectors.unique(dim=0)) == 16


# --- levels -------------------------------------------------------------------------------------


def test_each_level_quantises_what_the_levels_before_left_over():
    quantizer = _filled()
    z = torch.randn(5, 2, 4)
    quantised, codes, _ = quantizer(z)
    residual, total = z.clone(), torch.zeros_like(z)
    for level, index in zip(quantizer.levels, codes, strict=True):
        expected = torch.cdist(residual.flatten(0, 1), level.vectors).argmin(1)
        assert torch.equal(index.flatten(), expected)
        residual, total = residual - level.vectors[index], total + level.vectors[index]
    assert torch.allclose(quantised, total, atol=1e-6)


def test_lookup_of_the_codes_gives_the_quantised_latents():
    quantizer = _filled()
    quantised, codes, _ = quantizer(torch.randn(5, 2, 4))
    assert torch.allclose(quantizer.lookup(codes), quantised, atol=1e-6)


def test_lookup_of_the_first_codes_equals_quantising_with_fewer_levels():
    quantizer = _filled()
    z = torch.randn(5, 2, 4)
    all_codes = quantizer(z)[1]
    for levels in (1, 2):
        quantised, codes, _ = quantizer(z, levels)
        assert torch.equal(codes, all_codes[:levels])
        assert torch.allclose(quantizer.lookup(all_codes[:levels]), quantised, atol=1e-6)


def test_codes_have_a_level_axis_before_the_shape_of_the_latents():
    assert _filled()(torch.randn(5, 2, 7, 4))[1].shape == (3, 5, 2, 7)


@pytest.mark.parametrize('training', [False, True])
def test_the_gradient_passes_straight_through(training):
    quantizer = _filled().train(training)
    z = torch.randn(6, 4, requires_grad=True)
    weights = torch.randn(6, 4)
    (quantizer(z)[0] * weights).sum().backward()
    assert torch.equal(z.grad, weights)


def test_the_commitment_loss_pulls_latents_towards_their_vectors_and_moves_no_codebook():
    quantizer = _filled(levels=1)
    z = torch.randn(6, 4, requires_grad=True)
    quantised, _, commitment = quantizer(z)
    commitment.backward()
    assert commitment.item() == pytest.approx((z - quantised).square().mean().item(), rel=1e-5)
    assert torch.allclose(z.grad, 2.0 * (z - quantised).detach() / z.numel(), atol=1e-6)
    assert not any(p.requires_grad for p in quantizer.parameters())


def test_evaluation_changes_no_codebook():
    quantizer = _filled()
    before = {k: v.clone() for k, v in quantizer.state_dict().items()}
    quantizer(torch.randn(50, 4) * 10)
    assert all(torch.equal(v, before[k]) for k, v in quantizer.state_dict().items())


def test_training_with_fewer_levels_leaves_the_others_alone():
    quantizer = _filled().train()
    before = [level.vectors.clone() for level in quantizer.levels]
    quantizer(torch.randn(50, 4) * 3, 1)
    assert not torch.equal(quantizer.levels[0].vectors, before[0])
    assert torch.equal(quantizer.levels[1].vectors, before[1])
    assert torch.equal(quantizer.levels[2].vectors, before[2])


def test_the_forward_pass_uses_the_vectors_from_before_the_update():
    quantizer = _filled(levels=1, ema_decay=0.1).train()
    before = quantizer.levels[0].vectors.clone()
    quantised, codes, _ = quantizer(torch.randn(20, 4))
    assert torch.allclose(quantised, before[codes[0]], atol=1e-6)
    assert not torch.equal(quantizer.levels[0].vectors, before)


def test_more_levels_reconstruct_data_better_after_a_short_fit():
    quantizer = _quantizer(levels=3, size=16, ema_decay=0.8).train()
    data = torch.randn(512, 4)
    for _ in range(60):
        quantizer(data)
    quantizer.eval()
    errors = [(quantizer(data, n)[0] - data).square().mean().item() for n in (1, 2, 3)]
    assert errors[0] < 0.5
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_after_a_fit_most_codes_are_in_use():
    quantizer = _quantizer(levels=2, size=32, ema_decay=0.8).train()
    # Two far clusters: without revival, codes placed on neither would never be chosen.
    data = torch.randn(512, 4) * 0.1 + torch.sign(torch.randn(512, 1)) * 5
    for _ in range(60):
        _, codes, _ = quantizer(data)
    for level in range(2):
        assert len(codes[level].unique()) > 24


# --- encoding with a beam -----------------------------------------------------------------------


def _distance(quantizer, rows, codes):
    return (quantizer.lookup(codes) - rows).square().sum(dim=-1)


def test_a_beam_of_one_takes_what_training_takes():
    quantizer, rows = _filled(size=16), torch.randn(2, 50, 4)
    assert torch.equal(quantizer.encode(rows), quantizer(rows)[1])


def test_a_beam_of_all_prefixes_finds_the_best_codes_there_are():
    quantizer, rows = _filled(size=6, levels=3), torch.randn(40, 4)
    everything = torch.cartesian_prod(*[torch.arange(6)] * 3).T  # [3, 216]
    sums = quantizer.lookup(everything)
    best = (sums[None] - rows[:, None]).square().sum(dim=-1).min(dim=1).values
    assert torch.allclose(_distance(quantizer, rows, quantizer.encode(rows, beam=36)), best)


@pytest.mark.parametrize('beam', [2, 5, 1000])
def test_a_beam_is_nearer_than_level_by_level(beam):
    quantizer, rows = _filled(size=32), torch.randn(500, 4)
    greedy = _distance(quantizer, rows, quantizer.encode(rows))
    searched = _distance(quantizer, rows, quantizer.encode(rows, beam=beam))
    assert searched.mean() < greedy.mean()


def test_rows_are_searched_apart_from_each_other():
    quantizer, rows = _filled(size=16), torch.randn(1500, 4)  # more than are searched at once
    codes = quantizer.encode(rows, beam=3)
    assert codes.shape == (3, 1500)
    assert torch.equal(codes[:, 1100:], quantizer.encode(rows[1100:], beam=3))
