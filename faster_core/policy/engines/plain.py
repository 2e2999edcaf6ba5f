"""Plain torch: `eager`, the oracle, and `static`, with a cache that is allocated once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from faster_core.decoding.blockwise import Block, decode
from faster_core.decoding.cache import GrowingKV, StaticKV
from faster_core.decoding.sampling import SamplingConfig
from faster_core.policy.backbones.base import Prefix
from faster_core.policy.engines.base import Engine, ModelInputs


class EagerEngine(Engine):
    """Keys and values are concatenated block by block."""

    name = 'eager'
    _cache_kind: type[GrowingKV] | type[StaticKV] = GrowingKV
    _prefix: Prefix
    _cache: GrowingKV | StaticKV | None = None

    def vision(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode images; return [1, cameras * tokens, width]."""
        return self.model.backbone.vision(pixels)

    def prefill(self, features: torch.Tensor, inputs: ModelInputs) -> None:
        """Run the language model and lay out the cache."""
        self._prefix = self.model.encode(
            features, inputs.text_ids, inputs.text_valid, inputs.state, inputs.present
        )
        if self.model.config.head == 'codes':
            self._cache = self.model.prepare(self._prefix, self._cache, self._cache_kind)

    def decode(
        self,
        sampling: SamplingConfig,
        *,
        num_blocks: int | None = None,
        noise: torch.Tensor | None = None,
        on_block: Callable[[Block], None] | None = None,
    ) -> torch.Tensor:
        """Return token ids int64 [1, n]."""
        return decode(
            self.model,
            self._prefix,
            sampling=sampling,
            noise=noise,
            num_blocks=num_blocks,
            device=self.device,
            on_block=on_block,
        )

    def integrate(self, noise: torch.Tensor) -> np.ndarray:
        """Return the normalised chunk [1, H, D]."""
        return self.model.integrate(self._prefix, noise).float().cpu().numpy()


class StaticEngine(EagerEngine):
    """Keys and values are written into buffers that stay where they are."""

    name = 'static'
    _cache_kind = StaticKV
