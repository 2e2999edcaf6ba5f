"""The public face of the tokenizer: physical actions in, codes out, and back."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
import torch
from torch import nn

from faster_core.config import from_mapping
from faster_core.errors import CheckpointError, ConfigError, DecodeError
from faster_core.tokenizer.autoencoder import Autoencoder
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.quantizer import ResidualQuantizer


class VqModel(nn.Module):
    """Autoencoder and quantiser over normalised chunks."""

    def __init__(self, config: FasterVQConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self.autoencoder = Autoencoder(config)
        self.quantizer = ResidualQuantizer(config)

    def forward(
        self, actions: torch.Tensor, num_levels: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return reconstruction [B, H, D], codes [levels, B, C_h, C_a], commitment loss."""
        z = self.autoencoder.encode(actions)
        quantised, codes, commitment = self.quantizer(z, num_levels)
        return self.autoencoder.decode(quantised), codes, commitment


class FasterVQ:
    """FASTerVQ (FASTer, arXiv 2512.04952): chunks [B, H, D] <-> codes [B, N_c, C_h, C_a]."""

    def __init__(
        self,
        config: FasterVQConfig,
        normalizer: ActionNormalizer,
        model: VqModel | None = None,
    ) -> None:
        """Take a model, or build one with random weights."""
        self.config, self.normalizer = config, normalizer
        self.model = model or VqModel(config)
        self.model.eval()

    # --- disk -------------------------------------------------------------------------------

    def save_pretrained(self, path: str | pathlib.Path) -> None:
        """Write config.json, normalization.json and model.safetensors."""
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        config = {k: getattr(self.config, k) for k in FasterVQConfig.__dataclass_fields__}
        (path / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
        (path / 'normalization.json').write_text(json.dumps(self.normalizer.to_dict()) + '\n')
        weights = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        save_file(weights, str(path / 'model.safetensors'))

    @classmethod
    def from_pretrained(cls, path: str | pathlib.Path) -> FasterVQ:
        """Read a folder that `save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the configuration.
        """
        path = pathlib.Path(path)
        try:
            config = from_mapping(
                FasterVQConfig, _read_json(path / 'config.json'), source=str(path / 'config.json')
            )
        except ConfigError as e:
            raise CheckpointError(f'tokenizer {path}: {e}') from e
        normalizer = ActionNormalizer.from_dict(
            _read_json(path / 'normalization.json'), config.action_dim
        )
        model = VqModel(config)
        try:
            model.load_state_dict(load_file(path / 'model.safetensors'))
        except (OSError, SafetensorError, RuntimeError) as e:
            raise CheckpointError(f'tokenizer {path / "model.safetensors"}: {e}') from e
        return cls(config, normalizer, model)

    # --- actions and codes ------------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, actions: Any) -> Any:
        """Encode physical chunks.

        Args:
            actions: [B, H, D] or [H, D], numpy or torch, SI units.

        Returns:
            int64 codes [B, N_c, C_h, C_a] (without B for a single chunk), same library as given.

        Raises:
            ValueError: another shape, or a value that is not finite.
        """
        array = _to_numpy(actions)
        config = self.config
        if array.ndim not in (2, 3) or array.shape[-2:] != (config.horizon, config.action_dim):
            raise ValueError(
                f'actions: expected [B, {config.horizon}, {config.action_dim}] or one chunk, '
                f'found {list(array.shape)}'
            )
        if not np.isfinite(array).all():
            raise ValueError('actions: not finite')
        batch = array[None] if array.ndim == 2 else array
        normal = torch.from_numpy(self.normalizer.normalize(batch)).to(self._device)
        codes = self.model.quantizer(self.model.autoencoder.encode(normal))[1].transpose(0, 1)
        codes = codes[0] if array.ndim == 2 else codes
        return codes if torch.is_tensor(actions) else codes.cpu().numpy()

    @torch.inference_mode()
    def decode(self, codes: Any, num_levels: int | None = None) -> Any:
        """Decode codes to physical chunks; every code tensor in range decodes.

        No row differs more from the row before than in the data (`limit_steps`).

        Args:
            codes: integer [B, L, C_h, C_a] or [L, C_h, C_a] with 1 <= L <= N_c levels.
            num_levels: use the first levels only (coarser, never undefined).

        Returns:
            float32 [B, H, D] (without B for a single chunk), SI units.

        Raises:
            DecodeError: another shape, a code out of range, or a result that is not finite.
        """
        array = _to_numpy(codes)
        config = self.config
        shaped = array.ndim in (3, 4) and array.shape[-2:] == config.latent_shape
        if not shaped or not array.size or not 1 <= array.shape[-3] <= config.num_levels:
            raise DecodeError(
                f'codes: expected [B, 1..{config.num_levels}, {config.latent_shape[0]}, '
                f'{config.latent_shape[1]}], found {list(array.shape)}'
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise DecodeError(f'codes: expected integers, found {array.dtype}')
        if num_levels is not None and not 1 <= num_levels <= array.shape[-3]:
            raise DecodeError(f'num_levels: expected 1..{array.shape[-3]}, found {num_levels}')
        lowest, highest = array.min(), array.max()
        if lowest < 0 or highest >= config.codebook_size:
            raise DecodeError(
                f'codes: expected 0..{config.codebook_size - 1}, found {lowest}..{highest}'
            )
        batch = array[None] if array.ndim == 3 else array
        levels = torch.from_numpy(batch.astype(np.int64)).to(self._device).transpose(0, 1)
        latents = self.model.quantizer.lookup(levels[:num_levels])
        values = self.model.autoencoder.decode(latents).float().cpu().numpy()
        if not np.isfinite(values).all():
            raise DecodeError('the decoded chunk is not finite')
        actions = self.normalizer.limit_steps(self.normalizer.denormalize(values))
        actions = actions[0] if array.ndim == 3 else actions
        return torch.from_numpy(actions) if torch.is_tensor(codes) else actions

    def tokens(self, codes: Any) -> Any:
        """Flatten codes [B, N_c, C_h, C_a] to [B, N]: level, time slot, action slot."""
        return codes.reshape(*codes.shape[:-3], -1)

    def codes(self, tokens: Any) -> Any:
        """Reshape [B, n] to [B, levels, C_h, C_a]; n may hold fewer than all levels."""
        return tokens.reshape(*tokens.shape[:-1], -1, *self.config.latent_shape)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as e:
        raise CheckpointError(f'{path}: {e}') from e
