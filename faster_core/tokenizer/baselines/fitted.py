"""Tokenizers whose codes are their tokens and that are fitted in closed form: what they share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np

from faster_core.config import write_json
from faster_core.errors import ConfigError, DecodeError
from faster_core.tokenizer.interface import (
    ActionTokenizer,
    read_config,
    read_json,
    to_numpy,
)
from faster_core.tokenizer.normalizer import ActionNormalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedConfig:
    """Shape of the chunks.

    Attributes:
        horizon: H.
        action_dim: D.
        velocity_dims: columns that are zero while a robot rests.
    """

    horizon: int
    action_dim: int
    velocity_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse empty shapes (ConfigError)."""
        object.__setattr__(self, 'velocity_dims', tuple(self.velocity_dims))
        for name in ('horizon', 'action_dim'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name}: expected at least 1, found {getattr(self, name)}')


class FittedTokenizer(ActionTokenizer):
    """Codes are sequences of tokens [B, N] or, where chunks differ in length, a list of them."""

    config_class: ClassVar[type[FittedConfig]]

    def __init__(self, config: FittedConfig, normalizer: ActionNormalizer) -> None:
        """Bind a configuration and the statistics of the data."""
        self.config, self.normalizer = config, normalizer
        self.horizon, self.action_dim = config.horizon, config.action_dim
        self.velocity_dims = config.velocity_dims

    @classmethod
    @abc.abstractmethod
    def fit(
        cls, config: FittedConfig, normalizer: ActionNormalizer, chunks: np.ndarray
    ) -> FittedTokenizer:
        """Fit to normalised chunks [M, H, D]."""

    def tokens(self, codes: Any) -> Any:
        """Return the codes: they are tokens already."""
        return codes

    def codes(self, tokens: Any) -> Any:
        """Return the tokens."""
        return tokens

    def decode(self, codes: Any) -> Any:
        """Decode one sequence of tokens or a batch of them; see `ActionTokenizer.decode`."""
        single = len(codes) > 0 and np.ndim(codes[0]) == 0
        actions = super().decode([codes] if single else codes)
        return actions[0] if single else actions

    # --- disk -------------------------------------------------------------------------------

    def save_pretrained(self, path: str | pathlib.Path) -> None:
        """Write config.json, normalization.json and what else the tokenizer has fitted."""
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / 'config.json', {'kind': self.kind, **dataclasses.asdict(self.config)})
        write_json(path / 'normalization.json', self.normalizer.to_dict(), indent=None)
        self._save_fitted(path)

    @classmethod
    def from_pretrained(cls, path: str | pathlib.Path) -> FittedTokenizer:
        """Read a folder that `save_pretrained` wrote; CheckpointError if it cannot be."""
        path = pathlib.Path(path)
        config = read_config(path, cls.kind, cls.config_class)
        normalizer = ActionNormalizer.from_dict(
            read_json(path / 'normalization.json'), config.action_dim
        )
        return cls._load_fitted(path, config, normalizer)

    def _save_fitted(self, path: pathlib.Path) -> None:
        """Write what `_load_fitted` reads; nothing by default."""

    @classmethod
    def _load_fitted(
        cls, path: pathlib.Path, config: FittedConfig, normalizer: ActionNormalizer
    ) -> FittedTokenizer:
        return cls(config, normalizer)

    # --- for subclasses -----------------------------------------------------------------------

    def _check_tokens(self, batch: Sequence[Any], length: int | None) -> list[np.ndarray]:
        """Return int64 sequences.

        Args:
            batch: sequences of tokens.
            length: how many each must have; None for any number but zero.

        Raises:
            DecodeError: another number of tokens, no integers, or one out of range.
        """
        rows = [to_numpy(row) for row in batch]
        for row in rows:
            if row.ndim != 1 or not len(row) or (length is not None and len(row) != length):
                wanted = 'at least one' if length is None else length
                raise DecodeError(f'tokens: expected {wanted}, found shape {list(row.shape)}')
            if not np.issubdtype(row.dtype, np.integer):
                raise DecodeError(f'tokens: expected integers, found {row.dtype}')
            if row.min() < 0 or row.max() >= self.vocab_size:
                raise DecodeError(
                    f'tokens: expected 0..{self.vocab_size - 1}, found {row.min()}..{row.max()}'
                )
        return [row.astype(np.int64) for row in rows]
