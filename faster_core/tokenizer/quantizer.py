"""Residual vector quantisation with EMA codebooks.

Zeghidour et al. 2021 (SoundStream) and Razavi et al. 2019 (EMA updates): level i quantises what
levels before it left over; gradients pass straight through.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.training import processes

# Rows searched at once when encoding: bounds the memory of distances [rows, beam, K].
SEARCH_ROWS = 1024


class Codebook(nn.Module):
    """K vectors, updated by exponential moving averages of what they were chosen for.

    In a process group every rank sees the statistics of all ranks, and what is drawn at random is
    drawn once: the codebooks stay equal without being sent around.
    """

    def __init__(
        self, size: int, dim: int, decay: float, threshold: float, kmeans_iterations: int = 0
    ) -> None:
        """Start uninitialised: the first training batch provides the vectors."""
        super().__init__()
        self.decay, self.threshold = decay, threshold
        self.kmeans_iterations = kmeans_iterations
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
        counts, sums = map(processes.sum_of, self._statistics(x, indices))
        even = counts.sum() / len(counts)
        self.uses.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = (self.uses < self.threshold * even).nonzero().squeeze(1)
        self.vectors.copy_(self.sums / self.uses.clamp_min(1e-5)[:, None])
        if len(dead):
            self._place(dead, processes.rows_of_all(x), even)

    @torch.no_grad()
    def initialise(self, x: torch.Tensor) -> None:
        """Take vectors from the rows [M, d] of the first batch, then some rounds of k-means.

        Without a row for every vector k-means has nothing to average and is left out. In a process
        group the rows must be the same everywhere.
        """
        even = x.new_tensor(len(x) / len(self.vectors))
        self._place(torch.arange(len(self.vectors), device=x.device), x, even)
        if len(x) > len(self.vectors):
            for _ in range(self.kmeans_iterations):
                counts, sums = self._statistics(x, self.nearest(x))
                used = counts > 0
                self.vectors[used] = sums[used] / counts[used, None]
            self.sums.copy_(self.vectors * even)
        self.initialised.fill_(True)

    def _statistics(
        self, x: torch.Tensor, indices: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how many rows chose each vector [K], and their sums [K, d]."""
        counts = torch.bincount(indices, minlength=len(self.vectors)).to(x.dtype)
        return counts, torch.zeros_like(self.sums).index_add_(0, indices, x)

    def _place(self, codes: torch.Tensor, x: torch.Tensor, even: torch.Tensor) -> None:
        """Put codes on random rows, different ones if there are enough.

        They start with the EMA statistics of a code that is used as often as the average one.
        """
        if len(x) >= len(codes):
            rows = torch.randperm(len(x), device=x.device)[: len(codes)]
        else:
            rows = torch.randint(len(x), (len(codes),), device=x.device)
        chosen = x[rows]
        jitter = torch.randn_like(chosen) * (0.01 * x.std() + 1e-6)
        self.vectors[codes] = processes.from_first(chosen + jitter)
        self.uses[codes] = even
        self.sums[codes] = self.vectors[codes] * even


class ResidualQuantizer(nn.Module):
    """N_c codebooks in a row."""

    def __init__(self, config: Any) -> None:
        """Build the levels; `config` has the quantiser fields of `FasterVQConfig`."""
        super().__init__()
        self.levels = nn.ModuleList(
            Codebook(
                config.codebook_size,
                config.latent_dim,
                config.ema_decay,
                config.dead_code_threshold,
                config.kmeans_iterations,
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
        flat = z.flatten(0, -2).float()
        residual, quantised = flat, torch.zeros_like(flat)
        codes, commitment = [], flat.new_zeros(())
        for level in self.levels[:num_levels]:
            rows = residual.detach().float()  # in bfloat16 near codes are one
            if self.training and not level.initialised:
                level.initialise(processes.rows_of_all(rows))
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

    @torch.no_grad()
    def encode(self, z: torch.Tensor, *, beam: int = 1) -> torch.Tensor:
        """Return codes int64 [levels, ...] of latents [..., d_z].

        Args:
            z: latents.
            beam: so many of the best prefixes are kept from level to level; 1 is what `forward`
                does. A prefix that is not the nearest may leave over what later levels fit better
                (Babenko and Lempitsky 2014, additive quantisation).
        """
        flat = z.flatten(0, -2).float()
        parts = [self._search(rows, beam) for rows in flat.split(SEARCH_ROWS)]
        return torch.cat(parts, dim=1).view(-1, *z.shape[:-1])

    def _search(self, rows: torch.Tensor, beam: int) -> torch.Tensor:
        """Return codes [levels, M] of rows [M, d]."""
        left = rows[:, None]  # [M, prefixes, d]: what each prefix leaves over
        codes = torch.empty(0, len(rows), 1, dtype=torch.int64, device=rows.device)
        for level in self.levels:
            size = len(level.vectors)
            # Squared distance less |left|^2, which tells prefixes apart but not codes.
            distance = level.vectors.square().sum(1) - 2.0 * left @ level.vectors.T
            if left.shape[1] > 1:
                distance = distance + left.square().sum(-1, keepdim=True)
            last = level is self.levels[-1]
            keep = 1 if last else min(beam, left.shape[1] * size)
            best = distance.flatten(1).topk(keep, dim=1, largest=False).indices
            prefix, code = best // size, best % size
            codes = torch.cat([codes.gather(2, prefix.expand(len(codes), -1, -1)), code[None]])
            left = left.gather(1, prefix[..., None].expand(-1, -1, left.shape[2]))
            left = left - F.embedding(code, level.vectors)
        return codes[..., 0]

    @torch.no_grad()
    def fill(self, z: torch.Tensor) -> None:
        """Initialise every level anew with what the levels before it leave over of [..., d_z]."""
        residual = z.detach().flatten(0, -2).float()
        for level in self.levels:
            level.initialise(residual)
            residual = residual - F.embedding(level.nearest(residual), level.vectors)

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the latents [..., d_z] of codes [levels, ...]."""
        return sum(
            F.embedding(index, level.vectors)
            for index, level in zip(codes, self.levels, strict=False)
        )
