"""Instructions and states for a pretrained language model: its own tokenizer, stored with it."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from faster_core.errors import CheckpointError, InstructionError
from faster_core.observation import check_instruction
from faster_core.policy.text import NUM_STATE_BINS

# The wording of FAST and pi0.5 (arXiv 2501.09747, 2504.16054); numbers of the state follow.
TEMPLATE = 'Task: {instruction}\nState:'


class PromptEncoder:
    """Fixed-length token ids of prompts, and of states as numbers.

    The same methods as `TextEncoder`; every word is known.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        """Take a `tokenizers` tokenizer and the length to pad to."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self.max_tokens = tokenizer, max_tokens
        numbers = [self._ids(f' {i}') for i in range(NUM_STATE_BINS)]
        width = max(len(ids) for ids in numbers)
        self._numbers = np.array([ids + [-1] * (width - len(ids)) for ids in numbers])

    @classmethod
    def from_pretrained(cls, path: str, max_tokens: int) -> PromptEncoder:
        """Take the tokenizer of a pretrained model.

        Raises:
            CheckpointError: there is none, or it is not one of `tokenizers`.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
            backend = tokenizer.backend_tokenizer
        except (OSError, ValueError, AttributeError) as e:
            raise CheckpointError(f'pretrained {path}: tokenizer: {e}') from e
        return cls(Tokenizer.from_str(backend.to_str()), max_tokens)

    @classmethod
    def load(cls, path: str | pathlib.Path, max_tokens: int) -> PromptEncoder:
        """Read a `tokenizers` file; CheckpointError if it is missing or malformed."""
        try:
            text = pathlib.Path(path).read_text(encoding='utf-8')
            return cls(Tokenizer.from_str(text), max_tokens)
        except Exception as e:  # `tokenizers` raises plain Exception
            raise CheckpointError(f'text tokenizer {path}: {e}') from e

    def save(self, path: str | pathlib.Path) -> None:
        """Write the `tokenizers` file."""
        self._tokenizer.save(str(path))

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._tokenizer.get_vocab_size()

    def known_words(self) -> str:
        """Return an instruction, for examples."""
        return 'pick up the block'

    def check(self, instruction: str) -> None:
        """Refuse what the policy cannot understand (InstructionError): empty or too long."""
        check_instruction(instruction)
        found = len(self._prompt(instruction))
        if found > self.max_tokens:
            raise InstructionError(
                f'the instruction has {found} tokens with the prompt around it, at most '
                f'{self.max_tokens} are accepted'
            )

    def encode(self, instruction: str) -> tuple[np.ndarray, np.ndarray]:
        """Return ids int64 [L] and which of them are not padding, bool [L]."""
        ids = self._prompt(instruction)[: self.max_tokens]
        padded = np.zeros(self.max_tokens, dtype=np.int64)
        padded[: len(ids)] = ids
        return padded, np.arange(self.max_tokens) < len(ids)

    def state_tokens(self, bins: np.ndarray) -> np.ndarray:
        """Return the ids of state bins 0..255 [..., S] written as numbers: int64 [..., M].

        Every number takes as many places as the longest does; -1 is padding.
        """
        return self._numbers[bins].reshape(*bins.shape[:-1], -1)

    def token_ids(self, tokens: Sequence[str]) -> tuple[int, ...]:
        """Return the ids of special tokens; empty if the tokenizer lacks one."""
        ids = tuple(self._tokenizer.token_to_id(token) for token in tokens)
        return () if None in ids else ids

    def _prompt(self, instruction: str) -> list[int]:
        # A user's `<image>` is a word, not that token.
        self._tokenizer.encode_special_tokens = True
        text = TEMPLATE.format(instruction=' '.join(instruction.split()))
        return self._tokenizer.encode(text).ids

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids
