"""Attention masks; True means: may be attended to."""

from __future__ import annotations

from typing import Any

import torch


def prefix_mask(valid_BP: torch.Tensor, *, causal: bool = False) -> torch.Tensor:
    """Who sees whom among images, text and state: bool [B, 1, P, P] from the valid [B, P].

    Everyone everyone, or with `causal` only what stands before, and itself. A token that is not
    valid sees itself, so that its softmax has a sum.
    """
    length = valid_BP.shape[1]
    seen = valid_BP[:, None, None, :].expand(-1, 1, length, -1)
    if not causal:
        return seen
    itself = torch.eye(length, dtype=torch.bool, device=valid_BP.device)
    return (seen & torch.ones_like(itself).tril()) | itself


def block_causal_mask(num_tokens: int, block_size: int, device: torch.device) -> torch.Tensor:
    """Bidirectional inside a block, causal between blocks: bool [N, N]."""
    block = torch.arange(num_tokens, device=device) // block_size
    return block[:, None] >= block[None, :]


def action_mask(valid_BP: torch.Tensor, num_tokens: int, block_size: int) -> torch.Tensor:
    """Mask of action tokens over prefix and action tokens: bool [B, 1, N, P + N]."""
    batch, device = valid_BP.shape[0], valid_BP.device
    causal = block_causal_mask(num_tokens, block_size, device)
    to_prefix = valid_BP[:, None, None, :].expand(batch, 1, num_tokens, -1)
    return torch.cat([to_prefix, causal.expand(batch, 1, -1, -1)], dim=-1)


def attention_argument(mask: torch.Tensor, config: Any, dtype: torch.dtype) -> Any:
    """Return a mask as a text model of `transformers` takes it.

    The plain attention adds its mask to the logits; models with layers of several types take one
    mask per type.
    """
    if config._attn_implementation == 'eager':
        least = torch.finfo(dtype).min
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least)
    kinds = getattr(config, 'layer_types', None)
    return dict.fromkeys(kinds, mask) if kinds else mask
