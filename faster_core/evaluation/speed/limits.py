"""What the hardware could do at most, measured, and what an inference asks of it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from faster_core.observation import Observation
from faster_core.policy import Policy
from faster_core.policy.model import ActionModel

# Multiplied, and copied, to find the peaks: large enough for full speed.
MATRIX = {'cpu': 2048, 'cuda': 8192}
COPIED_BYTES = {'cpu': 2**28, 'cuda': 2**31}
REPEATS = 10


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


def _fastest(work: Any, device: torch.device) -> float:
    best = float('inf')
    for _ in range(REPEATS):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def asked(policy: Policy, observation: Observation, passes: int) -> dict[str, float]:
    """Return what one inference asks for: 'tflop', and 'gbyte' of weights that must be read.

    Args:
        policy: with the engine `eager`, whose operators are counted.
        observation: any.
        passes: of the decoder.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        policy.predict(observation, staged=True)
    model = policy.model
    decoder = _weights(model.decoder) if model.expert is not None else _language(model)
    rest = _weights(model) - (_weights(model.expert) if model.expert is not None else 0)
    once = rest - _embedding(model)
    return {
        'tflop': counter.get_total_flops() / 1e12,
        'gbyte': (once + passes * decoder) / 1e9,
    }


def _weights(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _embedding(model: ActionModel) -> int:
    """Return the bytes of the words' embedding: of it a few rows are read, no more."""
    weight = model.backbone.language.get_input_embeddings().weight
    return weight.numel() * weight.element_size()


def _language(model: ActionModel) -> int:
    return _weights(model.backbone.language) - _embedding(model)
