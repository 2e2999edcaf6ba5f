"""Gradient checkpointing for layers whose keys and values the expert attends to.

The switch of `transformers` takes the cache away from a layer, as the second pass would write to
it again. Here a layer gives its keys and values back beside its output, from either pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from faster_core.policy.backbones.base import LayerKV


class _Kept:
    """Takes the place of a `LayerKV` during one pass of one layer."""

    def __init__(self) -> None:
        self.index, self.made = 0, ()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing is cached before the pass."""
        return 0

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep and return what the layer made."""
        self.index, self.made = layer_idx, (keys, values)
        return keys, values


def recompute_layers(module: nn.Module) -> int:
    """Let every layer below `module` forget its activations and compute them again.

    Returns:
        How many layers there are.
    """
    layers = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = _recomputed(layer.forward, layer)
    return len(layers)


def _recomputed(forward: Callable[..., Any], layer: nn.Module) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not (layer.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        cache = kwargs.get('past_key_values')
        if not isinstance(cache, LayerKV):  # other caches do not change
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        index = 0

        def once(*inner: Any) -> Any:
            nonlocal index
            kept = _Kept()
            result = forward(*inner, **{**kwargs, 'past_key_values': kept})
            index = kept.index
            return result, *kept.made

        result, keys, values = checkpoint(once, *args, use_reentrant=False)
        cache.update(keys, values, index)
        return result

    return run
