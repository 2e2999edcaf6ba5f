"""Transformer + convolution autoencoder (TAAE).

Attention over the whole grid; convolutions along time halve (encoder) or double (decoder) it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.patchify import Patchifier


class Block(nn.Module):
    """Pre-norm transformer layer over all grid cells, then a convolution along time per slot."""

    def __init__(self, width: int, heads: int) -> None:
        """Attention, MLP of twice the width, depth-wise convolution of three steps."""
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(approximate='tanh'), nn.Linear(2 * width, width)
        )
        self.local = nn.Conv1d(width, width, 3, padding=1, groups=width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, m, C_a, W] to the same shape."""
        batch, steps, slots, width = x.shape
        tokens = self.norm1(x).flatten(1, 2)
        qkv = self.qkv(tokens).view(batch, steps * slots, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv)
        x = x + self.out(mixed.transpose(1, 2).flatten(2)).view_as(x)
        columns = self.norm2(x).permute(0, 2, 3, 1).reshape(batch * slots, width, steps)
        local = self.local(columns).view(batch, slots, width, steps).permute(0, 3, 1, 2)
        x = x + local
        return x + self.mlp(self.norm3(x))


class Resample(nn.Module):
    """Halves or doubles the time axis with a strided or transposed convolution."""

    def __init__(self, width: int, *, up: bool) -> None:
        """Kernel and stride 2."""
        super().__init__()
        kind = nn.ConvTranspose1d if up else nn.Conv1d
        self.convolution = kind(width, width, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, m, C_a, W] to [B, m / 2 or 2 m, C_a, W]."""
        batch, steps, slots, width = x.shape
        columns = x.permute(0, 2, 3, 1).reshape(batch * slots, width, steps)
        columns = self.convolution(columns)
        return columns.view(batch, slots, width, -1).permute(0, 3, 1, 2).contiguous()


def _positions(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.02)


class Autoencoder(nn.Module):
    """Normalised chunks [B, H, D] to latents [B, C_h, C_a, d_z] and back."""

    def __init__(self, config: FasterVQConfig) -> None:
        """Build encoder and mirrored decoder."""
        super().__init__()
        width, slots = config.width, config.latent_shape[1]
        halvings = (config.num_patches // config.time_slots).bit_length() - 1
        self.patchifier = Patchifier(config)
        size = self.patchifier.patch_size
        self.embed = nn.Linear(size, width)
        # Slots mean different things, so each has its own offset; so has each time step.
        self.encoder_positions = _positions(config.num_patches, slots, width)
        self.decoder_positions = _positions(config.time_slots, slots, width)
        self.encoder = nn.Sequential(
            *[
                layer
                for _ in range(halvings)
                for layer in (Block(width, config.heads), Resample(width, up=False))
            ],
            *[Block(width, config.heads) for _ in range(config.depth)],
        )
        self.to_latent = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.latent_dim))
        self.from_latent = nn.Linear(config.latent_dim, width)
        self.decoder = nn.Sequential(
            *[Block(width, config.heads) for _ in range(config.depth)],
            *[
                layer
                for _ in range(halvings)
                for layer in (Resample(width, up=True), Block(width, config.heads))
            ],
        )
        self.to_patches = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Return latents [B, C_h, C_a, d_z]."""
        x = self.embed(self.patchifier(actions)) + self.encoder_positions
        return self.to_latent(self.encoder(x))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return chunks [B, H, D]."""
        x = self.from_latent(latents) + self.decoder_positions
        return self.patchifier.join(self.to_patches(self.decoder(x)))
