"""Engines against `eager`, the oracle: same codes, same chunks, same draws."""

import dataclasses
import functools
import sys

import numpy as np
from pretrained_parts import pretrained_parts, vlm_folders
import pytest
from tiny_checkpoint import r1_lite, random_chunks, tiny_parts, tiny_tokenizer
import torch

from faster_core import paths
from faster_core.decoding.sampling import confidence, gumbel, SamplingConfig
from faster_core.errors import ConfigError
from faster_core.policy import certainty, Policy
from faster_core.policy.engines import steps
from faster_core.tokenizer.baselines.bins import Bins, BinsConfig
from faster_core.tokenizer.baselines.fast import Fast, FastConfig
from faster_core.tokenizer.config import velocity_dims

# Converting a model takes OpenVINO ten seconds here, Inductor, with its fifty files of C++, a
# minute: a case or two of the one in every run, of the other only what is captured; the rest in
# `make test-slow`.
SLOW_OPENVINO = pytest.param('openvino', marks=pytest.mark.slow)
SLOW_INDUCTOR = pytest.param('compile', marks=pytest.mark.slow)
FASTER = ['static', 'openvino']
FASTER_OR_SLOW = ['static', SLOW_OPENVINO]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    return vlm_folders(tmp_path_factory)


def _observations(policy, count, seed=0):
    rng = np.random.default_rng(seed)
    example = policy.make_example()
    for _ in range(count):
        yield dataclasses.replace(
            example,
            images={
                c: rng.integers(0, 256, (policy.image_size,) * 2 + (3,), dtype=np.uint8)
                for c in example.images
            },
            state=example.state + rng.normal(0.0, 0.05, 21).astype(np.float32),
        )


def _assert_same(parts, engine, count=4, **options):
    oracle = Policy(parts(), device='cpu', engine='eager', **options)
    other = Policy(parts(), device='cpu', engine=engine, **options)
    assert (oracle.engine, other.engine) == ('eager', engine)
    seen = []
    for observation in _observations(oracle, count):
        expected, found = oracle.predict(observation), other.predict(observation)
        assert np.array_equal(expected.codes, found.codes)
        assert np.allclose(expected.values, found.values, atol=1e-5)
        assert np.allclose(expected.log_prob, found.log_prob, atol=1e-3)
        assert np.allclose(expected.entropy, found.entropy, atol=1e-3)
        seen.append(expected.codes)
        if not options:  # also where it can do all at once
            staged = other.predict(observation, staged=True)
            assert np.array_equal(expected.codes, staged.codes)
    assert len({c.tobytes() for c in seen}) == count


FIELDS = [
    {'order': 'slot', 'block_size': 6},
    {'code_embeddings': 'tied'},
    {'action_expert': 'none'},
    {'block_size': 1},
    {'state_encoding': 'text'},
    {'prefix_attention': 'causal'},
]


@pytest.mark.parametrize('engine', FASTER_OR_SLOW)
@pytest.mark.parametrize('fields', FIELDS, ids=lambda f: ' '.join(map(str, f.values())))
def test_engines_give_the_codes_of_the_oracle(engine, fields):
    _assert_same(lambda: tiny_parts(**fields), engine)


@pytest.mark.parametrize('engine', FASTER_OR_SLOW)
@pytest.mark.parametrize('family', ['paligemma', 'smolvlm', 'internvl', 'qwen2_5_vl'])
def test_engines_give_the_codes_of_the_oracle_with_pretrained_backbones(folders, engine, family):
    parts = lambda: pretrained_parts(folders(family))  # noqa: E731
    _assert_same(parts, engine, count=2)


@pytest.mark.parametrize('engine', FASTER_OR_SLOW)
def test_engines_draw_the_codes_of_the_oracle_from_the_same_seed(engine):
    _assert_same(tiny_parts, engine, temperature=0.8, top_k=20, seed=3)


@pytest.mark.parametrize('temperature', [0.0, 0.9])
@pytest.mark.parametrize('engine', ['eager', 'static'])
def test_an_inference_asks_its_generator_once_and_only_if_it_draws(
    engine, temperature, monkeypatch
):
    policy = Policy(tiny_parts(), device='cpu', engine=engine, temperature=temperature)
    rand, asked = torch.rand, []

    def counted(*shape, **options):
        asked.append(options['device'])
        return rand(*shape, **options)

    monkeypatch.setattr(torch, 'rand', counted)
    before = policy._generator.get_state()
    policy.predict(policy.make_example())
    assert asked == [torch.device('cpu')] * bool(temperature)
    assert torch.equal(policy._generator.get_state(), before) == (not temperature)


def test_what_is_drawn_next_does_not_depend_on_how_many_levels_were_decoded():
    policy = Policy(tiny_parts(), device='cpu', temperature=1.5)
    example = policy.make_example()
    whole, following = (policy.predict(example).codes for _ in range(2))
    policy.reset()
    assert np.array_equal(policy.predict(example, num_levels=1).codes, whole[:1])
    assert np.array_equal(policy.predict(example).codes, following)


@pytest.mark.parametrize('engine', ['static', 'openvino', SLOW_INDUCTOR])
def test_the_shipped_policy_gives_the_codes_of_the_oracle(engine):
    _assert_shipped_same(engine)


def test_what_the_compiler_is_given_gives_the_codes_of_the_oracle(monkeypatch):
    # All of torch.compile but Inductor: the captured graphs are run as they are.
    captured = []

    def run_as_it_is(graph, example):
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=run_as_it_is))
    _assert_shipped_same('compile')
    assert len(captured) == 4  # vision, prefill, a block and the codes: once each, whole


def _assert_shipped_same(engine):
    oracle, other = (
        Policy.from_pretrained(paths.demo_checkpoint(), device='cpu', engine=name)
        for name in ('eager', engine)
    )
    assert other.whole == (engine == 'openvino')
    for observation in _observations(oracle, 20):
        expected, found = oracle.predict(observation), other.predict(observation)
        assert np.array_equal(expected.codes, found.codes)
        assert np.allclose(expected.values, found.values, atol=1e-5)


# --- heads ------------------------------------------------------------------------------------


def _shape():
    robot = r1_lite()
    return {'horizon': 32, 'action_dim': 21, 'velocity_dims': velocity_dims(robot)}


def _bins():
    return Bins(BinsConfig(**_shape()), tiny_tokenizer().normalizer)


def _fast(**changes):
    normalizer = tiny_tokenizer().normalizer
    chunks = normalizer.normalize(random_chunks(200))
    return Fast.fit(FastConfig(**_shape(), vocab_size=400, **changes), normalizer, chunks)


@pytest.mark.parametrize('engine', FASTER_OR_SLOW)
def test_bins_decode_token_by_token(engine):
    parts = lambda: tiny_parts(tokenizer=_bins(), block_size=21)  # noqa: E731
    _assert_same(parts, engine, count=2)
    chunk = Policy(parts(), device='cpu', engine=engine).predict(
        next(_observations(Policy(parts(), device='cpu'), 1))
    )
    assert chunk.codes.shape == (32 * 21,)


@pytest.mark.parametrize('engine', ['eager', 'static'])
def test_fast_tokens_end_where_the_end_token_is(engine):
    tokenizer = _fast()
    row = tokenizer.tokens(tokenizer.encode(random_chunks(1, seed=5)))[0]
    parts = tiny_parts(tokenizer=tokenizer, block_size=1, max_action_tokens=len(row) + 4)
    policy = Policy(parts, device='cpu', engine=engine)
    model = policy._model
    script = [*row, model.end_code]

    def scripted(inputs, block, prefix):
        logits = torch.zeros(1, 1, model.layout.codebook_size)
        logits[0, 0, script[block]] = 1.0
        return logits

    model.block_logits = scripted
    chunk = policy.predict(policy.make_example())
    assert chunk.codes.tolist() == list(row)
    assert len(chunk.timing.decode_block_ms) == len(script)
    assert np.allclose(chunk.values, tokenizer.decode_tokens([row])[0], atol=1e-6)


def test_fast_tokens_that_never_end_are_an_error_not_a_chunk():
    from faster_core.errors import DecodeError

    policy = Policy(tiny_parts(tokenizer=_fast(), block_size=1, max_action_tokens=5), device='cpu')
    policy._model.head.weight.data[policy._model.end_code] = 0.0
    with pytest.raises(DecodeError, match=r'no end within 6 tokens|stand for'):
        policy.predict(policy.make_example())


@pytest.mark.parametrize('engine', FASTER_OR_SLOW)
@pytest.mark.parametrize('expert', ['light', 'none'])
def test_flow_heads_integrate_to_the_chunk_of_the_oracle(engine, expert):
    made = [
        Policy(tiny_parts(head='flow', action_expert=expert), device='cpu', engine=name, seed=4)
        for name in ('eager', engine)
    ]
    for observation in _observations(made[0], 3):
        expected, found = (policy.predict(observation) for policy in made)
        assert expected.values.shape == (32, 21)
        assert expected.codes is None
        assert np.allclose(expected.values, found.values, atol=1e-4)
    again = made[0]
    again.reset()
    first = again.predict(observation).values
    again.reset()
    assert np.array_equal(again.predict(observation).values, first)
    assert not np.array_equal(again.predict(observation).values, first)


# --- the whole inference as one step ----------------------------------------------------------


@pytest.mark.parametrize('fields', [{}, {'order': 'slot', 'block_size': 6}, {'head': 'flow'}])
@pytest.mark.parametrize('temperature', [0.0, 0.9])
def test_the_step_that_is_captured_whole_does_what_the_stages_do(fields, temperature):
    policy = Policy(tiny_parts(**fields), device='cpu', engine='eager', temperature=temperature)
    model, tokenizer = policy._model, policy._tokenizer
    observation = next(_observations(policy, 1))
    expected = policy.predict(observation)
    generator = torch.Generator().manual_seed(0)
    sampling = SamplingConfig(temperature=temperature)
    flow = 'head' in fields
    if flow:
        noise = torch.randn((1, 32, 21), generator=generator)
    else:
        shape = (1, model.block_size, min(50, model.layout.codebook_size))
        device = torch.device('cpu')
        noise = torch.stack([gumbel(shape, generator, device) for _ in range(model.num_blocks)])
    inputs = policy._inputs(observation)
    whole = steps.WholeStep(model, None if flow else tokenizer, sampling).eval()
    with torch.inference_mode():
        chunk, tokens, logits = whole(
            inputs.pixels,
            inputs.text_ids,
            inputs.text_valid,
            inputs.state,
            torch.ones(1, 3, dtype=torch.bool),
            noise,
        )
    assert np.allclose(tokenizer.physical(chunk[0].numpy()), expected.values, atol=1e-5)
    if not flow:
        assert np.array_equal(tokenizer.codes(model.codes(tokens).numpy())[0], expected.codes)
        assert logits.shape == (model.num_blocks, model.block_size, model.layout.codebook_size)


@pytest.mark.gpu
@pytest.mark.parametrize('fields', [{}, {'order': 'slot', 'block_size': 6}, {'head': 'flow'}])
@pytest.mark.parametrize('temperature', [0.0, 0.9])
def test_a_captured_inference_gives_the_chunk_of_eager_on_the_gpu(fields, temperature):
    options = {'device': 'cuda', 'dtype': 'float32', 'temperature': temperature}
    oracle, captured = (
        Policy(tiny_parts(**fields), engine=name, **options) for name in ('eager', 'cuda_graph')
    )
    for observation in _observations(oracle, 5):
        expected = oracle.predict(observation)
        assert np.allclose(captured.predict(observation).values, expected.values, atol=1e-4)
        if 'head' not in fields:
            assert np.array_equal(captured.predict(observation).codes, expected.codes)


# --- anytime ----------------------------------------------------------------------------------


@pytest.mark.parametrize('engine', FASTER_OR_SLOW)
def test_chunks_arrive_level_by_level_coarse_first(engine):
    policy = Policy(tiny_parts(), device='cpu', engine=engine)
    observation, coarse = next(_observations(policy, 1)), []
    final = policy.predict(observation, on_chunk=coarse.append)
    assert [c.num_levels for c in coarse] == [1, 2]
    assert final.num_levels is None
    for chunk in coarse:
        direct = policy.predict(observation, num_levels=chunk.num_levels)
        assert np.array_equal(chunk.codes, direct.codes)
        assert np.allclose(chunk.values, direct.values)
        assert chunk.sequence_id == final.sequence_id
        assert chunk.timing.total_ms < final.timing.total_ms
        assert np.array_equal(chunk.codes, final.codes[: chunk.num_levels])


def test_slot_major_order_has_no_coarse_chunks():
    policy = Policy(tiny_parts(order='slot', block_size=6), device='cpu')
    observation, coarse = policy.make_example(), []
    policy.predict(observation, on_chunk=coarse.append)
    assert coarse == []
    with pytest.raises(ValueError, match='order level'):
        policy.predict(observation, num_levels=1)


def test_confidence_is_the_log_probability_and_entropy_of_every_block():
    policy = Policy(tiny_parts(), device='cpu', engine='eager')
    observation = next(_observations(policy, 1))
    blocks = []
    chunk = policy.predict(observation)
    with torch.inference_mode():
        policy._engine.decode(SamplingConfig(), on_block=blocks.append)
    for i, block in enumerate(blocks):
        log_p = block.logits.log_softmax(-1)
        chosen = block.tokens - policy._model.token_offset(i)
        mean = log_p.gather(-1, chosen[..., None]).mean()
        assert chunk.log_prob[i] == pytest.approx(float(mean), abs=1e-4)
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        assert chunk.entropy[i] == pytest.approx(float(entropy), abs=1e-4)
    assert len(blocks) == len(chunk.log_prob) == policy._model.num_blocks


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_confidence_on_a_device_is_that_of_the_host(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (5.0 * torch.randn(6, 1, 10, 300, generator=generator)).to(dtype)
    chosen = list(torch.randint(0, 300, (6, 1, 10), generator=generator))
    for expected, found in zip(
        confidence(logits, chosen), certainty.on_device(logits, chosen), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-5)


def test_logits_of_an_accelerator_stay_there(monkeypatch):
    monkeypatch.setattr(certainty, 'on_device', lambda *_: ([-0.5], [1.5]))
    logits = [torch.zeros(1, 2, 3, device='meta')]
    assert certainty.certainty(logits, [torch.zeros(1, 2, device='meta')]) == ([-0.5], [1.5])


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize('engine', ['cuda_graph', 'openvino', 'turbo'])
def test_an_engine_that_cannot_run_here_is_refused_by_name(engine, monkeypatch):
    if engine == 'openvino':
        monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(ConfigError, match=f'engine.*{engine}'):
        Policy(tiny_parts(), device='cpu', engine=engine)


def test_openvino_is_float32_only():
    with pytest.raises(ConfigError, match='float32'):
        Policy(tiny_parts(), device='cpu', dtype='bfloat16', engine='openvino')


def test_a_gpu_that_is_not_there_is_refused_at_once():
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    with pytest.raises(ConfigError, match='sees 0 CUDA devices'):
        Policy(tiny_parts(), device='cuda')
