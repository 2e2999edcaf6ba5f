"""MLP residual VQ: a chunk becomes one vector and seven residual codes.

MiniVLA (Belkhale and Sadigh 2024), whose tokenizer is that of VQ-BeT (Lee et al. 2024).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from faster_core.tokenizer.baselines.learned import LearnedConfig
from faster_core.tokenizer.quantizer import ResidualQuantizer
from faster_core.tokenizer.rvq import RvqTokenizer, VqModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniVlaConfig(LearnedConfig):
    """As published: seven tokens of 256 codes each."""

    num_levels: int = 7


class MlpAutoencoder(nn.Module):
    """Flattened chunk to one latent vector and back."""

    def __init__(self, config: MiniVlaConfig) -> None:
        """Build two mirrored multi-layer perceptrons."""
        super().__init__()
        size = config.horizon * config.action_dim
        self.shape = (config.horizon, config.action_dim)
        self.encoder = _mlp(size, config.width, config.depth, config.latent_dim)
        self.decoder = _mlp(config.latent_dim, config.width, config.depth, size)

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Return latents [B, 1, 1, d_z] of chunks [B, H, D]."""
        return self.encoder(actions.flatten(1))[:, None, None]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return chunks [B, H, D]."""
        return self.decoder(latents.flatten(1)).unflatten(1, self.shape)


def _mlp(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class MiniVla(RvqTokenizer):
    """One vector per chunk, `num_levels` tokens."""

    kind = 'minivla'
    config_class = MiniVlaConfig

    @classmethod
    def make_model(cls, config: MiniVlaConfig) -> VqModel:
        """Build with random weights."""
        return VqModel(MlpAutoencoder(config), ResidualQuantizer(config))
