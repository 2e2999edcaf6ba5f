"""Configuration of FASTerVLA. Fields marked (ours) are open in the paper."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from faster_core.config import from_mapping
from faster_core.errors import ConfigError

SMALL = 'small'
# Keys of `model_type` of the vision-language models in `backbones/families.py`.
FAMILIES = ('paligemma', 'qwen2_5_vl', 'smolvlm', 'internvl')
_REQUIRED = {
    'vision': ('image_size', 'patch_size', 'hidden_size'),
    'text': ('hidden_size', 'num_hidden_layers', 'num_key_value_heads', 'head_dim'),
    'expert': (),
}
STATE_ENCODINGS = ('embedded', 'text')
POOLINGS = ('grid', 'attention')
HEADS = ('codes', 'flow')
ORDERS = ('level', 'slot')
EXPERTS = ('light', 'none')
CODE_EMBEDDINGS = ('per_level', 'tied')
PREFIX_ATTENTION = ('full', 'causal')
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
    """Architecture of backbone, expert and head, and how action tokens are laid out.

    Attributes:
        backbone: 'small', built from `vision` and `text` and trained from nothing, or the family
            of a pretrained vision-language model (`FAMILIES`, `model_type` of `transformers`).
        pretrained: where training takes the pretrained model from: a local folder or a name on
            the hub. A finished checkpoint holds everything and does not look there.
        vlm: configuration of the whole vision-language model (`transformers`), filled in from
            `pretrained`; with it alone the weights are random.
        image_pixels: side of the square images of a pretrained model that takes any size
            (qwen2_5_vl); the others say it in `vlm`.
        image_mean, image_std: of the pretrained model's image processor; pixels of 0..1.
        prefix_attention: 'full', images, text and state see each other (PaliGemma, pi0), or
            'causal', as a decoder-only model was pretrained.
        missing_cameras: how many cameras an observation may lack; their tokens are masked. More
            than 0 only if it was trained so.
        vision: of a small backbone: keyword arguments of `transformers.SiglipVisionConfig`; gives
            the image size.
        text: likewise, of `transformers.GemmaConfig`; the vocabulary size is the text tokenizer's.
        stem: convolutions that replace SigLIP's patch embedding; their strides multiply to
            `patch_size`, the last one's channels are the vision width. Empty: SigLIP's own (ours).
        pooling: 'grid', a token for every cell of the stem's map, or 'attention', each token
            looks at the whole, finer map and also tells where it looked (ours; `stem.py`). Then
            strides and channels are free, and `patch_size` only gives the number of tokens.
        action_expert: 'light', an expert of its own, or 'none': the backbone's language model
            decodes too (ablation).
        expert: fields of the text configuration that differ from the backbone's: width and MLP.
            Layers, key-value heads and head size must be the backbone's.
        head: 'codes', tokens of an action tokenizer, or 'flow', a chunk integrated along a learned
            velocity field as in pi0 (arXiv 2410.24164).
        flow_steps: Euler steps of `flow`.
        code_embeddings: of the action tokens, also as output weights: 'per_level', a vector for
            every code of every level, or 'tied', one for every code, shared by the levels.
        order: of the tokens: 'level', coarse to fine as in the paper, or 'slot', all levels of a
            slot together.
        max_action_tokens: most tokens of a chunk, for tokenizers of variable length (FAST); 0: one
            per value.
        block_size: action tokens decoded per pass; 1 is token by token.
        max_text_tokens: length the instruction is padded to.
        state_encoding: 'embedded', one token per state component through a linear layer (ours),
            or 'text', one of 256 bins per dimension as text, as in the paper.
        position_gap: difference of position ids of neighbouring action tokens at inference.
        position_jitter: in training the difference is 1 + U{0..position_jitter}.
    """

    backbone: str = SMALL
    pretrained: str = ''
    vlm: dict[str, Any] = dataclasses.field(default_factory=dict)
    image_pixels: int = 224
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    prefix_attention: str = 'full'
    missing_cameras: int = 0
    vision: dict[str, Any] = dataclasses.field(default_factory=dict)
    text: dict[str, Any] = dataclasses.field(default_factory=dict)
    stem: tuple[StemConfig, ...] = ()
    pooling: str = 'grid'
    action_expert: str = 'light'
    expert: dict[str, Any]
    head: str = 'codes'
    flow_steps: int = 10
    code_embeddings: str = 'per_level'
    order: str = 'level'
    max_action_tokens: int = 0
    block_size: int
    max_text_tokens: int = 16
    state_encoding: str = 'embedded'
    position_gap: int = 2
    position_jitter: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be built (ConfigError)."""
        for field, known in (
            ('backbone', (SMALL, *FAMILIES)),
            ('prefix_attention', PREFIX_ATTENTION),
            ('pooling', POOLINGS),
            ('action_expert', EXPERTS),
            ('head', HEADS),
            ('code_embeddings', CODE_EMBEDDINGS),
            ('order', ORDERS),
            ('state_encoding', STATE_ENCODINGS),
        ):
            if (found := getattr(self, field)) not in known:
                raise ConfigError(f'{field}: expected one of {", ".join(known)}, found {found!r}')
        positive = ('block_size', 'max_text_tokens', 'position_gap', 'flow_steps')
        if any(getattr(self, field) < 1 for field in positive):
            raise ConfigError(f'{", ".join(positive)} must be positive')
        if self.missing_cameras < 0:
            raise ConfigError(f'missing_cameras: expected >= 0, found {self.missing_cameras}')
        for field in ('image_mean', 'image_std'):
            object.__setattr__(self, field, tuple(float(v) for v in getattr(self, field)))
            if len(getattr(self, field)) != 3:
                raise ConfigError(f'{field}: expected three numbers, red, green, blue')
        if self.backbone == SMALL:
            self._check_small()
        else:
            self._check_pretrained()

    def _check_pretrained(self) -> None:
        if not self.vlm and not self.pretrained:
            raise ConfigError(f'backbone {self.backbone}: expected pretrained, or vlm')
        if self.vlm and (found := self.vlm.get('model_type')) != self.backbone:
            raise ConfigError(f'vlm: expected model_type {self.backbone}, found {found!r}')
        if extra := [f for f in ('vision', 'text', 'stem') if getattr(self, f)]:
            raise ConfigError(f'{", ".join(extra)}: only for backbone {SMALL}')

    def _check_small(self) -> None:
        if self.pretrained or self.vlm:
            raise ConfigError(f'pretrained and vlm: only for backbones {", ".join(FAMILIES)}')
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
        if self.backbone == SMALL:
            return self.vision['image_size']
        size = self.vlm['vision_config'].get('image_size', self.image_pixels)
        return size[0] if isinstance(size, list | tuple) else size

    @property
    def stem_stride(self) -> int:
        """Pixels per cell of the stem's map."""
        return math.prod(s.stride for s in self.stem)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_mapping` takes back."""
        return dataclasses.asdict(self)
