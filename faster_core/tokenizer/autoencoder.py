"""Transformer + convolution autoencoder (TAAE), and either of the two alone.

Attention over the whole grid; strided convolutions shorten time (encoder) and stretch it again.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.embodiment import Kind
from faster_core.errors import ConfigError
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.linear_path import LinearPath
from faster_core.tokenizer.patchify import Patchifier


class Block(nn.Module):
    """Pre-norm layer over all grid cells [B, m, C_a, W].

    'taae': attention over the grid, then a convolution along time per slot, then an MLP.
    'transformer': without the convolution. 'cnn': instead of both a depth-wise convolution over
    time and slots.
    """

    def __init__(self, width: int, heads: int, kind: str = 'taae') -> None:
        """Build the parts of one kind; the MLP has twice the width."""
        super().__init__()
        self.heads, self.kind = heads, kind
        if kind != 'cnn':
            self.norm1 = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)
        if kind == 'taae':
            self.local = nn.Conv1d(width, width, 3, padding=1, groups=width)
        elif kind == 'cnn':
            self.local = nn.Conv2d(width, width, (3, 5), padding=(1, 2), groups=width)
            self.mix = nn.Linear(width, width)
        if kind != 'transformer':
            self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(approximate='tanh'), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, m, C_a, W] to the same shape."""
        if self.kind != 'cnn':
            x = x + self._attend(self.norm1(x))
        if self.kind == 'taae':
            batch, steps, slots, width = x.shape
            columns = self.norm2(x).permute(0, 2, 3, 1).reshape(batch * slots, width, steps)
            x = x + self.local(columns).view(batch, slots, width, steps).permute(0, 3, 1, 2)
        elif self.kind == 'cnn':
            local = self.local(self.norm2(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = x + self.mix(local)
        return x + self.mlp(self.norm3(x))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, slots, _ = x.shape
        tokens = x.flatten(1, 2)
        qkv = self.qkv(tokens).view(batch, steps * slots, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv)
        return self.out(mixed.transpose(1, 2).flatten(2)).view_as(x)


class Resample(nn.Module):
    """Shortens or stretches the time axis with a strided or transposed convolution."""

    def __init__(self, width: int, stride: int, *, up: bool) -> None:
        """Take kernels as long as the stride."""
        super().__init__()
        kind = nn.ConvTranspose1d if up else nn.Conv1d
        self.convolution = kind(width, width, stride, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, m, C_a, W] to [B, m / stride or stride * m, C_a, W]."""
        batch, steps, slots, width = x.shape
        columns = x.permute(0, 2, 3, 1).reshape(batch * slots, width, steps)
        columns = self.convolution(columns)
        return columns.view(batch, slots, width, -1).permute(0, 3, 1, 2).contiguous()


class MixSlots(nn.Module):
    """Learned mixtures of slots: [B, m, n, W] to [B, m, n', W] (`slot_map: mixed`)."""

    def __init__(self, slots: int, mixtures: int) -> None:
        """One weight per pair of slots."""
        super().__init__()
        self.weights = nn.Linear(slots, mixtures)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix."""
        return self.weights(x.transpose(2, 3)).transpose(2, 3).contiguous()


def _positions(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.02)


# Slots of the k-th group of a kind have places from k * PLACES_PER_GROUP on.
PLACES_PER_GROUP, MAX_PLACES = 16, 64


class CellsByKind(nn.Module):
    """Vectors that tell the cells of a grid apart, the same for all robots (`layout: by_kind`)."""

    def __init__(self, width: int) -> None:
        """Learn one vector per kind of component and one per place; time is sinusoidal."""
        super().__init__()
        self.kinds, self.places = nn.Embedding(len(Kind), width), nn.Embedding(MAX_PLACES, width)
        for table in (self.kinds, self.places):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, slots: torch.Tensor, steps: int) -> torch.Tensor:
        """Return [steps, C_a, W] for slots [C_a, 2] of (kind, place)."""
        width = self.kinds.weight.shape[1]
        here = self.kinds(slots[:, 0]) + self.places(slots[:, 1])
        scales = torch.arange(width // 2, device=slots.device) / (width // 2)
        angles = torch.arange(steps, device=slots.device)[:, None] / 100.0**scales
        time = torch.zeros(steps, width, device=slots.device)
        time[:, : width // 2], time[:, width // 2 : 2 * (width // 2)] = angles.sin(), angles.cos()
        return here[None] + 0.1 * time[:, None]


def kinds_and_places(config: FasterVQConfig) -> list[tuple[int, int]]:
    """Return (kind, place) of every action slot."""
    seen: dict[int, int] = {}
    rows = []
    for kind, slots in zip(config.slot_kinds, config.slots_per_group, strict=True):
        first = seen.get(kind, 0) * PLACES_PER_GROUP
        seen[kind] = seen.get(kind, 0) + 1
        rows += [(kind, first + i) for i in range(slots)]
    if max(place for _, place in rows) >= MAX_PLACES or max(config.slots_per_group) > (
        PLACES_PER_GROUP
    ):
        raise ConfigError(
            f'layout by_kind: at most {PLACES_PER_GROUP} slots per group and '
            f'{MAX_PLACES // PLACES_PER_GROUP} groups of a kind'
        )
    return rows


# Parts of an autoencoder that do not depend on the robot: what several robots share.
SHARED = ('encoder', 'to_latent', 'from_latent', 'decoder')
SHARED_BY_KIND = (*SHARED, 'embed', 'to_patches', 'encoder_cells', 'decoder_cells')


class Autoencoder(nn.Module):
    """Normalised chunks [B, H, D] to latents [B, C_h, C_a, d_z] and back."""

    def __init__(self, config: FasterVQConfig, shared: Autoencoder | None = None) -> None:
        """Build encoder and mirrored decoder, or take those of another robot's autoencoder."""
        super().__init__()
        width, kind = config.width, config.encoder
        patch_slots, slots = len(config.slot_sizes), config.latent_shape[1]
        self.patchifier = Patchifier(config)
        size = self.patchifier.patch_size
        self.embed = nn.Linear(size, width)
        self.by_kind = config.layout == 'by_kind'
        if self.by_kind:
            table = torch.tensor(kinds_and_places(config))
            self.register_buffer('slots', table, persistent=False)
            self.encoder_cells, self.decoder_cells = CellsByKind(width), CellsByKind(width)
        else:
            # Slots mean different things, so each has its own offset; so has each time step.
            self.encoder_positions = _positions(config.num_patches, patch_slots, width)
            self.decoder_positions = _positions(config.time_slots, slots, width)
        if config.slot_map == 'mixed':
            self.mix, self.unmix = MixSlots(patch_slots, slots), MixSlots(slots, patch_slots)
            self.patch_positions = _positions(config.num_patches, patch_slots, width)
        else:
            self.mix = self.unmix = None

        def block() -> Block:
            return Block(width, config.heads, kind)

        if shared is None:
            down = [m for s in config.strides for m in (block(), Resample(width, s, up=False))]
            up = [
                m for s in reversed(config.strides) for m in (Resample(width, s, up=True), block())
            ]
            self.encoder = nn.Sequential(*down, *[block() for _ in range(config.depth)])
            self.to_latent = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, config.latent_dim)
            )
            self.from_latent = nn.Linear(config.latent_dim, width)
            self.decoder = nn.Sequential(*[block() for _ in range(config.depth)], *up)
        self.to_patches = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))
        self.linear = None
        if config.linear_path == 'pca':
            maps = shared.linear if shared is not None and self.by_kind else None
            self.linear = LinearPath(config, maps)
            # At the start the network adds nothing to the linear path.
            for last in [self.to_patches] if shared else [self.to_patches, self.to_latent]:
                nn.init.zeros_(last[-1].weight)
                nn.init.zeros_(last[-1].bias)
        if shared is not None:
            for name in SHARED_BY_KIND if self.by_kind else SHARED:
                setattr(self, name, getattr(shared, name))

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Return latents [B, C_h, C_a, d_z]."""
        patches = self.patchifier(actions)
        x = self.embed(patches) + self._cells('encoder', patches.shape[1])
        if self.mix is not None:
            x = self.mix(x)
        latents = self.to_latent(self.encoder(x))
        return latents if self.linear is None else latents + self.linear.encode(actions)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return chunks [B, H, D]."""
        cells = self._cells('decoder', latents.shape[1])
        x = self.decoder(self.from_latent(latents) + cells)
        if self.unmix is not None:
            x = self.unmix(x) + self.patch_positions
        actions = self.patchifier.join(self.to_patches(x))
        return actions if self.linear is None else actions + self.linear.decode(latents)

    def _cells(self, side: str, steps: int) -> torch.Tensor:
        """Return what tells the cells [steps, slots, W] of encoder or decoder apart."""
        if self.by_kind:
            return getattr(self, f'{side}_cells')(self.slots, steps)
        return getattr(self, f'{side}_positions')
