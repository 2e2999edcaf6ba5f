"""FAST: DCT, scaling, rounding, byte-pair encoding (Pertsch et al. 2025, arXiv 2501.09747).

The frequencies of all dimensions are interleaved, lowest first; BPE is trained on the sequences of
rounded coefficients. Chunks differ in their number of tokens, and a sequence of tokens decodes
only if it stands for exactly H * D coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np
from scipy.fft import dct, idct
import tokenizers
from tokenizers import models, trainers

from faster_core.errors import CheckpointError, ConfigError, DecodeError
from faster_core.tokenizer.baselines.fitted import FittedConfig, FittedTokenizer
from faster_core.tokenizer.normalizer import ActionNormalizer

# A coefficient is written as one character; from here on there are neither spaces nor controls.
_FIRST_CHARACTER = 0x4E00


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastConfig(FittedConfig):
    """Scale and vocabulary as published; FAST+ is the same fitted on all data, with 2048.

    Attributes:
        scale: coefficients are multiplied by it before rounding: more tokens, less error.
        vocab_size: of the byte-pair encoding.
        lowest, highest: range of the rounded coefficients in the data it was fitted on; others
            are clipped to it.
    """

    scale: float = 10.0
    vocab_size: int = 1024
    lowest: int = 0
    highest: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted (ConfigError)."""
        super().__post_init__()
        if not self.scale > 0:
            raise ConfigError(f'scale: expected a positive number, found {self.scale!r}')
        if self.highest - self.lowest + 1 > self.vocab_size:
            raise ConfigError(
                f'vocab_size {self.vocab_size}: the rounded coefficients alone have '
                f'{self.highest - self.lowest + 1} values at scale {self.scale:g}'
            )


class Fast(FittedTokenizer):
    """FAST with a vocabulary fitted to the data."""

    kind = 'fast'
    config_class = FastConfig

    def __init__(
        self, config: FastConfig, normalizer: ActionNormalizer, bpe: tokenizers.Tokenizer
    ) -> None:
        """Bind a trained byte-pair encoding."""
        super().__init__(config, normalizer)
        self._bpe = bpe
        self.vocab_size = bpe.get_vocab_size()

    @classmethod
    def fit(cls, config: FastConfig, normalizer: ActionNormalizer, chunks: np.ndarray) -> Fast:
        """Train the byte-pair encoding on normalised chunks [M, H, D]."""
        rounded = coefficients(chunks, config.scale)
        config = dataclasses.replace(config, lowest=int(rounded.min()), highest=int(rounded.max()))
        return cls(config, normalizer, train_bpe(config, rounded))

    @property
    def num_parameters(self) -> int:
        """Entries of the vocabulary."""
        return self.vocab_size

    def _encode(self, normal: np.ndarray) -> list[np.ndarray]:
        rounded = coefficients(normal, self.config.scale)
        rounded = np.clip(rounded, self.config.lowest, self.config.highest)
        texts = [_text(row, self.config.lowest) for row in rounded]
        return [np.array(e.ids, dtype=np.int64) for e in self._bpe.encode_batch(texts)]

    def _decode(self, codes: Any) -> np.ndarray:
        config = self.config
        rows = self._check_tokens(codes, None)
        count = config.horizon * config.action_dim
        values = np.empty((len(rows), count))
        for row, out in zip(rows, values, strict=True):
            text = ''.join(self._bpe.id_to_token(int(token)) for token in row)
            if len(text) != count:
                raise DecodeError(
                    f'tokens: stand for {len(text)} coefficients, a chunk has {count}'
                )
            out[:] = [ord(c) - _FIRST_CHARACTER + config.lowest for c in text]
        frequencies = values.reshape(-1, config.horizon, config.action_dim) / config.scale
        return idct(frequencies, axis=1, norm='ortho').astype(np.float32)

    def _save_fitted(self, path: pathlib.Path) -> None:
        self._bpe.save(str(path / 'bpe.json'))

    @classmethod
    def _load_fitted(
        cls, path: pathlib.Path, config: FastConfig, normalizer: ActionNormalizer
    ) -> Fast:
        try:
            bpe = tokenizers.Tokenizer.from_file(str(path / 'bpe.json'))
        except Exception as e:  # the library raises bare Exception for every kind of damage
            raise CheckpointError(f'tokenizer {path / "bpe.json"}: {e}') from e
        return cls(config, normalizer, bpe)


def train_bpe(config: FastConfig, rounded: Sequence[np.ndarray]) -> tokenizers.Tokenizer:
    """Train a byte-pair encoding on rows of rounded coefficients within the config's range.

    The rows may be of different robots, and of different lengths then.
    """
    alphabet = [chr(_FIRST_CHARACTER + i) for i in range(config.highest - config.lowest + 1)]
    bpe = tokenizers.Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=alphabet,
    )
    texts = (_text(row, config.lowest) for row in rounded)
    bpe.train_from_iterator(texts, trainer, length=len(rounded))
    return bpe


def coefficients(normal: np.ndarray, scale: float) -> np.ndarray:
    """Return the rounded DCT coefficients [M, H * D] of chunks [M, H, D], lowest first."""
    frequencies = dct(np.asarray(normal, np.float64), axis=1, norm='ortho')
    return np.rint(frequencies * scale).astype(np.int64).reshape(len(normal), -1)


def _text(row: np.ndarray, lowest: int) -> str:
    return ''.join(map(chr, row - lowest + _FIRST_CHARACTER))
