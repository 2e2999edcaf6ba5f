"""Instructions as token ids: a small word-level tokenizer, trained on the demonstrations' texts.

Stored as a `tokenizers` JSON file in the checkpoint; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import pathlib

import numpy as np
from tokenizers import models, normalizers, pre_tokenizers, processors, Tokenizer, trainers

from faster_core.errors import CheckpointError, InstructionError
from faster_core.observation import check_instruction

PAD, UNKNOWN, BEGIN = '<pad>', '<unk>', '<bos>'
# An instruction with a larger share of words that no demonstration had is refused.
MAX_UNKNOWN_SHARE = 1 / 3
NUM_STATE_BINS = 256


class TextEncoder:
    """Fixed-length token ids of instructions.

    Ids: 0 pad, 1 unknown, 2 begin, then 256 state bins, then words.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        """Take a tokenizer and the length to pad to."""
        self._tokenizer, self.max_tokens = tokenizer, max_tokens
        # `<pad>` or `<state7>` typed by a user are words nobody taught, not those tokens.
        tokenizer.encode_special_tokens = True
        self._unknown = tokenizer.token_to_id(UNKNOWN)
        self.first_state_bin = tokenizer.token_to_id(_bin(0))
        if self._unknown is None or self.first_state_bin is None:
            raise CheckpointError(f'the text tokenizer lacks {UNKNOWN} or {_bin(0)}')

    @classmethod
    def train(cls, texts: Iterable[str], max_tokens: int) -> TextEncoder:
        """Learn the words of `texts`."""
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation('removed')]
        )
        special = [PAD, UNKNOWN, BEGIN, *map(_bin, range(NUM_STATE_BINS))]
        tokenizer.train_from_iterator(
            sorted(set(texts)), trainers.WordLevelTrainer(special_tokens=special)
        )
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f'{BEGIN} $A', special_tokens=[(BEGIN, special.index(BEGIN))]
        )
        return cls(tokenizer, max_tokens)

    @classmethod
    def load(cls, path: str | pathlib.Path, max_tokens: int) -> TextEncoder:
        """Read a `tokenizers` file; CheckpointError if it is missing or malformed."""
        try:
            text = pathlib.Path(path).read_text(encoding='utf-8')
            return cls(Tokenizer.from_str(text), max_tokens)
        except CheckpointError:
            raise
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
        """Return a few words of the vocabulary, for examples."""
        words = sorted(w for w in self._tokenizer.get_vocab() if not w.startswith('<'))
        return ' '.join(words[:3])

    def check(self, instruction: str) -> None:
        """Refuse what the policy cannot understand.

        Raises:
            InstructionError: empty, too long, or more than a third of the words are unknown.
        """
        check_instruction(instruction)
        encoding = self._tokenizer.encode(instruction, add_special_tokens=False)
        ids = encoding.ids
        unknown = [
            instruction[a:b]
            for i, (a, b) in zip(ids, encoding.offsets, strict=True)
            if i == self._unknown
        ]
        if not ids or len(unknown) > MAX_UNKNOWN_SHARE * len(ids):
            raise InstructionError(
                f'the policy knows too few words of the instruction: {len(unknown)} of '
                f'{len(ids)} are unknown ({", ".join(unknown[:8])})'
            )
        if len(ids) + 1 > self.max_tokens:
            raise InstructionError(
                f'the instruction has {len(ids)} words, at most {self.max_tokens - 1} are accepted'
            )

    def state_tokens(self, bins: np.ndarray) -> np.ndarray:
        """Return the ids int64 [..., S] of state bins 0..255 [..., S]."""
        return bins + self.first_state_bin

    def token_ids(self, tokens: Sequence[str]) -> tuple[int, ...]:
        """Return the ids of special tokens: this encoder has none of a pretrained model."""
        return ()

    def encode(self, instruction: str) -> tuple[np.ndarray, np.ndarray]:
        """Return ids int64 [L] and which of them are not padding, bool [L]."""
        ids = self._tokenizer.encode(instruction).ids[: self.max_tokens]
        padded = np.zeros(self.max_tokens, dtype=np.int64)
        padded[: len(ids)] = ids
        return padded, np.arange(self.max_tokens) < len(ids)


def _bin(index: int) -> str:
    return f'<state{index}>'
