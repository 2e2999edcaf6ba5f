"""The engine `cuda_graph` on a CPU, with graphs that are recorded and replayed there."""

import gc
import weakref

from cuda_stand_in import install, OnCpu, UseAfterFreeError
import numpy as np
from pretrained_parts import pretrained_parts, vlm_folders
import pytest
from test_engines import _bins, _observations
from tiny_checkpoint import tiny_parts
import torch

from faster_core.decoding.sampling import SamplingConfig
from faster_core.policy import Policy
from faster_core.policy.engines import choose
from faster_core.policy.engines.drawing import draw


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    monkeypatch.setattr(choose, 'ENGINES', {**choose.ENGINES, OnCpu.name: OnCpu})
    return install(monkeypatch)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    return vlm_folders(tmp_path_factory)


def _pair(parts, **options):
    return tuple(
        Policy(parts(), device='cpu', engine=name, seed=2, **options)
        for name in ('eager', OnCpu.name)
    )


def _assert_same(expected, found):
    assert np.allclose(found.values, expected.values, atol=1e-4)
    assert (found.codes is None) == (expected.codes is None)
    if expected.codes is not None:
        assert np.array_equal(found.codes, expected.codes)
        assert np.allclose(found.log_prob, expected.log_prob, atol=1e-4)


def _assert_pair_agrees(parts, *, whole=True, **options):
    oracle, captured = _pair(parts, **options)
    assert captured.whole == whole
    seen = []
    for observation in _observations(oracle, 3):
        for staged in (False, True):
            seen.append(oracle.predict(observation))
            _assert_same(seen[-1], captured.predict(observation, staged=staged))
    assert len({chunk.values.tobytes() for chunk in seen}) > 1


HEADS = {
    'level': lambda: tiny_parts(),
    'slot': lambda: tiny_parts(order='slot', block_size=6),
    'no expert': lambda: tiny_parts(action_expert='none'),
    'state as text': lambda: tiny_parts(state_encoding='text'),
    'flow': lambda: tiny_parts(head='flow'),
}


@pytest.mark.parametrize('temperature', [0.0, 0.9])
@pytest.mark.parametrize('head', HEADS)
def test_replays_give_the_chunks_of_the_oracle(head, temperature):
    _assert_pair_agrees(HEADS[head], temperature=temperature)


def test_replays_of_a_head_without_levels_give_the_chunks_of_the_oracle():
    _assert_pair_agrees(lambda: tiny_parts(tokenizer=_bins(), block_size=21), whole=False)


@pytest.mark.parametrize('family', ['paligemma', 'smolvlm', 'internvl', 'qwen2_5_vl'])
def test_replays_of_pretrained_backbones_give_the_chunks_of_the_oracle(folders, family):
    _assert_pair_agrees(lambda: pretrained_parts(folders(family)))


def test_what_a_generator_makes_of_several_calls_does_not_matter(monkeypatch):
    # A GPU's generator gives other values in six calls than in one.
    rand = torch.rand
    monkeypatch.setattr(torch, 'rand', lambda *a, **options: rand(*a, **options).flip(0))
    _assert_pair_agrees(tiny_parts, temperature=2.0)


def test_a_whole_inference_that_draws_needs_noise():
    policy = Policy(tiny_parts(), device='cpu', engine=OnCpu.name)
    inputs = policy._inputs(policy.make_example())
    assert draw(policy._model, SamplingConfig(), None) is None
    with pytest.raises(ValueError, match='needs noise'):
        policy._engine.run(inputs, SamplingConfig(temperature=1.0))


def test_a_replay_does_not_change_what_an_earlier_one_returned():
    policy = Policy(tiny_parts(), device='cpu', engine=OnCpu.name)
    engine = policy._engine
    first, second = (policy._inputs(o) for o in _observations(policy, 2))
    with torch.inference_mode():
        made = engine.run(first, policy._sampling)
        before = made.chunk.copy(), made.tokens.clone(), made.logits.clone()
        engine.run(second, policy._sampling)
        engine.prefill(engine.vision(first.pixels), first)
        begin = torch.full((1, 10), policy.model.begin_token)
        logits = engine.block_logits(begin, 0)
        kept = logits.clone()
        engine.block_logits(begin, 1)
    assert np.array_equal(made.chunk, before[0])
    assert torch.equal(made.tokens, before[1])
    assert torch.equal(made.logits, before[2])
    assert torch.equal(logits, kept)


def test_coarse_chunks_and_decoding_again_are_those_of_the_oracle():
    oracle, captured = _pair(tiny_parts)
    coarse = [], []
    observation = next(_observations(oracle, 1))
    for policy, chunks in zip((oracle, captured), coarse, strict=True):
        policy.predict(observation, on_chunk=chunks.append)
    for expected, found in zip(*coarse, strict=True):
        _assert_same(expected, found)
    again = [policy.decode_again(policy._sampling) for policy in (oracle, captured)]
    assert torch.equal(*again)


# --- memory -------------------------------------------------------------------------------------


class _Shifting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('shift', torch.arange(4.0))

    def forward(self, x):
        return x + self.shift


def _engine():
    return Policy(tiny_parts(), device='cpu', engine=OnCpu.name)._engine


def test_the_buffers_of_a_step_live_as_long_as_what_replays_it():
    step = _Shifting()
    run, alive = _engine().compile(step, (torch.zeros(4),)), weakref.ref(step)
    del step
    gc.collect()
    assert alive() is not None
    assert run(torch.ones(4)).tolist() == [1.0, 2.0, 3.0, 4.0]
    del run
    gc.collect()
    assert alive() is None


def test_the_stand_in_notices_what_was_freed(graphs):
    step = _Shifting()
    run = _engine().compile(step, (torch.zeros(4),))
    step.shift = None
    with pytest.raises(UseAfterFreeError):
        run(torch.ones(4))


def test_nothing_is_computed_before_the_first_replay():
    run = _engine().compile(_Shifting(), (torch.ones(4),))
    assert not run._made.any()


# --- streams ------------------------------------------------------------------------------------


def test_a_capture_runs_on_a_stream_of_the_models_device(graphs):
    # Without one torch takes the stream of its first capture, wherever that was.
    engine = _engine()
    engine.compile(_Shifting(), (torch.ones(4),))
    assert graphs
    assert all(graph.stream.device == engine.device for graph in graphs)
