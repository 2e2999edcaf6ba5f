"""Configuration of FASTerVLA. Fields marked (ours) are open in the paper."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from faster_core.config import from_mapping
from faster_core.errors import ConfigError

_REQUIRED = {
    'vision': ('image_size', 'patch_size', 'hidden_size'),
    'text': ('hidden_size', 'num_hidden_layers', 'num_key_value_heads', 'head_dim'),
    'expert': (),
}
STATE_ENCODINGS = ('embedded', 'text')
POOLINGS = ('grid', 'attention')
# Groups of the group normalisation in the stem.
STEM_GROUPS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class StemConfig:
    """One convolution of the stem (ours): output channels, kernel size, stride."""

    channels: int
    kernel: int
    stride: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Architecture of backbone and expert.

    Attributes:
        vision: keyword arguments of `transformers.SiglipVisionConfig`; gives the image size.
        text: keyword arguments of `transformers.GemmaConfig`; the vocabulary size is the text
            tokenizer's.
        stem: convolutions that replace SigLIP's patch embedding; their strides multiply to
            `patch_size`, the last one's channels are the vision width. Empty: SigLIP's own (ours).
        pooling: 'grid', a token for every cell of the stem's map, or 'attention', each token
            looks at the whole, finer map and also tells where it looked (ours; `stem.py`). Then
            strides and channels are free, and `patch_size` only gives the number of tokens.
        expert: keyword arguments of `transformers.GemmaConfig` that differ from the backbone's:
            width and MLP. Layers, key-value heads and head size must be the backbone's.
        block_size: action tokens decoded per pass.
        max_text_tokens: length the instruction is padded to.
        state_encoding: 'embedded', one token per state component through a linear layer (ours),
            or 'text', one of 256 bin tokens per dimension as in the paper.
        position_gap: difference of position ids of neighbouring action tokens at inference.
        position_jitter: in training the difference is 1 + U{0..position_jitter}.
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    stem: tuple[StemConfig, ...] = ()
    pooling: str = 'grid'
    expert: dict[str, Any]
    block_size: int
    max_text_tokens: int = 16
    state_encoding: str = 'embedded'
    position_gap: int = 2
    position_jitter: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be built (ConfigError)."""
        for field, keys in _REQUIRED.items():
            values = getattr(self, field)
            if not isinstance(values, dict):
                raise ConfigError(f'{field}: expected a mapping, found {type(values).__name__}')
            if missing := [k for k in keys if k not in values]:
                raise ConfigError(f'{field}: missing keys {", ".join(missing)}')
        stem = tuple(
            s if isinstance(s, StemConfig) else from_mapping(StemConfig, s, source='stem')
            for s in self.stem
        )
        object.__setattr__(self, 'stem', stem)
        if self.state_encoding not in STATE_ENCODINGS:
            raise ConfigError(
                f'state_encoding: expected one of {", ".join(STATE_ENCODINGS)}, '
                f'found {self.state_encoding!r}'
            )
        if self.pooling not in POOLINGS:
            raise ConfigError(
                f'pooling: expected one of {", ".join(POOLINGS)}, found {self.pooling!r}'
            )
        if self.block_size < 1 or self.max_text_tokens < 1 or self.position_gap < 1:
            raise ConfigError('block_size, max_text_tokens and position_gap must be positive')
        size, patch = self.vision['image_size'], self.vision['patch_size']
        if size % patch:
            raise ConfigError(f'image_size {size} is not a multiple of patch_size {patch}')
        if self.pooling == 'attention' and not stem:
            raise ConfigError('pooling attention: needs a stem')
        for s in stem:
            if s.channels % STEM_GROUPS:
                raise ConfigError(
                    f'stem: channels {s.channels}: expected a multiple of {STEM_GROUPS}'
                )
        stride = self.stem_stride
        if self.pooling == 'attention' and size % stride:
            raise ConfigError(f'image_size {size} is not a multiple of the stem stride {stride}')
        if self.pooling == 'grid' and stem:
            if stride != patch or stem[-1].channels != self.vision['hidden_size']:
                raise ConfigError(
                    f'stem: strides multiply to {stride} and it ends in {stem[-1].channels} '
                    f'channels; expected patch_size {patch} and {self.vision["hidden_size"]}'
                )
        for key in ('num_hidden_layers', 'num_key_value_heads', 'head_dim'):
            if self.expert.get(key, self.text[key]) != self.text[key]:
                raise ConfigError(
                    f'expert.{key}: the expert attends to the keys and values of the backbone, '
                    f'expected {self.text[key]}, found {self.expert[key]}'
                )

    @property
    def image_size(self) -> int:
        """Side of the square images, pixels."""
        return self.vision['image_size']

    @property
    def stem_stride(self) -> int:
        """Pixels per cell of the stem's map."""
        return math.prod(s.stride for s in self.stem)

    @property
    def tokens_per_image(self) -> int:
        """Vision tokens per camera."""
        return (self.image_size // self.vision['patch_size']) ** 2

    @property
    def num_layers(self) -> int:
        """Layers of backbone and expert."""
        return self.text['num_hidden_layers']

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_mapping` takes back."""
        return dataclasses.asdict(self)
