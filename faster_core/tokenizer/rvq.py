"""Tokenizers that are an autoencoder around a residual vector quantiser: what they share.

FASTerVQ and the learned rivals differ in the autoencoder only, so they are trained, saved and
decoded by the same code.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
import torch
from torch import nn

from faster_core.config import write_json
from faster_core.errors import CheckpointError, DecodeError
from faster_core.tokenizer.interface import (
    ActionTokenizer,
    read_config,
    read_json,
    to_numpy,
)
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.quantizer import ResidualQuantizer

# Buffers of the moving averages that follow from the others: not written.
_SUMS = '.sums'


class VqModel(nn.Module):
    """Autoencoder and quantiser over normalised chunks."""

    def __init__(self, autoencoder: nn.Module, quantizer: ResidualQuantizer) -> None:
        """Put them together; `autoencoder` has `encode` and `decode`."""
        super().__init__()
        self.autoencoder, self.quantizer = autoencoder, quantizer

    def forward(
        self, actions: torch.Tensor, num_levels: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return reconstruction [B, H, D], codes [levels, B, C_h, C_a], commitment loss.

        With `num_levels` 0 the latents are not quantised: there are no codes.
        """
        z = self.autoencoder.encode(actions)
        if num_levels == 0:
            codes = z.new_zeros((0, *z.shape[:-1]), dtype=torch.int64)
            return self.autoencoder.decode(z), codes, z.new_zeros(())
        quantised, codes, commitment = self.quantizer(z, num_levels)
        return self.autoencoder.decode(quantised), codes, commitment


class RvqTokenizer(ActionTokenizer):
    """Chunks [B, H, D] <-> codes [B, N_c, C_h, C_a] of a residual vector quantiser.

    Its configuration has `horizon`, `action_dim`, `velocity_dims`, `latent_shape`, `latent_dim`,
    `num_levels`, `codebook_size` and the quantiser's fields.
    """

    config_class: ClassVar[type]

    def __init__(
        self, config: Any, normalizer: ActionNormalizer, model: VqModel | None = None
    ) -> None:
        """Take a model, or build one with random weights."""
        self.config, self.normalizer = config, normalizer
        self.horizon, self.action_dim = config.horizon, config.action_dim
        self.velocity_dims, self.vocab_size = config.velocity_dims, config.codebook_size
        self.model = model or self.make_model(config)
        self.model.eval()

    @classmethod
    @abc.abstractmethod
    def make_model(cls, config: Any) -> VqModel:
        """Build autoencoder and quantiser with random weights."""

    @property
    def num_tokens(self) -> int:
        """N_c * C_h * C_a."""
        return self.config.num_levels * int(np.prod(self.config.latent_shape))

    @property
    def num_parameters(self) -> int:
        """Weights and codebook vectors."""
        weights = sum(p.numel() for p in self.model.parameters())
        return weights + sum(level.vectors.numel() for level in self.model.quantizer.levels)

    # --- disk -------------------------------------------------------------------------------

    def save_pretrained(self, path: str | pathlib.Path) -> None:
        """Write config.json, normalization.json and model.safetensors."""
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        config = {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config)}
        write_json(path / 'config.json', {'kind': self.kind, **config})
        write_json(path / 'normalization.json', self.normalizer.to_dict(), indent=None)
        state = self.model.state_dict()
        weights = {k: v.contiguous() for k, v in state.items() if not k.endswith(_SUMS)}
        save_file(weights, str(path / 'model.safetensors'))

    @classmethod
    def from_pretrained(cls, path: str | pathlib.Path) -> RvqTokenizer:
        """Read a folder that `save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the configuration.
        """
        path = pathlib.Path(path)
        config = read_config(path, cls.kind, cls.config_class)
        normalizer = ActionNormalizer.from_dict(
            read_json(path / 'normalization.json'), config.action_dim
        )
        model = cls.make_model(config)
        try:
            weights = load_file(path / 'model.safetensors')
            for name in [k for k in model.state_dict() if k.endswith(_SUMS)]:
                level = name.removesuffix(_SUMS)
                weights.setdefault(
                    name, weights[f'{level}.vectors'] * weights[f'{level}.uses'][:, None]
                )
            model.load_state_dict(weights)
        except (OSError, KeyError, SafetensorError, RuntimeError) as e:
            raise CheckpointError(f'tokenizer {path / "model.safetensors"}: {e}') from e
        return cls(config, normalizer, model)

    # --- actions and codes ------------------------------------------------------------------

    @torch.inference_mode()
    def _encode(self, normal: np.ndarray) -> np.ndarray:
        """Return int64 [B, N_c, C_h, C_a]."""
        latents = self.model.autoencoder.encode(torch.from_numpy(normal).to(self._device))
        codes = self.model.quantizer.encode(latents, beam=self.config.encode_beam)
        return codes.transpose(0, 1).cpu().numpy()

    def decode(
        self,
        codes: Any,
        num_levels: int | None = None,
        decoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> Any:
        """Decode codes to physical chunks; every code tensor in range decodes.

        No row differs more from the row before than in the data (`limit_steps`).

        Args:
            codes: integer [B, L, C_h, C_a] or [L, C_h, C_a] with 1 <= L <= N_c levels.
            num_levels: use the first levels only (coarser, never undefined).
            decoder: a compiled equal of quantiser and decoder for one chunk of all levels, int64
                [N_c, 1, C_h, C_a] to normalised [1, H, D].

        Returns:
            float32 [B, H, D] (without B for a single chunk), SI units.

        Raises:
            DecodeError: another shape, a code out of range, or a result that is not finite.
        """
        array = self._check_codes(codes)
        if num_levels is not None and not 1 <= num_levels <= array.shape[-3]:
            raise DecodeError(f'num_levels: expected 1..{array.shape[-3]}, found {num_levels}')
        batch = array[None] if array.ndim == 3 else array
        actions = self.physical(self._decode(batch[:, :num_levels], decoder))
        actions = actions[0] if array.ndim == 3 else actions
        return torch.from_numpy(actions) if torch.is_tensor(codes) else actions

    def physical(self, normal: np.ndarray) -> np.ndarray:
        """Return normalised chunks [..., H, D] in SI units, without steps the data never took."""
        return self.normalizer.limit_steps(super().physical(normal))

    @torch.inference_mode()
    def _decode(
        self,
        codes: np.ndarray,
        decoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> np.ndarray:
        levels = torch.from_numpy(codes.astype(np.int64)).to(self._device).transpose(0, 1)
        if decoder is not None and levels.shape[:2] == (self.config.num_levels, 1):
            return decoder(levels.contiguous()).float().cpu().numpy()
        latents = self.model.quantizer.lookup(levels)
        return self.model.autoencoder.decode(latents).float().cpu().numpy()

    def tokens(self, codes: Any) -> Any:
        """Flatten codes [B, N_c, C_h, C_a] to [B, N]: level, time slot, action slot."""
        return codes.reshape(*codes.shape[:-3], -1)

    def codes(self, tokens: Any) -> Any:
        """Reshape [B, n] to [B, levels, C_h, C_a]; n may hold fewer than all levels."""
        if not torch.is_tensor(tokens):
            tokens = np.asarray(tokens)
        per_level = int(np.prod(self.config.latent_shape))
        if not tokens.shape[-1] or tokens.shape[-1] % per_level:
            raise DecodeError(
                f'tokens: expected a multiple of {per_level} (one level), found {tokens.shape[-1]}'
            )
        return tokens.reshape(*tokens.shape[:-1], -1, *self.config.latent_shape)

    def _check_codes(self, codes: Any) -> np.ndarray:
        array, config = to_numpy(codes), self.config
        shaped = array.ndim in (3, 4) and array.shape[-2:] == config.latent_shape
        if not shaped or not array.size or not 1 <= array.shape[-3] <= config.num_levels:
            raise DecodeError(
                f'codes: expected [B, 1..{config.num_levels}, {config.latent_shape[0]}, '
                f'{config.latent_shape[1]}], found {list(array.shape)}'
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise DecodeError(f'codes: expected integers, found {array.dtype}')
        lowest, highest = array.min(), array.max()
        if lowest < 0 or highest >= config.codebook_size:
            raise DecodeError(
                f'codes: expected 0..{config.codebook_size - 1}, found {lowest}..{highest}'
            )
        return array

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
