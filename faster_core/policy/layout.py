"""Which token stands where: levels, codes and the order they are decoded in."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from faster_core.errors import ConfigError
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.rvq import RvqTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeLayout:
    """How many action tokens there are, and in which order.

    A token's id is `level * codebook_size + code`; then come `<BoBlk>` and `<EoBlk>`.

    Attributes:
        num_levels: N_c; 1 for tokenizers without levels.
        codebook_size: K, codes of a level.
        tokens_per_level: C_h * C_a.
        order: 'level', all of level 1, then all of level 2, ..., or 'slot', all levels of the
            first slot, then of the second, ...
        end_code: the code that ends a chunk of variable length (FAST); `num_tokens` is then the
            most there can be. None: all chunks have `num_tokens`.
    """

    num_levels: int
    codebook_size: int
    tokens_per_level: int
    order: str = 'level'
    end_code: int | None = None

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.num_levels * self.tokens_per_level

    @property
    def begin_token(self) -> int:
        """Id of `<BoBlk>`."""
        return self.num_levels * self.codebook_size

    @property
    def end_token(self) -> int:
        """Id of `<EoBlk>`."""
        return self.begin_token + 1

    @property
    def levels(self) -> list[int]:
        """Level of every token, in decoding order."""
        if self.order == 'slot':
            return [n % self.num_levels for n in range(self.num_tokens)]
        return [n // self.tokens_per_level for n in range(self.num_tokens)]

    def check_block_size(self, block_size: int) -> None:
        """Refuse blocks that the order does not allow (ValueError)."""
        if self.order == 'slot':
            if self.num_tokens % block_size:
                raise ValueError(
                    f'block_size {block_size} does not divide the {self.num_tokens} tokens'
                )
        elif self.tokens_per_level % block_size:
            raise ValueError(
                f'block_size {block_size} does not divide the {self.tokens_per_level} '
                'tokens of a level'
            )

    def from_level_major(self, tokens: np.ndarray) -> np.ndarray:
        """Put token ids [..., N] of a tokenizer (level by level) in decoding order."""
        if self.order == 'level':
            return tokens
        grid = tokens.reshape(*tokens.shape[:-1], self.num_levels, self.tokens_per_level)
        return np.ascontiguousarray(grid.swapaxes(-1, -2)).reshape(tokens.shape)

    def codes(self, tokens: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Return codes [B, n] level by level of decoded token ids [B, n].

        Args:
            tokens: with order 'slot', n is N.
            levels: `levels` as a tensor, where the tokens are.
        """
        codes = tokens - levels[: tokens.shape[1]] * self.codebook_size
        if self.order == 'slot':
            codes = codes.unflatten(1, (self.tokens_per_level, self.num_levels))
            codes = codes.transpose(1, 2).flatten(1)
        return codes


def layout_of(tokenizer: ActionTokenizer, order: str, max_tokens: int | None = None) -> CodeLayout:
    """Return the layout of the tokens of a tokenizer.

    Args:
        tokenizer: of any kind.
        order: see `CodeLayout`.
        max_tokens: most tokens of a chunk, for tokenizers of variable length.

    Raises:
        ConfigError: order 'slot' without levels.
    """
    if isinstance(tokenizer, RvqTokenizer):
        shape = tokenizer.config
        return CodeLayout(
            num_levels=shape.num_levels,
            codebook_size=shape.codebook_size,
            tokens_per_level=int(np.prod(shape.latent_shape)),
            order=order,
        )
    if order == 'slot':
        raise ConfigError(f'order slot: the tokenizer {tokenizer.kind} has no levels')
    if tokenizer.num_tokens is None:
        most = max_tokens or tokenizer.horizon * tokenizer.action_dim
        # One token more, for the end.
        return CodeLayout(
            num_levels=1,
            codebook_size=tokenizer.vocab_size + 1,
            tokens_per_level=most + 1,
            end_code=tokenizer.vocab_size,
        )
    return CodeLayout(
        num_levels=1, codebook_size=tokenizer.vocab_size, tokens_per_level=tokenizer.num_tokens
    )
