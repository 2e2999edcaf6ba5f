"""Block-wise decoding with a static cache against the slow twin without one."""

import pytest
from tiny_model import encoded, tiny_model
import torch

from faster_core.decoding.blockwise import decode
from faster_core.decoding.cache import StaticKV
from faster_core.decoding.oracle import decode_tokenwise
from faster_core.decoding.sampling import SamplingConfig

GREEDY = SamplingConfig()
DRAWN = SamplingConfig(temperature=1.0, top_k=5)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def _generator(seed):
    return torch.Generator().manual_seed(seed)


# --- fast equals slow -----------------------------------------------------------------------

MODELS = {
    'block 1': {'block_size': 1},
    'block 2': {'block_size': 2},
    'block 3': {'block_size': 3},
    'whole level': {'block_size': 6},
    'one level': {'levels': 1, 'block_size': 2},
    'one block': {'levels': 1, 'block_size': 6},
    'deep': {'layers': 4, 'heads': 4, 'kv_heads': 2},
    'all heads': {'heads': 2, 'kv_heads': 2, 'expert_width': 40},
    'two codes': {'codes': 2, 'levels': 5},
    'gap 1': {'position_gap': 1},
    'wide': {'per_level': 20, 'block_size': 10, 'codes': 64},
}


@pytest.mark.parametrize('name', MODELS)
def test_cached_blocks_give_the_codes_of_uncached_single_tokens(name):
    for seed in range(3):
        model = tiny_model(seed, **MODELS[name])
        prefix = encoded(model, seed=seed)
        fast = decode(model, prefix, sampling=GREEDY)
        assert fast.shape == (1, model.num_tokens)
        assert torch.equal(fast, decode_tokenwise(model, prefix))


@pytest.mark.parametrize('padding', [0, 1, 4])
@pytest.mark.parametrize('batch', [2, 5])
def test_rows_of_a_batch_with_different_padding_decode_like_their_slow_twin(batch, padding):
    model = tiny_model(7)
    prefix = encoded(model, batch, padding=padding)
    fast = decode(model, prefix, sampling=GREEDY, batch=batch)
    assert torch.equal(fast, decode_tokenwise(model, prefix, batch=batch))
    assert len(fast.unique(dim=0)) == batch


def test_the_logits_of_cached_and_uncached_passes_agree_block_by_block():
    model = tiny_model(1)
    prefix = encoded(model, 2)
    tokens = decode(model, prefix, sampling=GREEDY, batch=2)
    begin = torch.full((2, model.block_size), model.begin_token)
    inputs = torch.cat([begin, tokens[:, : -model.block_size]], dim=1)
    slow = model.sequence_logits(inputs, prefix)
    assert len(slow) == model.num_blocks
    for j, block in enumerate(inputs.split(model.block_size, dim=1)):
        assert torch.allclose(model.block_logits(block, j, prefix), slow[j], atol=1e-4)


def test_the_codes_differ_between_observations_and_models():
    model = tiny_model(0)
    chunks = [decode(model, encoded(model, seed=s), sampling=GREEDY) for s in range(3)]
    chunks.append(decode(tiny_model(1), encoded(tiny_model(1)), sampling=GREEDY))
    assert len(torch.cat(chunks).unique(dim=0)) == 4


def test_a_bfloat16_model_decodes_in_its_own_precision():
    model = tiny_model(0).to(torch.bfloat16)
    prefix = encoded(model)
    tokens = decode(model, prefix, sampling=GREEDY)
    assert prefix.layers[0][0].dtype == torch.bfloat16
    assert tokens.shape == (1, model.num_tokens)


# --- fewer blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize('config', [GREEDY, DRAWN], ids=['greedy', 'drawn'])
def test_a_shorter_decode_is_the_beginning_of_a_longer_one(config):
    model = tiny_model(2)
    whole = decode(model, encoded(model), sampling=config, generator=_generator(0))
    for blocks in range(1, model.num_blocks + 1):
        short = decode(
            model, encoded(model), sampling=config, num_blocks=blocks, generator=_generator(0)
        )
        assert torch.equal(short, whole[:, : blocks * model.block_size])


def test_decoding_again_on_the_same_cache_gives_the_same_codes():
    model = tiny_model(3)
    prefix = encoded(model)
    first = decode(model, prefix, sampling=GREEDY)
    decode(model, prefix, sampling=DRAWN, generator=_generator(1))
    assert torch.equal(decode(model, prefix, sampling=GREEDY), first)


@pytest.mark.parametrize('num_blocks', [0, -1, 7])
def test_a_number_of_blocks_that_is_not_there_is_refused(num_blocks):
    model = tiny_model()
    with pytest.raises(ValueError, match=r'1\.\.6'):
        decode(model, encoded(model), sampling=GREEDY, num_blocks=num_blocks)


def test_every_block_reports_its_time():
    model, blocks = tiny_model(), []
    tokens = decode(model, encoded(model), sampling=GREEDY, on_block=blocks.append)
    assert [b.index for b in blocks] == list(range(model.num_blocks))
    assert all(b.milliseconds > 0 for b in blocks)
    assert torch.equal(torch.cat([b.tokens for b in blocks], dim=1), tokens)
    for block in blocks:
        chosen = block.logits.argmax(-1) + model.token_offset(block.index)
        assert torch.equal(chosen, block.tokens)


# --- levels -----------------------------------------------------------------------------------


@pytest.mark.parametrize('config', [GREEDY, SamplingConfig(temperature=5.0, top_k=999)])
def test_every_token_belongs_to_the_level_of_its_place(config):
    model = tiny_model(4)
    # Tempting invalid tokens: `<BoBlk>`, `<EoBlk>` and the codes of the last level.
    model.head.weight[model.begin_token :] = 100.0
    model.head.weight[22:33] *= 100.0
    prefix = encoded(model, 8)
    tokens = decode(model, prefix, sampling=config, batch=8, generator=_generator(0))
    level = torch.arange(model.num_tokens) // model.layout.tokens_per_level
    codes = tokens - level * model.layout.codebook_size
    assert codes.min() >= 0
    assert codes.max() < model.layout.codebook_size


def test_logits_cover_the_codes_of_one_level_only():
    model = tiny_model()
    prefix = encoded(model)
    inputs = torch.full((1, model.block_size), model.begin_token)
    assert model.block_logits(inputs, 0, prefix).shape == (1, 3, model.layout.codebook_size)
    assert [model.token_offset(j) for j in range(model.num_blocks)] == [0, 0, 11, 11, 22, 22]


def test_a_block_must_divide_a_level():
    with pytest.raises(ValueError, match='block_size 4 does not divide the 6'):
        tiny_model(block_size=4)


# --- what a block depends on ------------------------------------------------------------------


class _Scripted:
    """A model whose logits depend on its inputs only; records what it was asked."""

    num_tokens, block_size, begin_token, end_code = 8, 2, 99, None

    def __init__(self):
        self.calls = []

    def block_logits(self, inputs, block, prefix):
        self.calls.append((block, inputs.tolist(), prefix))
        return torch.nn.functional.one_hot((inputs + 1) % 10, 10).float()

    def token_offset(self, block):
        return 10 * (block // 2)


def test_the_inputs_of_a_block_are_the_tokens_of_the_block_before():
    model = _Scripted()
    tokens = decode(model, 'what was seen', sampling=GREEDY)
    assert tokens.tolist() == [[0, 0, 1, 1, 12, 12, 13, 13]]
    assert model.calls == [
        (0, [[99, 99]], 'what was seen'),
        (1, [[0, 0]], 'what was seen'),
        (2, [[1, 1]], 'what was seen'),
        (3, [[12, 12]], 'what was seen'),
    ]


@pytest.mark.parametrize('block', [0, 1, 3])
def test_changed_keys_and_values_of_a_block_change_the_next_block(block):
    model = tiny_model(5)
    prefix = encoded(model)
    tokens = decode(model, prefix, sampling=GREEDY).split(model.block_size, dim=1)
    after = model.block_logits(tokens[block], block + 1, prefix)
    start = prefix.valid.shape[1] + block * model.block_size
    prefix.cache._values[1][:, :, start : start + model.block_size] += 1.0
    assert not torch.allclose(model.block_logits(tokens[block], block + 1, prefix), after)


def test_changed_values_of_later_blocks_and_of_padding_change_nothing():
    model = tiny_model(5)
    prefix = encoded(model, padding=2)
    tokens = decode(model, prefix, sampling=GREEDY).split(model.block_size, dim=1)
    logits = model.block_logits(tokens[1], 2, prefix)
    end = prefix.valid.shape[1] + 3 * model.block_size
    pads = (~prefix.valid[0]).nonzero().squeeze(1)
    assert len(pads) == 2
    for layer in range(2):
        for buffers in (prefix.cache._keys, prefix.cache._values):
            buffers[layer][:, :, end:] = 1e3
            buffers[layer][:, :, pads] = 1e3
    assert torch.equal(model.block_logits(tokens[1], 2, prefix), logits)


@pytest.mark.parametrize('block', range(1, 6))
def test_changed_codes_change_later_blocks_and_never_earlier_ones(block):
    model = tiny_model(6)
    prefix = encoded(model)
    begin = torch.full((1, model.block_size), model.begin_token)
    tokens = torch.cat([begin, decode(model, prefix, sampling=GREEDY)], dim=1)
    changed = tokens.clone()
    # Input block `block` holds the codes of block - 1.
    place = block * model.block_size
    level = (block - 1) // 2
    changed[:, place] = level * 11 + (tokens[:, place] - level * 11 + 1) % 11
    before, after = (model.sequence_logits(t, prefix) for t in (tokens, changed))
    for j, (a, b) in enumerate(zip(before, after, strict=True)):
        assert torch.allclose(a, b, atol=1e-5) == (j < block)


def test_attention_inside_a_block_is_bidirectional():
    model = tiny_model(6)
    prefix = encoded(model)
    inputs = torch.tensor([[0, 1, 2]])
    before = model.block_logits(inputs, 1, prefix)
    inputs[0, 2] = 5
    assert not torch.allclose(model.block_logits(inputs, 1, prefix)[:, 0], before[:, 0])


# --- static cache -------------------------------------------------------------------------------


def _buffers(cache):
    return [(b.data_ptr(), tuple(b.shape)) for b in (*cache._keys, *cache._values)]


def test_buffers_neither_grow_nor_move_over_blocks_and_observations():
    model = tiny_model()
    prefix = encoded(model)
    cache, before = prefix.cache, _buffers(prefix.cache)
    for seed in range(3):
        decode(model, prefix, sampling=GREEDY)
        prefix = encoded(model, seed=seed)
        assert model.prepare(prefix, cache) is cache
    assert _buffers(cache) == before


def test_a_reused_cache_gives_the_codes_of_a_new_one():
    model = tiny_model()
    cache = encoded(model, seed=8).cache
    for seed in range(3):
        prefix = encoded(model, seed=seed)
        fresh = decode(model, prefix, sampling=GREEDY)
        model.prepare(prefix, cache)
        assert torch.equal(decode(model, prefix, sampling=GREEDY), fresh)


def test_a_cache_of_another_batch_size_is_replaced():
    model = tiny_model()
    cache = encoded(model, 1).cache
    prefix = encoded(model, 3)
    fresh = decode(model, prefix, sampling=GREEDY, batch=3)
    model.prepare(prefix, cache)
    assert torch.equal(decode(model, prefix, sampling=GREEDY, batch=3), fresh)


def test_the_cache_refuses_what_does_not_fit():
    cache = StaticKV(1, 4)
    entry = torch.ones(1, 1, 3, 2)
    cache.update(entry, entry, 0)
    cache.rewind(3)
    with pytest.raises(ValueError, match='4 positions cannot take 6'):
        cache.update(entry, entry, 0)
    for position in (-1, 5):
        with pytest.raises(ValueError, match=r'0\.\.4'):
            cache.rewind(position)


def test_writes_start_where_the_cache_was_rewound_to():
    cache = StaticKV(1, 4)
    cache.update(torch.full((1, 1, 2, 1), 1.0), torch.full((1, 1, 2, 1), 2.0), 0)
    cache.rewind(1)
    assert cache.get_seq_length() == 1
    keys, values = cache.update(torch.full((1, 1, 2, 1), 3.0), torch.full((1, 1, 2, 1), 4.0), 0)
    assert keys.flatten().tolist() == [1.0, 3.0, 3.0, 0.0]
    assert values.flatten().tolist() == [2.0, 4.0, 4.0, 0.0]
