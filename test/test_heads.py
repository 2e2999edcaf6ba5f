"""Heads and tokenizers other than the shipped ones: from disk and back, layouts, losses."""

import json

import numpy as np
import pytest
from test_engines import _bins, _fast, _observations
from tiny_checkpoint import random_chunks, tiny_parts, tiny_tokenizer
from tiny_model import encoded, tiny_model
import torch

from faster_core.errors import CheckpointError, ConfigError
from faster_core.policy import checkpoint, Policy
from faster_core.policy.engines import choose
from faster_core.policy.engines.stepwise import StepEngine
from faster_core.policy.flow import FlowVla
from faster_core.policy.layout import CodeLayout, layout_of
from faster_core.policy.model import IGNORED
from faster_core.tokenizer.registry import load_tokenizer

HEADS = {
    'slot order': lambda: tiny_parts(order='slot', block_size=6),
    'tied': lambda: tiny_parts(code_embeddings='tied'),
    'no expert': lambda: tiny_parts(action_expert='none'),
    'bins': lambda: tiny_parts(tokenizer=_bins(), block_size=21),
    'flow': lambda: tiny_parts(head='flow'),
    'flow, bins': lambda: tiny_parts(head='flow', tokenizer=_bins()),
}


@pytest.mark.parametrize('name', HEADS)
def test_a_policy_with_this_head_survives_the_disk(name, tmp_path):
    parts = HEADS[name]()
    before = Policy(parts, device='cpu')
    checkpoint.save(tmp_path / 'made', parts, {})
    after = Policy.from_pretrained(tmp_path / 'made', device='cpu')
    observation = next(_observations(before, 1))
    expected, found = before.predict(observation), after.predict(observation)
    assert np.array_equal(expected.values, found.values)
    assert expected.values.shape == (32, 21)


def test_a_fast_policy_keeps_its_vocabulary_on_disk(tmp_path):
    parts = tiny_parts(tokenizer=_fast(), block_size=1, max_action_tokens=9)
    checkpoint.save(tmp_path / 'made', parts, {})
    loaded = checkpoint.load(tmp_path / 'made')
    chunks = random_chunks(3, seed=7)
    expected = [row.tolist() for row in parts.tokenizer.encode(chunks)]
    assert [row.tolist() for row in loaded.tokenizer.encode(chunks)] == expected
    assert loaded.model.num_tokens == 10
    assert loaded.model.end_code == parts.tokenizer.vocab_size


def test_a_checkpoint_refuses_another_grouping(tmp_path):
    parts = tiny_parts()
    checkpoint.save(tmp_path / 'made', parts, {})
    config = tmp_path / 'made' / 'config.json'
    values = json.loads(config.read_text()) | {'block_size': 5}
    config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match='was changed'):
        checkpoint.load(tmp_path / 'made')
    metadata = tmp_path / 'made' / 'metadata.json'
    signed = json.loads(metadata.read_text())
    signed['files']['config.json'] = checkpoint._sha256(config)
    metadata.write_text(json.dumps(signed))
    with pytest.raises(CheckpointError, match='slot'):
        checkpoint.load(tmp_path / 'made')


# --- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize('order', ['level', 'slot'])
def test_tokens_in_decoding_order_become_the_codes_they_were(order):
    tokenizer = tiny_tokenizer()
    layout = layout_of(tokenizer, order)
    codes = tokenizer.encode(random_chunks(5))
    offsets = np.arange(3) * layout.codebook_size
    tokens = layout.from_level_major(tokenizer.tokens(codes + offsets[:, None, None]))
    levels = torch.tensor(layout.levels)
    assert (torch.from_numpy(tokens) // layout.codebook_size == levels).all()
    back = layout.codes(torch.from_numpy(tokens), levels).numpy()
    assert np.array_equal(tokenizer.codes(back), codes)


def test_slot_order_puts_the_levels_of_a_slot_together():
    layout = CodeLayout(num_levels=3, codebook_size=10, tokens_per_level=2, order='slot')
    assert layout.levels == [0, 1, 2, 0, 1, 2]
    tokens = layout.from_level_major(np.array([[1, 2, 11, 12, 21, 22]]))
    assert tokens.tolist() == [[1, 11, 21, 2, 12, 22]]


def test_blocks_that_do_not_fit_are_refused():
    layout = CodeLayout(num_levels=3, codebook_size=10, tokens_per_level=6, order='slot')
    layout.check_block_size(9)
    with pytest.raises(ValueError, match='does not divide the 18 tokens'):
        layout.check_block_size(4)


def test_tokenizers_without_levels_have_no_slot_order():
    with pytest.raises(ConfigError, match='has no levels'):
        layout_of(_bins(), 'slot')


def test_every_tokenizer_says_how_many_tokens_a_chunk_has(tmp_path):
    for tokenizer in (tiny_tokenizer(), _bins(), _fast()):
        rows = tokenizer.tokens(tokenizer.encode(random_chunks(4)))
        lengths = {len(row) for row in rows}
        if tokenizer.num_tokens is None:
            assert len(lengths) > 1
        else:
            assert lengths == {tokenizer.num_tokens}
        tokenizer.save_pretrained(tmp_path / tokenizer.kind)
        assert load_tokenizer(tmp_path / tokenizer.kind).num_tokens == tokenizer.num_tokens


# --- losses -------------------------------------------------------------------------------------


def test_slot_order_trains_every_level_on_its_own_codes():
    model = tiny_model(order='slot', block_size=3)
    prefix = encoded(model)
    generator = torch.Generator().manual_seed(0)
    levels = model.levels.flatten()
    codes = torch.randint(0, 11, (1, model.num_tokens), generator=generator)
    losses = model.loss(prefix, codes + levels * 11)
    begin = torch.full((1, 3), model.begin_token)
    inputs = torch.cat([begin, (codes + levels * 11)[:, :-3]], dim=1)
    logits = torch.cat(model.sequence_logits(inputs, prefix), dim=1)
    for level in range(3):
        places = levels == level
        scores = logits[:, places].log_softmax(-1)
        # The loss also has the two special tokens in its sum: it cannot be smaller.
        plain = -scores.gather(-1, codes[:, places][..., None]).mean()
        found = losses[f'level{level}'].item()
        assert plain.item() < found < plain.item() + 1.0


def test_tokens_after_the_end_are_not_trained():
    parts = tiny_parts(tokenizer=_fast(), block_size=1, max_action_tokens=7)
    model = parts.model
    observation = next(_observations(Policy(parts, device='cpu'), 1))
    inputs = Policy(parts, device='cpu')._inputs(observation)
    prefix = model.encode(
        model.backbone.vision(inputs.pixels), inputs.text_ids, inputs.text_valid, inputs.state
    )
    end = model.end_code
    row = torch.tensor([[3, 4, end, *[IGNORED] * 5]])
    loss = model.loss(prefix, row)['level0']
    other = row.clone()
    other[0, 1] = 9
    assert not torch.allclose(model.loss(prefix, other)['level0'], loss)
    # The mean is over three tokens only.
    shorter = torch.tensor([[3, *[IGNORED] * 7]])
    longer = torch.tensor([[3, 4, *[IGNORED] * 6]])
    one, two = (float(model.loss(prefix, r)['level0']) for r in (shorter, longer))
    assert two != pytest.approx(one)
    assert np.isfinite([one, two]).all()


def test_a_flow_head_learns_the_chunks_it_is_given():
    torch.manual_seed(0)
    parts = tiny_parts(head='flow')
    model: FlowVla = parts.model.train()
    policy = Policy(parts, device='cpu')
    rows = [policy._inputs(o) for o in _observations(policy, 4)]
    fields = ('pixels', 'text_ids', 'text_valid', 'state')
    batch = [torch.cat([getattr(row, name) for row in rows]) for name in fields]
    model.train()
    chunks = torch.randn(4, 1, 21).expand(4, 32, 21) * 0.5
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def prefix():
        pixels, *others = batch
        return model.encode(model.backbone.vision(pixels), *others)

    for _ in range(220):
        optimizer.zero_grad()
        model.loss(prefix(), chunks)['flow'].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        noise = torch.randn(1, 32, 21)
        made = model.integrate(prefix(), noise.expand(4, -1, -1))
    distance = (made[:, None] - chunks[None]).abs().mean((2, 3))
    assert (distance.argmin(dim=1) == torch.arange(4)).all()
    others = distance + torch.eye(4) * 9.0
    assert distance.diagonal().max() < 0.75 * others.min()


# --- precision of a flow head -----------------------------------------------------------------


class _Steps(StepEngine):
    """The steps as they are, staged or whole."""

    name, whole = 'steps', True

    def compile(self, step, example):
        return step


@pytest.fixture
def _engines(monkeypatch):
    monkeypatch.setattr(choose, 'ENGINES', {**choose.ENGINES, _Steps.name: _Steps})


def _flow_policy(dtype, engine):
    """Return a policy, and lists of the times and chunks its passes get and of what they see."""
    policy = Policy(tiny_parts(head='flow'), device='cpu', dtype=dtype, engine=engine)
    model, given, waves = policy.model, [], []
    velocity_over = model.velocity_over

    def noted(noisy, time, *others):
        given.append((noisy, time))
        return velocity_over(noisy, time, *others)

    model.velocity_over = noted
    model.time_mlp.register_forward_pre_hook(
        lambda _, inputs: waves.append(inputs[0][..., model.width :])
    )
    return policy, given, waves


@pytest.mark.usefixtures('_engines')
@pytest.mark.parametrize('staged', [False, True])
@pytest.mark.parametrize('engine', ['eager', 'static', 'steps'])
def test_a_flow_in_bfloat16_knows_its_time_and_its_chunk_in_float32(engine, staged):
    made = [_flow_policy(dtype, engine) for dtype in ('float32', 'bfloat16')]
    observation = next(_observations(made[0][0], 1))
    for policy, *_ in made:
        policy.predict(observation, staged=staged)
    (_, _, exact), (_, given, rounded) = made
    assert len(exact) == len(rounded) == len(given) == 10
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.bfloat16
        assert torch.equal(one.to(torch.bfloat16), other)
    assert {tensor.dtype for pair in given for tensor in pair} == {torch.float32}


def test_a_flow_in_float32_takes_plain_euler_steps():
    model = tiny_parts(head='flow').model
    policy = Policy(tiny_parts(head='flow'), device='cpu')
    inputs = policy._inputs(next(_observations(policy, 1)))
    noise = torch.randn(1, 32, 21, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        prefix = model.encode(
            model.backbone.vision(inputs.pixels), inputs.text_ids, inputs.text_valid, inputs.state
        )
        chunk = noise
        for k in range(10):
            chunk = chunk - model.velocity(chunk, torch.tensor([1.0 - k / 10]), prefix) / 10
        assert torch.equal(model.integrate(prefix, noise), chunk)
