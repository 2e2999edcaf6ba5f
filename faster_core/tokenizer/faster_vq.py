"""The public face of the tokenizer: physical actions in, codes out, and back."""

from __future__ import annotations

from typing import Any

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.tokenizer.autoencoder import Autoencoder
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.quantizer import ResidualQuantizer
from faster_core.tokenizer.rvq import RvqTokenizer, VqModel


class FasterVQ(RvqTokenizer):
    """FASTerVQ (FASTer, arXiv 2512.04952): chunks [B, H, D] <-> codes [B, N_c, C_h, C_a]."""

    kind = 'faster'
    config_class = FasterVQConfig

    @classmethod
    def make_model(cls, config: FasterVQConfig, shared: VqModel | None = None) -> VqModel:
        """Build with random weights, or around the parts of another robot's model.

        Args:
            config: of this robot.
            shared: a model whose transformer, latent projections and codebooks are used too.
        """
        if shared is None:
            return VqModel(Autoencoder(config), ResidualQuantizer(config))
        return VqModel(Autoencoder(config, shared.autoencoder), shared.quantizer)

    def for_robot(
        self, embodiment: Embodiment, normalizer: ActionNormalizer, **fields: Any
    ) -> FasterVQ:
        """Return this tokenizer for a robot it was not trained on.

        Args:
            embodiment: of that robot.
            normalizer: statistics of its actions.
            fields: of `FasterVQConfig` that differ: `slots_per_group`, `time_slots`, ...

        Raises:
            ConfigError: this one has `layout: own` and knows the cells of its robot only, or the
                other robot does not fit its patches.
        """
        if self.config.layout != 'by_kind':
            raise ConfigError('for_robot: expected layout by_kind, found own')
        own = ('horizon', 'group_sizes', 'slots_per_group', 'slot_kinds', 'velocity_dims')
        kept = {k: v for k, v in vars(self.config).items() if k not in own}
        config = FasterVQConfig.from_embodiment(embodiment, **(kept | fields))
        for name in ('patch_length', 'slot_width', 'strides'):
            if getattr(config, name) != (known := getattr(self.config, name)):
                raise ConfigError(
                    f'for_robot: {name} is {known} in the model, found {getattr(config, name)}'
                )
        return FasterVQ(config, normalizer, FasterVQ.make_model(config, self.model))
