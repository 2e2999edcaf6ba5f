"""The slow twin of `blockwise.decode`: greedy, one token per pass, nothing cached.

Every token is read from its own pass over the whole sequence so far. It exists to be compared
with; no policy uses it.
"""

from __future__ import annotations

import torch

from faster_core.decoding.blockwise import BlockModel


def decode_tokenwise(model: BlockModel, prefix: object, *, batch: int = 1) -> torch.Tensor:
    """Return the greedy token ids [B, N], computed one at a time without a cache."""
    begin = torch.full((batch, model.block_size), model.begin_token)
    tokens: list[torch.Tensor] = []
    for n in range(model.num_tokens):
        block, slot = divmod(n, model.block_size)
        known = tokens[: block * model.block_size]
        inputs = torch.cat([begin, *known], dim=1)
        logits = model.sequence_logits(inputs, prefix)[block]
        offset = model.token_offset(block)
        offset = offset if isinstance(offset, int) else offset[slot]
        tokens.append(logits[:, slot : slot + 1].argmax(dim=-1) + offset)
    return torch.cat(tokens, dim=1)
