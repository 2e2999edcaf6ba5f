"""The backbone that a configuration names."""

from __future__ import annotations

from faster_core.policy.backbones.base import Backbone
from faster_core.policy.backbones.pretrained import PretrainedBackbone
from faster_core.policy.backbones.small import SmallBackbone
from faster_core.policy.config import PolicyConfig, SMALL


def build_backbone(
    config: PolicyConfig,
    *,
    vocab_size: int,
    num_cameras: int,
    state_sizes: tuple[int, ...],
    around: tuple[int, ...] = (),
    weights: str = '',
) -> Backbone:
    """Build the backbone of a configuration.

    Args:
        config: architecture.
        vocab_size: of the text tokenizer; a small backbone's embedding has that size.
        num_cameras: cameras of the embodiment.
        state_sizes: dimensions of every state component.
        around: ids of the tokens around an image of a pretrained family, the last one after it.
        weights: where a pretrained model's weights are; empty: random.
    """
    if config.backbone == SMALL:
        return SmallBackbone(
            config, vocab_size=vocab_size, num_cameras=num_cameras, state_sizes=state_sizes
        )
    return PretrainedBackbone(
        config, num_cameras=num_cameras, state_sizes=state_sizes, around=around, weights=weights
    )
