"""The vision-language backbone: PaliGemma's own classes, built from a configuration.

Its keys and values of every layer are what the action expert attends to.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaModel, SiglipVisionConfig

from faster_core.policy.config import PolicyConfig
from faster_core.policy.masks import prefix_mask
from faster_core.policy.stem import build_stem


class LayerKV:
    """Keeps the keys and values of one forward pass; gradients flow through."""

    def __init__(self) -> None:
        """Start empty."""
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing is cached before the pass."""
        return 0

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store and return what the layer made."""
        if layer_idx != len(self.layers):
            raise ValueError(f'layer {layer_idx} came after {len(self.layers)} layers')
        self.layers.append((keys, values))
        return keys, values


class Backbone(nn.Module):
    """Images, text and state to per-layer keys and values."""

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
        super().__init__()
        width = config.text['hidden_size']
        vision = SiglipVisionConfig(**config.vision, vision_use_head=False)
        text = GemmaConfig(**config.text, vocab_size=vocab_size)
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
        self.camera = nn.Parameter(torch.zeros(num_cameras, 1, width))
        self._state_sizes = state_sizes
        self.state = None
        if config.state_encoding == 'embedded':
            self.state = nn.ModuleList(nn.Linear(size, width) for size in state_sizes)

    def vision(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode images.

        Args:
            pixels: uint8 [B, cameras, size, size, 3].

        Returns:
            [B, cameras * tokens, width].
        """
        batch, cameras = pixels.shape[:2]
        dtype = self.camera.dtype
        scaled = pixels.flatten(0, 1).permute(0, 3, 1, 2).to(dtype) / 127.5 - 1.0
        features = self.vlm.get_image_features(scaled).pooler_output
        return (features.unflatten(0, (batch, cameras)) + self.camera).flatten(1, 2)

    def prefill(
        self,
        image_features: torch.Tensor,
        text_ids: torch.Tensor,
        text_valid: torch.Tensor,
        state: torch.Tensor,
    ) -> tuple[torch.Tensor, LayerKV, torch.Tensor]:
        """Run the language model over images, text and state.

        Args:
            image_features: [B, I, width].
            text_ids: int64 [B, L].
            text_valid: bool [B, L].
            state: normalised [B, S] (embedded) or bin tokens int64 [B, S] (text).

        Returns:
            hidden states [B, P, width], keys and values per layer, valid tokens bool [B, P].
        """
        language = self.vlm.language_model
        if self.state is None:
            states = language.embed_tokens(state)
        else:
            parts = state.split(self._state_sizes, dim=-1)
            states = [embed(part) for embed, part in zip(self.state, parts, strict=True)]
            states = torch.stack(states, dim=1)
        words = language.embed_tokens(text_ids)
        embeds = torch.cat([image_features, words, states], dim=1)
        valid = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        first = image_features.shape[1]
        valid[:, first : first + text_ids.shape[1]] = text_valid
        cache = LayerKV()
        hidden = language(
            inputs_embeds=embeds,
            attention_mask=prefix_mask(valid),
            position_ids=valid.cumsum(1) - 1,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden, cache, valid
