"""What the learned rivals' configurations have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from faster_core.data.reference import ABSOLUTE
from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedConfig:
    """Autoencoder around a residual quantiser.

    Attributes:
        horizon: H.
        action_dim: D.
        velocity_dims: columns that are zero while a robot rests.
        width, depth: of encoder and decoder each.
        latent_dim: width of the codebooks.
        num_levels: levels of the residual quantiser.
        codebook_size: K.
        ema_decay, kmeans_iterations, encode_beam, dead_code_threshold: as in `FasterVQConfig`.
        reference: as in `FasterVQConfig`.
    """

    horizon: int
    action_dim: int
    velocity_dims: tuple[int, ...] = ()
    width: int = 256
    depth: int = 2
    latent_dim: int = 128
    num_levels: int = 4
    codebook_size: int = 256
    ema_decay: float = 0.99
    kmeans_iterations: int = 10
    encode_beam: int = 1
    dead_code_threshold: float = 0.05
    reference: str = ABSOLUTE

    def __post_init__(self) -> None:
        """Refuse numbers below one (ConfigError)."""
        object.__setattr__(self, 'velocity_dims', tuple(self.velocity_dims))
        names = ('horizon', 'action_dim', 'width', 'depth', 'latent_dim', 'num_levels')
        names += ('encode_beam',)
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f'{name}: expected at least 1, found {getattr(self, name)}')
        if self.codebook_size < 2:
            raise ConfigError(f'codebook_size: expected at least 2, found {self.codebook_size}')

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(C_h, C_a): one vector for the chunk unless a subclass says otherwise."""
        return 1, 1

    @property
    def num_tokens(self) -> int:
        """N = N_c * C_h * C_a."""
        return self.num_levels * self.latent_shape[0] * self.latent_shape[1]

    @classmethod
    def from_embodiment(cls, embodiment: Any, **fields: Any) -> LearnedConfig:
        """Take shapes from an embodiment."""
        from faster_core.tokenizer.config import velocity_dims

        return cls(
            horizon=embodiment.action_horizon,
            action_dim=embodiment.action_dim,
            velocity_dims=velocity_dims(embodiment),
            **fields,
        )
