"""What the hardware could do at most, measured, and what an inference asks of it."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

import torch
from torch import nn
from torch.nn.attention import sdpa_kernel, SDPBackend
from torch.utils.flop_counter import FlopCounterMode

from faster_core.decoding.cache import GrowingKV
from faster_core.policy.backbones.base import Prefix
from faster_core.policy.checkpoint import PolicyParts
from faster_core.policy.flow import FlowVla
from faster_core.policy.inputs import state_input
from faster_core.policy.model import ActionModel, FasterVla
from faster_core.tokenizer.rvq import RvqTokenizer

# Multiplied, and copied, to find the peaks: large enough for full speed.
MATRIX = {'cpu': 2048, 'cuda': 8192}
COPIED_BYTES = {'cpu': 2**28, 'cuda': 2**31}
# At least so often and so long: a GPU that was idle takes a while to raise its clock.
REPEATS, SECONDS = 10, 0.5


def measure_peaks(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Return 'peak_tflops' of a matrix product and 'bandwidth_gbs' of a copy, read and write."""
    size = MATRIX[device.type]
    a = torch.randn(size, size, device=device, dtype=dtype)
    source = torch.empty(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _fastest(lambda: a @ a, device)
    copy = _fastest(lambda: target.copy_(source), device)
    return {
        'peak_tflops': 2 * size**3 / product / 1e12,
        'bandwidth_gbs': 2 * source.numel() / copy / 1e9,
    }


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    best, count, begin = float('inf'), 0, time.perf_counter()
    while count < REPEATS or time.perf_counter() - begin < SECONDS:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


@torch.inference_mode()
def asked(parts: PolicyParts, passes: int) -> dict[str, float]:
    """Return what one inference asks for: 'tflop', and 'gbyte' of weights that must be read.

    Operations are those of the engine `eager`. Of the passes only the first and the last are run:
    each attends to as many more tokens than the one before it, so the mean of the two is the mean
    of all.

    Args:
        parts: a policy, its model on the device and in the precision in question.
        passes: of the decoder.
    """
    model = parts.model
    prefix, flops = _counted(lambda: _prefix(parts))
    if isinstance(model, FlowVla):
        shape = (1, model.horizon, model.action_dim)
        noise = torch.zeros(shape, device=model.device)
        flops += passes * _counted(lambda: model.integrate(prefix, noise, steps=1))[1]
    else:
        ends = _pass(model, prefix, 0), _pass(model, prefix, passes - 1)
        flops += passes * sum(ends) // 2
        flops += _counted(lambda: _detokenize(parts))[1]
    decoder = _weights(model.decoder) if model.expert is not None else _language(model)
    rest = _weights(model) - (_weights(model.expert) if model.expert is not None else 0)
    once = rest - _embedding(model)
    return {'tflop': flops / 1e12, 'gbyte': (once + passes * decoder) / 1e9}


def _counted(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return a result and the floating-point operations that it took."""
    # As matrix products: torch's counter does not know its own kernel for attention on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made = work()
    return made, counter.get_total_flops()


def _prefix(parts: PolicyParts) -> Prefix:
    """Return what the backbone makes of grey images and the mean state."""
    model, size = parts.model, parts.config.image_size
    shape = (1, len(parts.embodiment.cameras), size, size, 3)
    pixels = torch.full(shape, 127, dtype=torch.uint8, device=model.device)
    ids, valid = (
        torch.from_numpy(array)[None].to(model.device)
        for array in parts.text.encode(parts.text.known_words())
    )
    state = state_input(parts.state(parts.state.centre), parts.config, parts.text)
    state = state[None].to(model.device, model.dtype if state.is_floating_point() else None)
    return model.encode(model.backbone.vision(pixels), ids, valid, state)


def _pass(model: FasterVla, prefix: Prefix, block: int) -> int:
    """Return the operations of one block, after as many tokens as stand before it."""
    cache = model.prepare(prefix, kind=GrowingKV)
    for layer, (keys, values) in enumerate(prefix.layers):
        shape = (*keys.shape[:2], block * model.block_size, keys.shape[3])
        cache.update(keys.new_zeros(shape), values.new_zeros(shape), layer)
    inputs = torch.full((1, model.block_size), model.begin_token, device=model.device)
    return _counted(lambda: model.block_logits(inputs, block, prefix))[1]


def _detokenize(parts: PolicyParts) -> None:
    if isinstance(tokenizer := parts.tokenizer, RvqTokenizer):
        shape = (1, tokenizer.config.num_levels, *tokenizer.config.latent_shape)
        tokenizer.decode(torch.zeros(shape, dtype=torch.int64))


def _weights(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _embedding(model: ActionModel) -> int:
    """Return the bytes of the words' embedding: of it a few rows are read, no more."""
    weight = model.backbone.language.get_input_embeddings().weight
    return weight.numel() * weight.element_size()


def _language(model: ActionModel) -> int:
    return _weights(model.backbone.language) - _embedding(model)
