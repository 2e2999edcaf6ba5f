"""What every backbone does: images, text and state to keys and values of every layer."""

from __future__ import annotations

import abc
import dataclasses

import torch
from torch import nn

from faster_core.decoding.cache import GrowingKV, StaticKV
from faster_core.policy.masks import attention_argument, prefix_mask


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


@dataclasses.dataclass(kw_only=True)
class Prefix:
    """What decoding needs of an observation.

    Attributes:
        layers: keys and values [B, kv_heads, P, head_dim] of every layer.
        valid: bool [B, P], tokens that may be attended to.
        last: int64 [B, 1], position of the last token.
        hidden: [B, P, width] of the backbone's last layer.
        cache, mask, positions: what `FasterVla.prepare` lays out for decoding.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    valid: torch.Tensor
    last: torch.Tensor
    hidden: torch.Tensor
    cache: StaticKV | GrowingKV | None = None
    mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None


class Backbone(nn.Module, abc.ABC):
    """A vision-language model: `vision`, then `prefill`.

    Attributes:
        width: of image, text and state tokens.
        tokens_per_image: image tokens per camera, without what stands around them.
        num_layers: layers of the language model.
        language: the language model, a `transformers` text model.
    """

    width: int
    tokens_per_image: int

    def __init__(
        self,
        *,
        width: int,
        num_cameras: int,
        state_sizes: tuple[int, ...],
        embedded_state: bool,
        causal: bool,
    ) -> None:
        """Build what all have.

        Args:
            width: of the language model.
            num_cameras: cameras of the embodiment.
            state_sizes: dimensions of every state component.
            embedded_state: one linear layer per component, or text tokens.
            causal: whether tokens of the prefix see only those before them.
        """
        super().__init__()
        self.width, self._causal = width, causal
        self.camera = nn.Parameter(torch.zeros(num_cameras, 1, width))
        self._state_sizes = state_sizes
        self.state = None
        if embedded_state:
            self.state = nn.ModuleList(nn.Linear(size, width) for size in state_sizes)

    @property
    @abc.abstractmethod
    def language(self) -> nn.Module:
        """The language model."""

    @abc.abstractmethod
    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode images uint8 [M, size, size, 3] to [M, tokens_per_image, width]."""

    @property
    def num_layers(self) -> int:
        """Layers whose keys and values an expert attends to."""
        return self.language.config.num_hidden_layers

    def vision(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode the images of all cameras.

        Args:
            pixels: uint8 [B, cameras, size, size, 3].

        Returns:
            [B, cameras * tokens, width].
        """
        batch, cameras = pixels.shape[:2]
        features = self.features(pixels.flatten(0, 1))
        return (features.unflatten(0, (batch, cameras)) + self.camera).flatten(1, 2)

    def prefill(
        self,
        image_features: torch.Tensor,
        text_ids: torch.Tensor,
        text_valid: torch.Tensor,
        state: torch.Tensor,
        present: torch.Tensor | None = None,
    ) -> Prefix:
        """Run the language model over images, text and state.

        Args:
            image_features: [B, I, width].
            text_ids: int64 [B, L].
            text_valid: bool [B, L].
            state: normalised [B, S] (embedded) or token ids int64 [B, M] (text), -1 is padding.
            present: bool [B, cameras], which cameras there are; None: all.
        """
        images, image_valid = self._images(image_features, present)
        states, state_valid = self._states(state)
        words = self.language.get_input_embeddings()(text_ids)
        embeds = torch.cat([images, words, states], dim=1)
        valid = torch.cat([image_valid, text_valid, state_valid], dim=1)
        positions = self._positions(valid)
        cache = LayerKV()
        hidden = self.language(
            inputs_embeds=embeds,
            attention_mask=attention_argument(
                prefix_mask(valid, causal=self._causal), self.language.config, embeds.dtype
            ),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        last = positions.reshape(-1, *valid.shape).amax((0, 2))[:, None]
        return Prefix(layers=cache.layers, valid=valid, last=last, hidden=hidden)

    def _images(
        self, features: torch.Tensor, present: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image tokens [B, I, width] as the language model takes them, and valid ones."""
        if present is None:
            present = features.new_ones((len(features), len(self.camera)), dtype=torch.bool)
        return features, present.repeat_interleave(features.shape[1] // len(self.camera), dim=1)

    def _states(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.state is None:
            known = state >= 0
            return self.language.get_input_embeddings()(state.clamp(min=0)), known
        parts = state.split(self._state_sizes, dim=-1)
        states = [embed(part) for embed, part in zip(self.state, parts, strict=True)]
        states = torch.stack(states, dim=1)
        return states, states.new_ones(states.shape[:2], dtype=torch.bool)

    def _positions(self, valid: torch.Tensor) -> torch.Tensor:
        """Return position ids [B, P], or [3, B, P] of a model that tells rows from columns."""
        return valid.cumsum(1) - 1
