"""Convolutions in place of SigLIP's patch embedding, for small models trained from nothing."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.policy.config import PolicyConfig, STEM_GROUPS, StemConfig


def build_stem(config: PolicyConfig) -> nn.Module:
    """Return the stem of a configuration; maps [B, 3, size, size] to [B, width, grid, grid]."""
    if config.pooling == 'grid':
        return ConvStem(config.stem)
    return PooledStem(
        config.stem,
        map_size=config.image_size // config.stem_stride,
        grid=config.image_size // config.vision['patch_size'],
        width=config.vision['hidden_size'],
    )


class ConvStem(nn.Module):
    """Cheap locality (Xiao et al. 2021): the last convolution's cells are the tokens."""

    def __init__(self, stem: tuple[StemConfig, ...]) -> None:
        """Build convolution, group normalisation and GELU per entry; the last one stays linear."""
        super().__init__()
        self.layers = _convolutions(stem)[:-2]

    @property
    def weight(self) -> torch.Tensor:
        """First kernel; SigLIP reads its dtype."""
        return self.layers[0].weight

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, size, size] to [B, width, grid, grid]."""
        return self.layers(pixels)


class PooledStem(nn.Module):
    """Tokens that each look somewhere in the map, and say where.

    Every token has a map of attention over the cells (TokenLearner, Ryoo et al. 2021); it carries
    the mean feature and, as in spatial softmax (Levine et al. 2016), the mean position, so that a
    coloured block is located to a fraction of a cell from few samples.
    """

    def __init__(
        self, stem: tuple[StemConfig, ...], *, map_size: int, grid: int, width: int
    ) -> None:
        """Build with random weights; `grid` squared tokens of `width`."""
        super().__init__()
        channels, self._grid = stem[-1].channels, grid
        self.layers = _convolutions(stem)
        self.look = nn.Conv2d(channels, grid**2, 1)
        nn.init.normal_(self.look.weight, std=4.0 * channels**-0.5)
        self.prior = nn.Parameter(torch.zeros(grid**2, map_size**2))
        self.feature = nn.Linear(channels, width)
        self.place = nn.Linear(_PLACE, width)
        line = (torch.arange(map_size) + 0.5) / map_size * 2.0 - 1.0
        y, x = torch.meshgrid(line, line, indexing='ij')
        terms = torch.stack([x, y, x * x, y * y]).flatten(1)
        self.register_buffer('terms', terms, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """First kernel; SigLIP reads its dtype."""
        return self.layers[0].weight

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, size, size] to [B, width, grid, grid]."""
        features = self.layers(pixels)
        logits = self.look(features).flatten(2) + self.prior
        weights = logits.softmax(-1)
        mean = F.linear(weights, self.terms)
        spread = mean[..., 2:] - mean[..., :2].square()
        found = logits.logsumexp(-1, keepdim=True) / 8.0
        place = self.place(torch.cat([mean[..., :2], spread, found], dim=-1))
        pooled = self.feature(weights @ features.flatten(2).transpose(1, 2)) + place
        return pooled.transpose(1, 2).unflatten(2, (self._grid, self._grid))


# Mean position, variance along x and y, how much there is.
_PLACE = 5


def _convolutions(stem: tuple[StemConfig, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    in_channels = 3
    for s in stem:
        padding = (s.kernel - s.stride + 1) // 2
        layers += [
            nn.Conv2d(in_channels, s.channels, s.kernel, s.stride, padding),
            nn.GroupNorm(STEM_GROUPS, s.channels),
            nn.GELU(approximate='tanh'),
        ]
        in_channels = s.channels
    return nn.Sequential(*layers)
