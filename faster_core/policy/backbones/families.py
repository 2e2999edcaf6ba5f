"""What differs between the vision-language models of `transformers`: one entry per family."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import torch
from torch import nn
from torch.nn import functional

from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How one family is called.

    Attributes:
        features: (model, normalised pixels [M, 3, S, S]) -> image tokens [M, T, width].
        language: attribute of the model that is its language model.
        around: text tokens around an image, as it was pretrained: the last one stands after it,
            the others before it; empty for none.
        grid_positions: image tokens have a row and a column position of their own (M-RoPE).
        causal: whether it was pretrained with causal attention over the prompt.
        prepare: (model, S), called once, keeps on the model what depends on the size of images.
    """

    features: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    language: str = 'language_model'
    around: tuple[str, ...] = ()
    grid_positions: bool = False
    causal: bool = True
    prepare: Callable[[nn.Module, int], None] = lambda model, size: None


def _paligemma(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return model.get_image_features(pixels).pooler_output


def _prepare_qwen2_5_vl(model: nn.Module, size: int) -> None:
    """Keep how one image falls into windows.

    The tower would work it out of the grid in every forward, with lists of the host and copies to
    the device, which no CUDA graph can record and no tracer can follow.

    Raises:
        ConfigError: transformers is too old.
    """
    try:
        from transformers.vision_utils import get_vision_position_ids, get_vision_window_index
    except ImportError as e:
        raise ConfigError(f'Qwen2.5-VL needs a later transformers (5.23 is one): {e}') from e
    visual, vision = model.visual, model.visual.config
    side = size // vision.patch_size
    grid = torch.tensor([[1, side, side]])
    index, ends = get_vision_window_index(
        grid,
        spatial_merge_size=vision.spatial_merge_size,
        window_size=vision.window_size,
        patch_size=vision.patch_size,
    )
    places = get_vision_position_ids(grid, vision.spatial_merge_size)
    visual.register_buffer('index_of_one', index, persistent=False)
    visual.register_buffer('places_of_one', places, persistent=False)
    visual.windows_of_one = ends[1:].tolist()


def _qwen2_5_vl(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    visual, vision = model.visual, model.visual.config
    patches, side = patchify(
        pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    )
    count, index = len(pixels), visual.index_of_one
    before = torch.arange(count, device=index.device)[:, None] * len(index)
    # Lengths stay on the host: they are read there.
    first = torch.arange(count)[:, None] * side**2
    windows = (first + torch.tensor(visual.windows_of_one)).flatten()
    features = model.get_image_features(
        patches,
        torch.tensor([[1, side, side]] * count),
        image_position_ids=visual.places_of_one.repeat(count, 1),
        image_window_index=(index + before).flatten(),
        image_cu_seqlens=torch.arange(count + 1) * side**2,
        image_cu_window_seqlens=functional.pad(windows, (1, 0)),
    ).pooler_output
    return torch.stack(list(features))


def _smolvlm(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    # Not `get_image_features`: that drops images that are zero everywhere.
    tower = model.vision_model
    side = pixels.shape[-1] // tower.patch_size
    # Given, because the tower would make it on the host.
    whole = torch.ones((len(pixels), side, side), dtype=torch.bool, device=pixels.device)
    seen = tower(pixel_values=pixels, patch_attention_mask=whole)
    return model.connector(seen.last_hidden_state)


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
        prepare=_prepare_qwen2_5_vl,
    ),
    'smolvlm': Family(
        features=_smolvlm,
        language='text_model',
        around=('<fake_token_around_image>', '<global-img>', '<fake_token_around_image>'),
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
