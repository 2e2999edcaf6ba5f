"""What differs between the vision-language models of `transformers`: one entry per family."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import torch
from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is called.

    Attributes:
        features: (model, normalised pixels [M, 3, S, S]) -> image tokens [M, T, width].
        language: attribute of the model that is its language model.
        around: text tokens before and after an image, as it was pretrained; empty for none.
        grid_positions: image tokens have a row and a column position of their own (M-RoPE).
        causal: whether it was pretrained with causal attention over the prompt.
    """

    features: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    language: str = 'language_model'
    around: tuple[str, ...] = ()
    grid_positions: bool = False
    causal: bool = True


def _paligemma(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return model.get_image_features(pixels).pooler_output


def _qwen2_5_vl(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    vision = model.visual.config
    patches, side = patchify(
        pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    )
    grid = torch.tensor([[1, side, side]] * len(pixels), device=pixels.device)
    features = model.get_image_features(patches, grid).pooler_output
    return torch.stack(list(features))


def _smolvlm(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    # Not `get_image_features`: that drops images that are zero everywhere.
    return model.connector(model.vision_model(pixel_values=pixels).last_hidden_state)


def _internvl(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return model.get_image_features(
        pixels,
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
    ).pooler_output


FAMILIES = {
    'paligemma': Family(features=_paligemma, causal=False),
    'qwen2_5_vl': Family(
        features=_qwen2_5_vl,
        around=('<|vision_start|>', '<|vision_end|>'),
        grid_positions=True,
    ),
    'smolvlm': Family(
        features=_smolvlm,
        language='text_model',
        around=('<fake_token_around_image>', '<fake_token_around_image>'),
    ),
    'internvl': Family(features=_internvl, around=('<img>', '</img>')),
}


def patchify(
    pixels: torch.Tensor, patch: int, merge: int, frames: int
) -> tuple[torch.Tensor, int]:
    """Cut images as Qwen2-VL's image processor does: patches in groups of merge x merge.

    Args:
        pixels: normalised [M, 3, S, S]; S a multiple of patch * merge.
        patch: side of a patch.
        merge: patches per side of a group.
        frames: a still image is a film of so many equal frames.

    Returns:
        [M * side * side, 3 * frames * patch * patch], and side, in patches.
    """
    side = pixels.shape[-1] // patch
    cut = pixels.unflatten(3, (side // merge, merge, patch))
    cut = cut.unflatten(2, (side // merge, merge, patch))
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    cut = cut.expand(*cut.shape[:6], frames, *cut.shape[7:])
    return cut.reshape(len(pixels) * side**2, -1), side
