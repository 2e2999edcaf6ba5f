"""The grouped patchifier: uniform in time, non-uniform over action dimensions, padded."""

from __future__ import annotations

import torch
from torch import nn

from faster_core.tokenizer.config import FasterVQConfig


class Patchifier(nn.Module):
    """Chunks [B, H, D] to patches [B, m, C_a, h * d] and back.

    d is the widest slot, or `slot_width`.
    """

    def __init__(self, config: FasterVQConfig) -> None:
        """Lay out which column of which slot holds which dimension."""
        super().__init__()
        self.length, self.widest = config.patch_length, config.slot_width or max(config.slot_sizes)
        columns, start = [], 0
        for slot, size in enumerate(config.slot_sizes):
            columns += [slot * self.widest + k for k in range(size)]
            start += size
        self.slots = len(config.slot_sizes)
        self.register_buffer('columns', torch.tensor(columns), persistent=False)

    @property
    def patch_size(self) -> int:
        """H * d."""
        return self.length * self.widest

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """Cut; padding is zero, which is the middle of the normalised range."""
        batch, horizon, _ = actions.shape
        padded = actions.new_zeros(batch, horizon, self.slots * self.widest)
        padded[:, :, self.columns] = actions
        grid = padded.view(batch, horizon // self.length, self.length, self.slots, self.widest)
        return grid.transpose(2, 3).flatten(3)

    def join(self, patches: torch.Tensor) -> torch.Tensor:
        """Put patches back together; padding is dropped, so no loss ever sees it."""
        batch, count = patches.shape[:2]
        grid = patches.view(batch, count, self.slots, self.length, self.widest).transpose(2, 3)
        return grid.reshape(batch, count * self.length, -1)[:, :, self.columns]
