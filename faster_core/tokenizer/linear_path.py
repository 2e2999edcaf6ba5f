"""A linear path beside the network, that starts as principal components of the data.

The network alone has to learn first that a chunk is to come out as it went in, past layer norms
that forget how large it was. Principal components (the Karhunen-Loeve transform) do that from the
first step and keep the residual quantiser busy with what varies; the network adds what is not
linear. Ours, not the paper's; measured in docs/tokenizer.md.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import torch
from torch import nn

from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.patchify import Patchifier


class LinearPath(nn.Module):
    """Chunks [B, H, D] to latents [B, C_h, C_a, d_z] and back, one time slot at a time.

    With `slot_map` mixed, components of the whole time slot are dealt out to its C_a cells in
    turn, so that every cell gets its share of the large ones. With split, every action slot has
    the components of its own columns; the maps are the same for all slots, of whatever robot.
    """

    def __init__(self, config: FasterVQConfig, shared: LinearPath | None = None) -> None:
        """Build the two maps, to which `fit` gives their start, or take those of `shared`."""
        super().__init__()
        self.time_slots, self.cells = config.latent_shape
        self.dim, self.mixed = config.latent_dim, config.slot_map == 'mixed'
        rows = config.horizon // config.time_slots
        self.patchifier = Patchifier(dataclasses.replace(config, patch_length=rows, strides=()))
        size = rows * config.action_dim if self.mixed else self.patchifier.patch_size
        out = self.dim * (self.cells if self.mixed else 1)
        if shared is not None:
            self.to_latent, self.from_latent = shared.to_latent, shared.from_latent
        else:
            self.to_latent, self.from_latent = nn.Linear(size, out), nn.Linear(out, size)

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Return latents [B, C_h, C_a, d_z]."""
        return self.to_latent(self.windows(actions)).view(
            len(actions), self.time_slots, self.cells, self.dim
        )

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return chunks [B, H, D]."""
        if not self.mixed:
            return self.patchifier.join(self.from_latent(latents))
        rows = self.from_latent(latents.flatten(2))
        return rows.reshape(len(latents), self.time_slots * self.patchifier.length, -1)

    def windows(self, actions: torch.Tensor) -> torch.Tensor:
        """Return what the maps see: [B, C_h, rows * D] mixed, [B, C_h, C_a, size] split."""
        if self.mixed:
            return actions.reshape(len(actions), self.time_slots, -1)
        return self.patchifier(actions)

    @torch.no_grad()
    def fit(self, windows: Sequence[torch.Tensor]) -> None:
        """Start from the principal components of windows, each [..., size] (`self.windows`)."""
        rows = torch.cat([w.reshape(-1, w.shape[-1]) for w in windows]).double()
        mean = rows.mean(dim=0)
        covariance = torch.cov(rows.T, correction=0).reshape(len(mean), len(mean))
        components = torch.linalg.eigh(covariance).eigenvectors.flip(1).T  # largest first
        out = self.to_latent.out_features
        basis = components.new_zeros(out, len(mean))
        count = min(out, len(mean))
        places = torch.arange(count)
        if self.mixed:  # component i becomes number i // C_a of cell i % C_a
            places = places % self.cells * self.dim + places // self.cells
        basis[places] = components[:count]
        self.to_latent.weight.copy_(basis)
        self.to_latent.bias.copy_(-basis @ mean)
        self.from_latent.weight.copy_(basis.T)
        self.from_latent.bias.copy_(mean)
