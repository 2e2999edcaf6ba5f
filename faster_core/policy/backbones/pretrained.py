"""Pretrained vision-language models of `transformers` as backbones."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from faster_core.errors import CheckpointError, ConfigError
from faster_core.policy.backbones.base import Backbone
from faster_core.policy.backbones.families import FAMILIES
from faster_core.policy.config import PolicyConfig

# Attention with a softcap (Gemma 2) is only in the plain implementation of `transformers`.
_PLAIN_ATTENTION = 'eager'


class PretrainedBackbone(Backbone):
    """PaliGemma, Qwen2.5-VL, SmolVLM2 or InternVL3.5, as `transformers` has them."""

    def __init__(
        self,
        config: PolicyConfig,
        *,
        num_cameras: int,
        state_sizes: tuple[int, ...],
        around: tuple[int, ...] = (),
        weights: str = '',
    ) -> None:
        """Build from `config.vlm`.

        Args:
            config: its `backbone` names the family.
            num_cameras: cameras of the embodiment.
            state_sizes: dimensions of every state component.
            around: ids of the tokens around every image, the last one after it.
            weights: folder or hub name to take the weights from; empty: random.

        Raises:
            CheckpointError: the weights cannot be read.
            ConfigError: the images do not fit the model's patches.
        """
        self._family = FAMILIES[config.backbone]
        vlm = _configuration(config.vlm)
        super().__init__(
            width=vlm.text_config.hidden_size,
            num_cameras=num_cameras,
            state_sizes=state_sizes,
            embedded_state=config.state_encoding == 'embedded',
            causal=config.prefix_attention == 'causal',
        )
        self.vlm = _load(weights, vlm) if weights else AutoModel.from_config(vlm)
        self._size = config.image_size
        # Plain numbers: a buffer would be rounded with the weights.
        self._statistics = tuple(zip(config.image_mean, config.image_std, strict=True))
        self.register_buffer('around', torch.tensor(around, dtype=torch.int64), persistent=False)
        with torch.no_grad():
            grey = torch.zeros((1, self._size, self._size, 3), dtype=torch.uint8)
            try:
                self._family.prepare(self.vlm, self._size)
                self.tokens_per_image = self.features(grey).shape[1]
            except RuntimeError as e:
                raise ConfigError(
                    f'images of {self._size} pixels do not fit the model: {e}'
                ) from e

    @property
    def language(self) -> nn.Module:
        """The language model of the family."""
        return getattr(self.vlm, self._family.language)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode images uint8 [M, size, size, 3] to [M, tokens_per_image, width]."""
        return self._family.features(self.vlm, self.normalize(pixels))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the family's image processor makes of images that have its size already.

        Args:
            pixels: uint8 [M, size, size, 3].

        Returns:
            [M, 3, size, size] in the precision of the weights.
        """
        scaled = pixels.to(torch.float32) / 255.0
        channels = [(scaled[..., i] - m) / s for i, (m, s) in enumerate(self._statistics)]
        return torch.stack(channels, dim=1).to(self.camera.dtype)

    def _images(
        self, features: torch.Tensor, present: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cameras = len(self.camera)
        tokens = features.unflatten(1, (cameras, -1))
        if len(self.around):
            edges = self.language.get_input_embeddings()(self.around)
            edges = edges.to(tokens.dtype).expand(*tokens.shape[:2], -1, -1)
            tokens = torch.cat([edges[:, :, :-1], tokens, edges[:, :, -1:]], dim=2)
        return super()._images(tokens.flatten(1, 2), present)

    def _positions(self, valid: torch.Tensor) -> torch.Tensor:
        plain = super()._positions(valid)
        if not self._family.grid_positions:
            return plain
        # An image takes as many positions as it has rows; inside, time stands still while rows
        # and columns count (M-RoPE, arXiv 2409.12191, section 2.1).
        side = round(self.tokens_per_image**0.5)
        extra = len(self.around) // 2
        per_camera = self.tokens_per_image + 2 * extra
        cells = torch.arange(self.tokens_per_image, device=valid.device)
        row, column, zero = cells // side, cells % side, torch.zeros_like(cells)
        first = zero.new_zeros(extra)
        last = zero.new_full((extra,), side + extra)
        image = torch.stack(
            [torch.cat([first, part + extra, last]) for part in (zero, row, column)]
        )
        cameras = len(self.camera)
        here = valid[:, : cameras * per_camera : per_camera]
        starts = (here.cumsum(1) - here.long()) * (side + 2 * extra)
        images = (starts[:, :, None] + image[:, None, None]).flatten(2)
        rest = valid[:, cameras * per_camera :].cumsum(1) - 1
        rest = rest + here.sum(1, keepdim=True) * (side + 2 * extra)
        positions = torch.cat([images, rest.expand(3, -1, -1)], dim=2)
        return torch.where(valid, positions, 0)


def read_pretrained(path: str) -> dict[str, Any]:
    """Return the fields of `PolicyConfig` that a pretrained model decides.

    Args:
        path: local folder, or a name on the hub (`HF_HUB_OFFLINE` is honoured).

    Raises:
        CheckpointError: there is no such model, or it lacks its image processor.
        ConfigError: it is of no family we know.
    """
    try:
        vlm = AutoConfig.from_pretrained(path)
        processor, _ = ImageProcessingMixin.get_image_processor_dict(path)
    except (OSError, ValueError, KeyError) as e:
        raise CheckpointError(f'pretrained {path}: {e}') from e
    if vlm.model_type not in FAMILIES:
        raise ConfigError(
            f'pretrained {path}: expected a model of {", ".join(FAMILIES)}, '
            f'found {vlm.model_type!r}'
        )
    fields: dict[str, Any] = {'backbone': vlm.model_type, 'vlm': plain_config(vlm)}
    for name in ('image_mean', 'image_std'):
        if processor.get(name) is None:
            raise CheckpointError(f'pretrained {path}: the image processor has no {name}')
        fields[name] = tuple(processor[name])
    return fields


def plain_config(vlm: Any) -> dict[str, Any]:
    """Return a `transformers` configuration as plain values, complete, without local paths."""
    values = vlm.to_dict()
    values.pop('_name_or_path', None)
    return values


def _configuration(values: dict[str, Any]) -> Any:
    values = dict(values)
    vlm = AutoConfig.for_model(values.pop('model_type'), **values)
    plain = getattr(vlm.text_config, 'attn_logit_softcapping', None) is not None
    vlm._attn_implementation = 'sdpa'
    if plain:
        vlm.text_config._attn_implementation = _PLAIN_ATTENTION
    return vlm


def _load(path: str, vlm: Any) -> nn.Module:
    kind = 'folder' if pathlib.Path(path).is_dir() else 'name on the hub'
    try:
        model, report = AutoModel.from_pretrained(
            path, config=vlm, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as e:
        raise CheckpointError(f'pretrained {path} ({kind}): {e}') from e
    if missing := sorted(report['missing_keys']):
        raise CheckpointError(
            f'pretrained {path}: {len(missing)} weights are missing, {missing[0]} among them'
        )
    return model
