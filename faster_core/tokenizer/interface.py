"""What every action tokenizer does, FASTerVQ and its rivals alike.

Chunks are [B, H, D] in SI units on one side, sequences of integers on the other. A policy, a
metric or a figure that knows this interface works with all of them.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
import json
import pathlib
from typing import Any, ClassVar

import numpy as np
import torch

from faster_core.config import from_mapping
from faster_core.errors import CheckpointError, ConfigError, DecodeError
from faster_core.tokenizer.normalizer import ActionNormalizer


class ActionTokenizer(abc.ABC):
    """Chunks of actions to token sequences and back.

    Attributes:
        kind: key in `faster_core.tokenizer.registry.TOKENIZERS`; stands in config.json.
        config: what it was built from, a frozen dataclass.
        horizon: H, rows of a chunk.
        action_dim: D.
        velocity_dims: columns that are zero, not held, while a robot rests.
        normalizer: statistics of the data it was fitted on.
        vocab_size: tokens are 0 .. vocab_size - 1.
    """

    kind: ClassVar[str]
    config: Any
    horizon: int
    action_dim: int
    velocity_dims: tuple[int, ...]
    normalizer: ActionNormalizer
    vocab_size: int

    # --- what a tokenizer must say ------------------------------------------------------------

    @abc.abstractmethod
    def _encode(self, normal: np.ndarray) -> Any:
        """Return the codes of normalised float32 chunks [B, H, D]: B rows or a list of B."""

    @abc.abstractmethod
    def _decode(self, codes: Any) -> np.ndarray:
        """Return normalised chunks [B, H, D]; DecodeError for codes that mean nothing."""

    @abc.abstractmethod
    def tokens(self, codes: Any) -> Any:
        """Put codes in decoding order: integer [B, N], or a list of B sequences."""

    @abc.abstractmethod
    def codes(self, tokens: Any) -> Any:
        """Undo `tokens`."""

    @abc.abstractmethod
    def save_pretrained(self, path: str | pathlib.Path) -> None:
        """Write a folder that `from_pretrained` reads."""

    @classmethod
    @abc.abstractmethod
    def from_pretrained(cls, path: str | pathlib.Path) -> ActionTokenizer:
        """Read such a folder; CheckpointError names what is missing or damaged."""

    @property
    def num_tokens(self) -> int | None:
        """Tokens of a chunk; None if that varies."""
        return None

    @property
    def num_parameters(self) -> int:
        """Learned numbers: weights, codebooks, table entries."""
        return 0

    # --- what they have in common -------------------------------------------------------------

    def encode(self, actions: Any, mask: Any = None) -> Any:
        """Encode physical chunks.

        Args:
            actions: [B, H, D] or [H, D], numpy or torch, SI units.
            mask: bool [B, H] or [H]: which rows are real; False only at the end of a chunk, and
                the first row must be real. The other rows are replaced by rest: positions hold
                the last real row, velocities are zero. Nothing is padded without a mask
                (`pad_chunks` makes one from chunks of different lengths).

        Returns:
            Codes of the batch; of the one chunk if one was given.

        Raises:
            ValueError: another shape, a value that is not finite, a mask with gaps.
        """
        batch = check_actions(actions, self.horizon, self.action_dim)
        if mask is not None:
            batch = fill_rest(batch, mask, self.velocity_dims)
        codes = self._encode(self.normalizer.normalize(batch))
        single = to_numpy(actions).ndim == 2
        return _like(codes[0] if single else codes, actions)

    def __call__(self, actions: Any, mask: Any = None, return_tensors: str | None = None) -> Any:
        """Return the tokens of chunks, as a `transformers` processor does.

        Args:
            actions: as in `encode`.
            mask: as in `encode`.
            return_tensors: None for lists of integers, 'np' or 'pt' for one array [B, N]; only
                tokenizers with a fixed number of tokens can give one (ValueError otherwise).
        """
        batch = check_actions(actions, self.horizon, self.action_dim)
        tokens = self.tokens(self.encode(batch, None if mask is None else np.atleast_2d(mask)))
        if return_tensors is None:
            return [[int(t) for t in row] for row in tokens]
        if return_tensors not in ('np', 'pt'):
            raise ValueError(
                f"return_tensors: expected None, 'np' or 'pt', got {return_tensors!r}"
            )
        if len({len(row) for row in tokens}) > 1:
            raise ValueError(
                'the chunks have different numbers of tokens: use return_tensors=None'
            )
        array = np.stack([np.asarray(row) for row in tokens])
        return torch.from_numpy(array) if return_tensors == 'pt' else array

    def decode(self, codes: Any) -> Any:
        """Decode codes to physical chunks float32 [B, H, D], inside the decoder's range.

        Raises:
            DecodeError: codes that mean nothing, or a result that is not finite.
        """
        return _like(self.physical(self._decode(codes)), codes)

    def physical(self, normal: np.ndarray) -> np.ndarray:
        """Return normalised chunks [..., H, D] in SI units; DecodeError if they are not finite."""
        if not np.isfinite(normal).all():
            raise DecodeError('the decoded chunk is not finite')
        return self.normalizer.denormalize(normal)

    def decode_tokens(self, tokens: Any) -> Any:
        """Decode what `__call__` returned."""
        return self.decode(self.codes(tokens))


def check_actions(actions: Any, horizon: int, action_dim: int) -> np.ndarray:
    """Return float32 [B, H, D].

    Raises:
        ValueError: another shape (chunks of different lengths too) or a value that is not finite.
    """
    try:
        array = to_numpy(actions)
    except ValueError as e:
        raise ValueError(f'actions: chunks of different lengths; see `pad_chunks` ({e})') from e
    if array.ndim not in (2, 3) or array.shape[-2:] != (horizon, action_dim):
        hint = '; shorter chunks need a mask, see `pad_chunks`' if array.ndim in (2, 3) else ''
        raise ValueError(
            f'actions: expected [B, {horizon}, {action_dim}] or one chunk, '
            f'found {list(array.shape)}{hint}'
        )
    if not np.isfinite(array).all():
        raise ValueError('actions: not finite')
    return (array[None] if array.ndim == 2 else array).astype(np.float32, copy=False)


def fill_rest(batch: np.ndarray, mask: Any, velocity_dims: Sequence[int]) -> np.ndarray:
    """Replace the rows [B, H, D] that the mask [B, H] calls unreal by a robot at rest.

    Raises:
        ValueError: another shape, or a mask that is not a run of True and then of False.
    """
    real = np.atleast_2d(to_numpy(mask)).astype(bool)
    if real.shape != batch.shape[:2]:
        raise ValueError(f'mask: expected {list(batch.shape[:2])}, found {list(real.shape)}')
    lengths = real.sum(axis=1)
    if (lengths < 1).any() or (real != (np.arange(real.shape[1]) < lengths[:, None])).any():
        raise ValueError('mask: expected at least one real row and unreal ones only at the end')
    last = np.minimum(np.arange(real.shape[1])[None], lengths[:, None] - 1)
    filled = np.take_along_axis(batch, last[:, :, None], axis=1)
    if velocity_dims:
        columns = filled[:, :, list(velocity_dims)]
        filled[:, :, list(velocity_dims)] = np.where(real[:, :, None], columns, 0.0)
    return filled


def pad_chunks(chunks: Sequence[np.ndarray], horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Put chunks [T_i, D] of up to `horizon` rows into one array.

    Returns:
        float32 [B, H, D] and bool mask [B, H], for `encode`.

    Raises:
        ValueError: no chunk, an empty or too long one, or different widths.
    """
    lengths = [len(c) for c in chunks]
    widths = {np.shape(c)[1:] for c in chunks}
    if not chunks or min(lengths) < 1 or max(lengths) > horizon or len(widths) != 1:
        raise ValueError(
            f'chunks: expected [1..{horizon}, D] each, found lengths {lengths}, widths {widths}'
        )
    padded = np.zeros((len(chunks), horizon, *widths.pop()), dtype=np.float32)
    for row, chunk in zip(padded, chunks, strict=True):
        row[: len(chunk)] = chunk
    return padded, np.arange(horizon) < np.array(lengths)[:, None]


def to_numpy(values: Any) -> np.ndarray:
    """Return a numpy array of what may be a tensor."""
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def _like(values: Any, given: Any) -> Any:
    """Return an array as a tensor where a tensor was given."""
    if torch.is_tensor(given) and isinstance(values, np.ndarray):
        return torch.from_numpy(values)
    return values


def read_config(path: pathlib.Path, kind: str, config_class: type) -> Any:
    """Read config.json of a tokenizer folder; without a `kind` it is FASTerVQ's.

    Raises:
        CheckpointError: missing, of another kind, or not what `config_class` takes.
    """
    file = path / 'config.json'
    values = read_json(file)
    try:
        if isinstance(values, dict) and (found := values.pop('kind', 'faster')) != kind:
            raise ConfigError(f'{file}: expected kind {kind}, found {found!r}')
        return from_mapping(config_class, values, source=str(file))
    except ConfigError as e:
        raise CheckpointError(f'tokenizer: {e}') from e


def read_json(path: pathlib.Path) -> Any:
    """Read a file of a checkpoint; CheckpointError if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as e:
        raise CheckpointError(f'{path}: {e}') from e
