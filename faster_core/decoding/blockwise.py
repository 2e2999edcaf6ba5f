"""Block-wise autoregression: all tokens of a block in one pass, blocks one after the other.

The inputs that predict block j are the tokens of block j - 1 (FASTer, arXiv 2512.04952, section
"Block-wise autoregressive decoding"); `<BoBlk>`, repeated, asks for the first block. Inside a
block attention is bidirectional, between blocks causal.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import time
from typing import Protocol

import torch

from faster_core.decoding.sampling import sample, SamplingConfig


class BlockModel(Protocol):
    """What the decoder needs of a model; token ids are the model's own."""

    num_tokens: int
    block_size: int
    begin_token: int
    end_code: int | None

    def block_logits(self, inputs: torch.Tensor, block: int, prefix: object) -> torch.Tensor:
        """Append one block of input tokens [B, block_size] to the cache; return its logits."""

    def sequence_logits(self, inputs: torch.Tensor, prefix: object) -> list[torch.Tensor]:
        """Return the logits [B, block_size, V_j] of every block of `inputs`, without a cache."""

    def token_offset(self, block: int) -> torch.Tensor | int:
        """Return what index in V_j becomes an id: one number, or one per place [block_size]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """One pass.

    Attributes:
        index: which.
        tokens: ids chosen, int64 [B, block_size].
        logits: [B, block_size, V_j] they were chosen from.
        milliseconds: of the pass.
    """

    index: int
    tokens: torch.Tensor
    logits: torch.Tensor
    milliseconds: float


def decode(
    model: BlockModel,
    prefix: object,
    *,
    sampling: SamplingConfig,
    num_blocks: int | None = None,
    batch: int = 1,
    device: torch.device | str = 'cpu',
    generator: torch.Generator | None = None,
    noise: torch.Tensor | None = None,
    on_block: Callable[[Block], None] | None = None,
) -> torch.Tensor:
    """Decode the first `num_blocks` blocks (all by default) with a cache.

    A model with an `end_code` is asked until all rows have ended.

    Args:
        model: gives logits.
        prefix: what the model made of the observation; passed through.
        sampling: greedy or top-k.
        num_blocks: stop early, coarse levels first.
        batch: B.
        device: where tokens live.
        generator: source of randomness.
        noise: in its place, of `gumbel`, [num_blocks, B, block_size, top_k]; unused when greedy.
        on_block: called after every pass.

    Returns:
        token ids, int64 [B, num_blocks * block_size], or fewer if all rows have ended.
    """
    total = model.num_tokens // model.block_size
    num_blocks = total if num_blocks is None else num_blocks
    if not 1 <= num_blocks <= total:
        raise ValueError(f'num_blocks: expected 1..{total}, found {num_blocks}')
    inputs = torch.full((batch, model.block_size), model.begin_token, device=device)
    blocks = []
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    for j in range(num_blocks):
        start = time.perf_counter_ns()
        logits = model.block_logits(inputs, j, prefix)
        chosen = sample(logits, sampling, generator, None if noise is None else noise[j])
        inputs = chosen + model.token_offset(j)
        blocks.append(inputs)
        if on_block is not None:
            if inputs.device.type == 'cuda':
                torch.cuda.synchronize(inputs.device)
            spent = (time.perf_counter_ns() - start) / 1e6
            on_block(Block(index=j, tokens=inputs, logits=logits, milliseconds=spent))
        if model.end_code is not None:
            ended |= (chosen == model.end_code).any(dim=1)
            if ended.all():
                break
    return torch.cat(blocks, dim=1)
