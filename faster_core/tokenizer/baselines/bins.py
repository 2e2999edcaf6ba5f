"""One token per dimension and step: 256 uniform bins (RT-2, OpenVLA; Kim et al. 2024)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from faster_core.errors import ConfigError
from faster_core.tokenizer.baselines.fitted import FittedConfig, FittedTokenizer
from faster_core.tokenizer.normalizer import ActionNormalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinsConfig(FittedConfig):
    """As published: 256 bins between the 1st and the 99th percentile, values beyond clipped.

    Attributes:
        num_bins: bins per value.
        limit: bins cover ± this, normalised.
    """

    num_bins: int = 256
    limit: float = 1.0

    def __post_init__(self) -> None:
        """Refuse less than two bins and an empty range (ConfigError)."""
        super().__post_init__()
        if self.num_bins < 2:
            raise ConfigError(f'num_bins: expected at least 2, found {self.num_bins}')
        if not self.limit > 0:
            raise ConfigError(f'limit: expected a positive number, found {self.limit!r}')


class Bins(FittedTokenizer):
    """A value becomes the index of its bin and comes back as the bin's centre."""

    kind = 'bins'
    config_class = BinsConfig

    def __init__(self, config: BinsConfig, normalizer: ActionNormalizer) -> None:
        """Bind."""
        super().__init__(config, normalizer)
        self.vocab_size = config.num_bins

    @classmethod
    def fit(cls, config: BinsConfig, normalizer: ActionNormalizer, chunks: np.ndarray) -> Bins:
        """Nothing to fit beside the normalisation."""
        return cls(config, normalizer)

    @property
    def num_tokens(self) -> int:
        """H * D."""
        return self.horizon * self.action_dim

    def _encode(self, normal: np.ndarray) -> np.ndarray:
        share = (normal + self.config.limit) / (2 * self.config.limit)
        indices = np.floor(share * self.config.num_bins).astype(np.int64)
        return np.clip(indices, 0, self.config.num_bins - 1).reshape(len(normal), -1)

    def _decode(self, codes: Any) -> np.ndarray:
        shape = (-1, self.horizon, self.action_dim)
        indices = np.stack(self._check_tokens(codes, self.num_tokens))
        centres = (indices.reshape(shape) + 0.5) / self.config.num_bins
        return ((2 * centres - 1) * self.config.limit).astype(np.float32)
