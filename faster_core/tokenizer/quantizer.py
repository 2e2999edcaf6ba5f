"""Residual vector quantisation with EMA codebooks.

Zeghidour et al. 2021 (SoundStream) and Razavi et al. 2019 (EMA updates): level i quantises what
levels before it left over; gradients pass straight through.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.tokenizer.config import FasterVQConfig


class Codebook(nn.Module):
    """K vectors, updated by exponential moving averages of what they were chosen for."""

    def __init__(self, size: int, dim: int, decay: float, threshold: float) -> None:
        """Start uninitialised: the first training batch provides the vectors."""
        super().__init__()
        self.decay, self.threshold = decay, threshold
        self.register_buffer('vectors', torch.zeros(size, dim))
        self.register_buffer('sums', torch.zeros(size, dim))
        self.register_buffer('uses', torch.zeros(size))
        self.register_buffer('initialised', torch.zeros((), dtype=torch.bool))

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """Return the index of the nearest vector for every row of [M, d]."""
        return (self.vectors.square().sum(1) - 2.0 * x @ self.vectors.T).argmin(dim=1)

    @torch.no_grad()
    def update(self, x: torch.Tensor, indices: torch.Tensor) -> None:
        """Move towards the rows [M, d] that chose each vector; revive what nobody chooses."""
        size = self.vectors.shape[0]
        counts = torch.bincount(indices, minlength=size).to(x.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, x)
        self.uses.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = (self.uses < self.threshold).nonzero().squeeze(1)
        self.vectors.copy_(self.sums / self.uses.clamp_min(1e-5)[:, None])
        if len(dead):
            self._place(dead, x)

    @torch.no_grad()
    def initialise(self, x: torch.Tensor) -> None:
        """Take vectors from the rows [M, d] of the first batch."""
        self._place(torch.arange(self.vectors.shape[0]), x)
        self.initialised.fill_(True)

    def _place(self, codes: torch.Tensor, x: torch.Tensor) -> None:
        """Put codes on random rows; EMA size and sum are reset with them."""
        chosen = x[torch.randint(len(x), (len(codes),))]
        jitter = torch.randn_like(chosen) * (0.01 * x.std() + 1e-6)
        self.vectors[codes] = chosen + jitter
        self.uses[codes] = 1.0
        self.sums[codes] = self.vectors[codes]


class ResidualQuantizer(nn.Module):
    """N_c codebooks in a row."""

    def __init__(self, config: FasterVQConfig) -> None:
        """Build the levels."""
        super().__init__()
        self.levels = nn.ModuleList(
            Codebook(
                config.codebook_size,
                config.latent_dim,
                config.ema_decay,
                config.dead_code_threshold,
            )
            for _ in range(config.num_levels)
        )

    def forward(
        self, z: torch.Tensor, num_levels: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantise [..., d_z]; in training mode the codebooks learn.

        Args:
            z: latents.
            num_levels: use the first levels only.

        Returns:
            quantised latents with straight-through gradient, codes int64 [levels, ...],
            commitment loss (mean squared distance to the quantised, which is held fixed).
        """
        flat = z.flatten(0, -2)
        residual, quantised = flat, torch.zeros_like(flat)
        codes, commitment = [], flat.new_zeros(())
        for level in self.levels[:num_levels]:
            rows = residual.detach()
            if self.training and not level.initialised:
                level.initialise(rows)
            indices = level.nearest(rows)
            chosen = F.embedding(
                indices, level.vectors.clone() if self.training else level.vectors
            )
            commitment = commitment + F.mse_loss(residual, chosen)
            if self.training:
                level.update(rows, indices)
            residual = residual - chosen
            quantised = quantised + chosen
            codes.append(indices)
        quantised = flat + (quantised - flat).detach()
        codes = torch.stack(codes).view(-1, *z.shape[:-1])
        return quantised.view_as(z), codes, commitment / len(codes)

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the latents [..., d_z] of codes [levels, ...]."""
        return sum(
            F.embedding(index, level.vectors)
            for index, level in zip(codes, self.levels, strict=False)
        )
