"""From logits to tokens: greedy, top-k, seeds."""

import pytest
from tiny_model import encoded, tiny_model
import torch

from faster_core.decoding.blockwise import decode
from faster_core.decoding.sampling import sample, SamplingConfig
from faster_core.errors import ConfigError


def _logits(seed=0, shape=(4, 7, 30)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _draw(logits, seed=0, **fields):
    return sample(logits, SamplingConfig(**fields), torch.Generator().manual_seed(seed))


def test_temperature_zero_is_the_argmax_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    logits = _logits()
    assert torch.equal(sample(logits, SamplingConfig(), generator), logits.argmax(-1))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize('temperature', [0.1, 1.0, 100.0])
def test_top_one_is_greedy_at_any_temperature(temperature):
    logits = _logits()
    drawn = _draw(logits, temperature=temperature, top_k=1)
    assert torch.equal(drawn, logits.argmax(-1))


def test_draws_are_among_the_k_most_likely():
    logits = _logits(shape=(1, 1, 30)).expand(1, 2000, 30)
    drawn = _draw(logits, temperature=10.0, top_k=4)
    assert set(drawn.unique().tolist()) == set(logits[0, 0].topk(4).indices.tolist())


def test_a_k_larger_than_the_vocabulary_draws_from_all():
    drawn = _draw(torch.zeros(1, 2000, 6), temperature=1.0, top_k=50)
    assert set(drawn.unique().tolist()) == set(range(6))


def test_frequencies_follow_the_softmax_at_the_temperature():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = _draw(logits.expand(40000, 4), temperature=0.7, top_k=4)
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    assert torch.allclose(share, torch.softmax(logits / 0.7, dim=0), atol=0.02)


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    logits = _logits()
    drawn = [_draw(logits, seed, temperature=1.0) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_global_seed_has_no_influence_on_a_generator_of_its_own():
    logits = _logits()
    torch.manual_seed(0)
    first = _draw(logits, temperature=1.0)
    torch.manual_seed(1)
    assert torch.equal(_draw(logits, temperature=1.0), first)


@pytest.mark.parametrize('shape', [(5,), (2, 5), (2, 3, 5)])
@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_the_shape_of_the_result_is_that_of_the_positions(shape, temperature):
    drawn = _draw(torch.randn(*shape), temperature=temperature)
    assert drawn.shape == shape[:-1]
    assert drawn.dtype == torch.int64


def test_half_precision_logits_are_drawn_from_in_full_precision():
    logits = _logits().to(torch.bfloat16)
    assert torch.equal(_draw(logits, temperature=0.8), _draw(logits.float(), temperature=0.8))


@pytest.mark.parametrize('temperature', [-0.1, float('nan')])
def test_a_negative_temperature_is_refused(temperature):
    with pytest.raises(ConfigError, match='temperature'):
        SamplingConfig(temperature=temperature)


@pytest.mark.parametrize('top_k', [0, -5])
def test_an_empty_choice_is_refused(top_k):
    with pytest.raises(ConfigError, match='top_k'):
        SamplingConfig(top_k=top_k)


@torch.inference_mode()
def test_whole_decodes_repeat_with_their_seed_and_differ_without():
    model = tiny_model()
    prefix = encoded(model)
    config = SamplingConfig(temperature=2.0, top_k=8)
    drawn = [
        decode(model, prefix, sampling=config, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@torch.inference_mode()
def test_whole_decodes_with_top_one_are_greedy():
    model = tiny_model()
    prefix = encoded(model)
    greedy = decode(model, prefix, sampling=SamplingConfig())
    drawn = decode(model, prefix, sampling=SamplingConfig(temperature=3.0, top_k=1))
    assert torch.equal(greedy, drawn)
