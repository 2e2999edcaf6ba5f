"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import nn

from faster_core.training.sharding import local


class WeightAverage:
    """Average of a module's floating-point parameters and buffers; of its own part, under FSDP.

    The decay is min(decay, (1 + n) / (10 + n)) after n updates, so that early weights fade.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's weights."""
        self.decay, self.updates = decay, 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, new = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                own.append(local(self.values[name]))
                new.append(local(value))
            else:
                self.values[name].copy_(value)
        torch._foreach_lerp_(own, new, 1.0 - decay)

    @torch.no_grad()
    def take_over(self, module: nn.Module, part: str) -> None:
        """Start anew from the module's weights whose name contains `part`."""
        for name, value in module.state_dict().items():
            if part in name:
                self.values[name].copy_(value)
