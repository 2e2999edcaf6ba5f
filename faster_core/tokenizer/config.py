"""Configuration of FASTerVQ. Fields marked (ours) are open in the paper."""

from __future__ import annotations

import dataclasses
from typing import Any

from faster_core.data.reference import ABSOLUTE, REFERENCES
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FasterVQConfig:
    """Architecture; group sizes, horizon and action size come from the embodiment.

    Attributes:
        horizon: H, rows of a chunk.
        group_sizes: dimensions of every action group; their sum is D.
        slots_per_group: action slots each group is split into as evenly as possible (ours);
            their sum is C_a.
        patch_length: rows per patch h.
        time_slots: C_h. `horizon / patch_length / time_slots` must be a power of two: the
            down-sampling of the strided convolutions.
        width, depth, heads: transformer of encoder and decoder each (ours).
        latent_dim: d_z.
        num_levels: N_c of the residual quantiser.
        codebook_size: K.
        ema_decay: of the codebooks (ours).
        reference: what joint positions of a chunk are relative to: 'absolute' (nothing) or
            'state', the measured ones at the observation (ours; `faster_core/data/reference.py`).
            Whoever encodes subtracts it, whoever decodes adds it.
        dead_code_threshold: a code used less often (EMA of uses per step) is placed anew (ours).
    """

    horizon: int
    group_sizes: tuple[int, ...]
    slots_per_group: tuple[int, ...]
    patch_length: int = 4
    time_slots: int = 2
    width: int = 96
    depth: int = 2
    heads: int = 4
    latent_dim: int = 64
    num_levels: int = 3
    codebook_size: int = 512
    ema_decay: float = 0.99
    dead_code_threshold: float = 0.1
    reference: str = ABSOLUTE

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide (ConfigError)."""
        object.__setattr__(self, 'group_sizes', tuple(self.group_sizes))
        object.__setattr__(self, 'slots_per_group', tuple(self.slots_per_group))
        if len(self.slots_per_group) != len(self.group_sizes) or any(
            not 1 <= slots <= size
            for slots, size in zip(self.slots_per_group, self.group_sizes, strict=False)
        ):
            raise ConfigError(
                f'slots_per_group {list(self.slots_per_group)}: expected one number per group, '
                f'from 1 to its size in {list(self.group_sizes)}'
            )
        counts = ('horizon', 'patch_length', 'time_slots', 'width', 'depth', 'heads', 'latent_dim')
        for name in (*counts, 'num_levels', 'codebook_size'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name}: expected at least 1, found {getattr(self, name)}')
        if self.codebook_size < 2:
            raise ConfigError('codebook_size: expected at least 2, found 1')
        if self.reference not in REFERENCES:
            raise ConfigError(
                f'reference: expected one of {", ".join(REFERENCES)}, found {self.reference!r}'
            )
        patches, rest = divmod(self.horizon, self.patch_length)
        ratio, rest2 = divmod(patches, self.time_slots)
        if rest or rest2 or ratio & (ratio - 1):
            raise ConfigError(
                f'horizon {self.horizon}: expected patch_length {self.patch_length} * time_slots '
                f'{self.time_slots} * a power of two'
            )
        if self.width % self.heads:
            raise ConfigError(f'width {self.width} is not a multiple of heads {self.heads}')

    @classmethod
    def from_embodiment(cls, embodiment: Embodiment, **fields: Any) -> FasterVQConfig:
        """Take horizon and groups from an embodiment."""
        sizes = {c.name: c.size for c in embodiment.action}
        groups = tuple(sum(sizes[n] for n in group) for group in embodiment.tokenizer_groups)
        return cls(horizon=embodiment.action_horizon, group_sizes=groups, **fields)

    @property
    def action_dim(self) -> int:
        """D."""
        return sum(self.group_sizes)

    @property
    def slot_sizes(self) -> tuple[int, ...]:
        """Dimensions of every action slot, in order."""
        sizes = []
        for size, slots in zip(self.group_sizes, self.slots_per_group, strict=True):
            small, larger = divmod(size, slots)
            sizes += [small + 1] * larger + [small] * (slots - larger)
        return tuple(sizes)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(C_h, C_a)."""
        return self.time_slots, sum(self.slots_per_group)

    @property
    def num_tokens(self) -> int:
        """N = N_c * C_h * C_a."""
        return self.num_levels * self.time_slots * sum(self.slots_per_group)

    @property
    def num_patches(self) -> int:
        """Patches along time, m."""
        return self.horizon // self.patch_length
