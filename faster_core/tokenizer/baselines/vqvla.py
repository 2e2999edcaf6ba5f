"""Convolutional residual VQ along time (VQ-VLA, Wang et al. 2025, arXiv 2507.01016)."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.errors import ConfigError
from faster_core.tokenizer.baselines.learned import LearnedConfig
from faster_core.tokenizer.quantizer import ResidualQuantizer
from faster_core.tokenizer.rvq import RvqTokenizer, VqModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class VqVlaConfig(LearnedConfig):
    """Temporal convolutions over all dimensions at once.

    Attributes:
        time_slots: vectors per chunk C_h (ours: the paper's chunks are short and give one).
    """

    time_slots: int = 1

    def __post_init__(self) -> None:
        """Refuse a number of slots that halving cannot reach (ConfigError)."""
        super().__post_init__()
        if not 1 <= self.time_slots <= self.horizon:
            raise ConfigError(f'time_slots: expected 1..{self.horizon}, found {self.time_slots}')

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(C_h, 1)."""
        return self.time_slots, 1


class ResidualUnit(nn.Module):
    """Two convolutions of three steps beside an identity."""

    def __init__(self, width: int) -> None:
        """Keep the length."""
        super().__init__()
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, W, T] to the same shape."""
        return x + self.second(F.elu(self.first(F.elu(x))))


class ConvolutionalAutoencoder(nn.Module):
    """Chunks to `time_slots` latent vectors and back.

    Time is resampled between the units, to sizes that go evenly from the horizon to the number
    of slots, so that any horizon works.
    """

    def __init__(self, config: VqVlaConfig) -> None:
        """Build mirrored stacks of `depth` residual units."""
        super().__init__()
        width = config.width
        ratio = config.time_slots / config.horizon
        self.sizes = [
            max(config.time_slots, round(config.horizon * ratio ** (i / config.depth)))
            for i in range(config.depth + 1)
        ]
        self.into = nn.Conv1d(config.action_dim, width, 3, padding=1)
        self.encoder = nn.ModuleList(ResidualUnit(width) for _ in range(config.depth))
        # The last step keeps every row's place: pooled means would forget the order of rows.
        self.gather = nn.ModuleList(
            nn.Linear(before, after)
            for before, after in zip(self.sizes, self.sizes[1:], strict=False)
        )
        self.to_latent = nn.Conv1d(width, config.latent_dim, 1)
        self.from_latent = nn.Conv1d(config.latent_dim, width, 1)
        self.spread = nn.ModuleList(
            nn.Linear(after, before)
            for before, after in reversed(list(zip(self.sizes, self.sizes[1:], strict=False)))
        )
        self.decoder = nn.ModuleList(ResidualUnit(width) for _ in range(config.depth))
        self.out = nn.Conv1d(width, config.action_dim, 3, padding=1)

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Return latents [B, C_h, 1, d_z] of chunks [B, H, D]."""
        x = self.into(actions.transpose(1, 2))
        for unit, gather in zip(self.encoder, self.gather, strict=True):
            x = gather(unit(x))
        return self.to_latent(x).transpose(1, 2)[:, :, None]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return chunks [B, H, D]."""
        x = self.from_latent(latents[:, :, 0].transpose(1, 2))
        for spread, unit in zip(self.spread, self.decoder, strict=True):
            x = unit(spread(x))
        return self.out(F.elu(x)).transpose(1, 2)


class VqVla(RvqTokenizer):
    """`time_slots` vectors per chunk, `num_levels` tokens each."""

    kind = 'vqvla'
    config_class = VqVlaConfig

    @classmethod
    def make_model(cls, config: VqVlaConfig) -> VqModel:
        """Build with random weights."""
        return VqModel(ConvolutionalAutoencoder(config), ResidualQuantizer(config))
