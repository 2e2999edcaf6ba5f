"""Weights in another precision, without what must not be rounded."""

from __future__ import annotations

import torch
from torch import nn

# Frequencies of rotary embeddings, however a text model of `transformers` calls its own. In
# bfloat16 they are up to 2^-9 off: an angle at position 500 by a radian. Training under autocast
# has them whole, as `transformers` has when it loads a model in bfloat16.
_KEPT = 'inv_freq'


def move(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a model, in place, to a device and its weights to a precision; return it.

    Other floating-point buffers follow the weights, with which they are multiplied.
    """
    kept = {
        name: buffer
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name.endswith(_KEPT)
    }
    model.to(device, dtype)
    for name, buffer in kept.items():
        owner, _, own_name = name.rpartition('.')
        setattr(model.get_submodule(owner), own_name, buffer.to(device))
    return model
