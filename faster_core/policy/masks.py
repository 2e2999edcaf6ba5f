"""Attention masks; True means: may be attended to."""

from __future__ import annotations

import torch


def prefix_mask(valid_BP: torch.Tensor) -> torch.Tensor:
    """Images, text and state see each other: bool [B, 1, P, P] from the valid tokens [B, P]."""
    return valid_BP[:, None, None, :].expand(-1, 1, valid_BP.shape[1], -1)


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
