"""What a CUDA graph can record, checked without a GPU.

Every step that the engine `cuda_graph` captures runs here on the device `meta`, where tensors have
a shape and a type but no data. What a capture forbids raises there: values and shapes that the
host would have to wait for, tensors of two devices, and copies between host and device.
"""

import copy
import dataclasses
from unittest import mock

from pretrained_parts import pretrained_parts, vlm_folders
import pytest
from tiny_checkpoint import tiny_parts
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from faster_core.decoding.sampling import SamplingConfig
from faster_core.evaluation.speed.contestants import paper_contestants
from faster_core.evaluation.speed.presets import SPEED_PRESETS
from faster_core.policy import Policy
from faster_core.policy.engines import choose, ModelInputs
from faster_core.policy.engines.drawing import draw
from faster_core.policy.engines.stepwise import StepEngine


class CannotCaptureError(Exception):
    """An operation that a capture refuses."""


class _NoLists(TorchFunctionMode):
    """Refuses tensors made on the device of what the host has."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if function in (torch.tensor, torch.as_tensor) and made.device.type != 'cpu':
            raise CannotCaptureError(f'{function.__name__} on {made.device}')
        return made


class _OneDevice(TorchDispatchMode):
    """Refuses operations between devices."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        tensors = [
            tensor
            for tensor in tree_leaves((arguments, options, made))
            if isinstance(tensor, torch.Tensor)
        ]
        copies = function.name().startswith(('aten::_to_copy', 'aten::copy_'))
        # A number of the host may be an argument of a kernel; it cannot be copied.
        kinds = {tensor.device.type for tensor in tensors if tensor.ndim or copies}
        if len(kinds) > 1:
            raise CannotCaptureError(f'{function}: between {" and ".join(sorted(kinds))}')
        return made


def _capturing():
    # transformers looks whether it is being captured before it looks into a mask.
    return mock.patch('torch.cuda.is_current_stream_capturing', lambda: True)


def check(step, example):
    """Run a step without data; raises what a capture would stumble on."""
    step = copy.deepcopy(step).to('meta')
    inputs = [tensor.to('meta') for tensor in example]
    with torch.no_grad(), _NoLists(), _OneDevice(), _capturing():
        made = step(*inputs)
    assert all(tensor.device.type == 'meta' for tensor in tree_leaves(made))


class Checking(StepEngine):
    """Runs the steps of `cuda_graph` as they are, each checked where it would be captured."""

    name = 'checking'

    def __init__(self, model, tokenizer):
        self.checked = []
        super().__init__(model, tokenizer)
        self.whole = self.can_unroll

    def compile(self, step, example):
        check(step, example)
        self.checked.append(type(step).__name__)
        return step


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    return vlm_folders(tmp_path_factory)


@pytest.fixture(autouse=True)
def _checking(monkeypatch):
    monkeypatch.setattr(choose, 'ENGINES', {**choose.ENGINES, Checking.name: Checking})


def _predict(parts, **options):
    policy = Policy(parts, device='cpu', engine='checking', **options)
    policy.predict(policy.make_example())
    policy.predict(policy.make_example(), staged=True)
    return set(policy._engine.checked)


STAGES = {'VisionStep', 'PrefillStep'}
CODES = {*STAGES, 'BlockStep', 'VqStep', 'WholeStep'}
FIELDS = [
    {},
    {'order': 'slot', 'block_size': 6},
    {'code_embeddings': 'tied'},
    {'action_expert': 'none'},
    {'state_encoding': 'text'},
    {'prefix_attention': 'causal'},
]


@pytest.mark.parametrize('temperature', [0.0, 0.9])
@pytest.mark.parametrize('fields', FIELDS, ids=lambda f: ' '.join(map(str, f.values())))
def test_every_step_can_be_captured(fields, temperature):
    assert _predict(tiny_parts(**fields), temperature=temperature) == CODES


@pytest.mark.parametrize('expert', ['light', 'none'])
def test_every_step_of_a_flow_head_can_be_captured(expert):
    found = _predict(tiny_parts(head='flow', action_expert=expert))
    assert found == {*STAGES, 'VqStep', 'VelocityStep', 'WholeStep'}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('family', ['paligemma', 'smolvlm', 'internvl', 'qwen2_5_vl'])
def test_every_step_of_pretrained_backbones_can_be_captured(folders, family, dtype):
    assert _predict(pretrained_parts(folders(family)), dtype=dtype) == CODES


# --- the paper's widths -----------------------------------------------------------------------


def _contestants(preset):
    """Return the heads of a preset without weights, with two layers instead of 18 and 27."""
    preset = SPEED_PRESETS[preset]
    parts = {
        part: {**preset.large[part], 'num_hidden_layers': 2}
        for part in ('vision_config', 'text_config')
    }
    preset = dataclasses.replace(preset, large={**preset.large, **parts})
    device = torch.device('meta')
    for contestant in paper_contestants(preset, small=False, device=device, dtype=torch.bfloat16):
        if hasattr(contestant.parts.tokenizer, 'model'):
            contestant.parts.tokenizer.model.to(device)
        yield contestant


def _inputs(parts):
    cameras, size = len(parts.embodiment.cameras), parts.config.image_size
    text = parts.config.max_text_tokens
    with torch.device('meta'):
        return ModelInputs(
            pixels=torch.zeros(1, cameras, size, size, 3, dtype=torch.uint8),
            text_ids=torch.zeros(1, text, dtype=torch.int64),
            text_valid=torch.ones(1, text, dtype=torch.bool),
            state=torch.zeros(1, 8, dtype=torch.int64),
        )


WHOLE_BODY = pytest.param('paper_whole_body', marks=pytest.mark.slow)


@pytest.mark.parametrize('preset', ['paper_single', WHOLE_BODY])
def test_every_step_of_every_head_can_be_captured_at_the_papers_widths(preset):
    for contestant in _contestants(preset):
        parts, model = contestant.parts, contestant.parts.model
        inputs = _inputs(parts)
        engine = Checking(model, parts.tokenizer)
        features = engine.vision(inputs.pixels)
        assert features.shape == (1, len(parts.embodiment.cameras) * 256, 2048)
        engine.prefill(features, inputs)
        if contestant.head == 'flow':
            noise = torch.zeros(1, model.horizon, model.action_dim)
            with pytest.raises(NotImplementedError, match='out of meta'):  # the result
                engine.integrate(noise.to('meta'))
        else:
            tokens = torch.zeros(1, model.block_size, dtype=torch.int64, device='meta')
            logits = engine.block_logits(tokens, model.num_blocks - 1)
            assert logits.shape == (1, model.block_size, model.layout.codebook_size)
        if engine.whole and contestant.head != 'token':  # that of block, only longer
            with pytest.raises(NotImplementedError, match='out of meta'):
                engine.run(inputs, SamplingConfig(), draw(model, SamplingConfig(), None))
            assert 'WholeStep' in engine.checked


@pytest.mark.parametrize('name', ['eager', 'static'])
def test_the_engines_beside_it_stay_on_the_device(name):
    for contestant in _contestants('paper_single'):
        parts, model = contestant.parts, contestant.parts.model
        inputs = _inputs(parts)
        engine = choose.make_engine(name, model, parts.tokenizer)
        with torch.inference_mode(), _NoLists(), _OneDevice():
            engine.prefill(engine.vision(inputs.pixels), inputs)
            if contestant.head != 'flow':
                count = min(model.num_blocks, 3)
                tokens = engine.decode(SamplingConfig(), num_blocks=count)
                assert tokens.shape == (1, count * model.block_size)


# --- the check itself -------------------------------------------------------------------------


class _Broken(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.table = what, torch.arange(3.0)

    def forward(self, x):
        return self.what(self, x)


@pytest.mark.parametrize(
    'what',
    [
        lambda self, x: x * x.sum().item(),
        lambda self, x: x if x.sum() > 0 else -x,
        lambda self, x: x[x > 0],
        lambda self, x: x.cpu() + 1.0,
        lambda self, x: x + self.table,
        lambda self, x: x + self.table.to(x.device),
        lambda self, x: x + torch.arange(3.0),
        lambda self, x: x + torch.arange(3.0).to(x.device),
        lambda self, x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
        lambda self, x: torch.zeros_like(x).copy_(torch.ones(3)),
    ],
)
def test_what_cannot_be_captured_is_noticed(what):
    refusals = (CannotCaptureError, RuntimeError, NotImplementedError)
    with pytest.raises(refusals, match=r'meta|data-independent'):
        check(_Broken(what), (torch.ones(3),))


def test_what_can_be_captured_passes():
    fill = _Broken(lambda self, x: x + torch.full((3,), 2.0, device=x.device) * 0.5)
    check(fill, (torch.ones(3),))
