"""A small backbone trained from nothing: PaliGemma's classes, built from a configuration."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaModel, SiglipVisionConfig

from faster_core.policy.backbones.base import Backbone
from faster_core.policy.backbones.stem import build_stem
from faster_core.policy.config import PolicyConfig


class SmallBackbone(Backbone):
    """SigLIP, or convolutions, and Gemma, of any size."""

    def __init__(
        self,
        config: PolicyConfig,
        *,
        vocab_size: int,
        num_cameras: int,
        state_sizes: tuple[int, ...],
    ) -> None:
        """Build with random weights.

        Args:
            config: architecture.
            vocab_size: size of the text vocabulary.
            num_cameras: cameras of the embodiment.
            state_sizes: dimensions of every state component.
        """
        width = config.text['hidden_size']
        super().__init__(
            width=width,
            num_cameras=num_cameras,
            state_sizes=state_sizes,
            embedded_state=config.state_encoding == 'embedded',
            causal=config.prefix_attention == 'causal',
        )
        vision = SiglipVisionConfig(**config.vision, vision_use_head=False)
        text = GemmaConfig(**config.text, vocab_size=vocab_size)
        self.tokens_per_image = (config.image_size // config.vision['patch_size']) ** 2
        self.vlm = PaliGemmaModel(
            PaliGemmaConfig(
                vision_config=vision,
                text_config=text,
                projection_dim=width,
                hidden_size=width,
                vocab_size=vocab_size,
                image_token_index=vocab_size,
                attn_implementation='sdpa',
            )
        )
        if config.stem:
            self.vlm.vision_tower.embeddings.patch_embedding = build_stem(config)

    @property
    def language(self) -> nn.Module:
        """Gemma."""
        return self.vlm.language_model

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode images uint8 [M, size, size, 3] to [M, tokens_per_image, width]."""
        scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        return self.vlm.get_image_features(scaled.to(self.camera.dtype)).pooler_output
