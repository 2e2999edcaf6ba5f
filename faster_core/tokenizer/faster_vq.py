"""The public face of the tokenizer: physical actions in, codes out, and back."""

from __future__ import annotations

from faster_core.tokenizer.autoencoder import Autoencoder
from faster_core.tokenizer.config import FasterVQConfig
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
