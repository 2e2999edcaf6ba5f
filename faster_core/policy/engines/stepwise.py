"""Engines that run the fixed-shape steps of `steps.py` through some compiler."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from faster_core.decoding.blockwise import Block, decode
from faster_core.decoding.sampling import SamplingConfig
from faster_core.policy.engines import steps
from faster_core.policy.engines.base import Engine, ModelInputs, WholeResult
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.rvq import RvqTokenizer

Step = Callable[..., Any]


class StepEngine(Engine):
    """Vision, prefill, block (or velocity) and VQ decoder, each compiled for its one shape."""

    def __init__(self, model: FasterVla | FlowVla, tokenizer: ActionTokenizer) -> None:
        """Compile every step on an example.

        Raises:
            ConfigError: the compiler cannot take this model.
        """
        super().__init__(model, tokenizer)
        self._codes = model.config.head == 'codes'
        self._steps: dict[str, Step] = {}
        self._vq: Step | None = None
        self._whole: tuple[SamplingConfig, Step] | None = None
        self._indices = torch.arange(model.num_blocks if self._codes else 0)[:, None]
        self._indices = self._indices.to(self.device)
        self._keys = self._values = self._valid = self._last = torch.empty(0)
        if isinstance(tokenizer, RvqTokenizer):
            shape = (tokenizer.config.num_levels, 1, *tokenizer.config.latent_shape)
            codes = torch.zeros(shape, dtype=torch.int64, device=self.device)
            self._vq = self._step('vq', lambda _: steps.VqStep(tokenizer.model), (codes,))

    @property
    def can_unroll(self) -> bool:
        """Whether all passes can be one step: strings of codes end only when they end."""
        return not self._codes or isinstance(self.tokenizer, RvqTokenizer)

    @abc.abstractmethod
    def compile(self, step: nn.Module, example: Sequence[torch.Tensor]) -> Step:
        """Return a fast equal of a step for inputs of the example's shapes and types."""

    def _step(
        self, name: str, make: Callable[[nn.Module], nn.Module], example: Sequence[torch.Tensor]
    ) -> Step:
        """Return a compiled step; it is compiled at its first use, when shapes are known."""
        if name not in self._steps:
            step = make(self.model).to(self.device).eval()
            self._steps[name] = self.compile(step, example)
        return self._steps[name]

    # --- Engine ---------------------------------------------------------------------------------

    def vision(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode images; return [1, cameras * tokens, width]."""
        return self._step('vision', steps.VisionStep, (pixels,))(pixels)

    def prefill(self, features: torch.Tensor, inputs: ModelInputs) -> None:
        """Run the language model; copy its keys and values into the buffers of the blocks."""
        present = self._present(inputs)
        arguments = (features, inputs.text_ids, inputs.text_valid, inputs.state, present)
        step = self._step('prefill', steps.PrefillStep, arguments)
        keys, values, self._valid, self._last = step(*arguments)
        length = keys.shape[3]
        capacity = length + (self.model.num_tokens if self._codes else 0)
        shape = (*keys.shape[:3], capacity, keys.shape[4])
        if self._keys.shape != shape:
            self._keys, self._values = keys.new_zeros(shape), values.new_zeros(shape)
        self._keys[:, :, :, :length].copy_(keys)
        self._values[:, :, :, :length].copy_(values)

    def _present(self, inputs: ModelInputs) -> torch.Tensor:
        if inputs.present is not None:
            return inputs.present
        cameras = inputs.pixels.shape[1]
        return torch.ones((1, cameras), dtype=torch.bool, device=self.device)

    def decode(
        self,
        sampling: SamplingConfig,
        *,
        num_blocks: int | None = None,
        noise: torch.Tensor | None = None,
        on_block: Callable[[Block], None] | None = None,
    ) -> torch.Tensor:
        """Return token ids int64 [1, n]."""
        return decode(
            _Blocks(self),
            None,
            sampling=sampling,
            noise=noise,
            num_blocks=num_blocks,
            device=self.device,
            on_block=on_block,
        )

    def integrate(self, noise: torch.Tensor) -> np.ndarray:
        """Return the normalised chunk [1, H, D]."""
        chunk, count = noise.float(), self.model.config.flow_steps
        for k in range(count):
            time = chunk.new_full((1,), 1.0 - k / count)
            arguments = (chunk, time, self._keys, self._values, self._valid, self._last)
            step = self._step('velocity', steps.VelocityStep, arguments)
            chunk = chunk - step(*arguments) / count
        return chunk.float().cpu().numpy()

    def detokenize(self, codes: np.ndarray, num_levels: int | None = None) -> np.ndarray:
        """Return the chunk [H, D], SI units, of codes of one chunk."""
        if self._vq is None:
            return super().detokenize(codes, num_levels)
        return self.tokenizer.decode(codes, num_levels, decoder=self._vq)

    def block_logits(self, inputs: torch.Tensor, block: int) -> torch.Tensor:
        """Return logits [1, block_size, K] of a block; the buffers take its keys and values."""
        arguments = (
            inputs,
            self._indices[block],
            self._keys,
            self._values,
            self._valid,
            self._last,
        )
        step = self._step('block', steps.BlockStep, arguments)
        logits, keys, values = step(*arguments)
        first = self._valid.shape[1] + block * self.model.block_size
        rows = slice(first, first + self.model.block_size)
        self._keys[:, :, :, rows].copy_(keys)
        self._values[:, :, :, rows].copy_(values)
        # A step's results may be buffers that its next run overwrites.
        return logits.clone()

    def run(
        self,
        inputs: ModelInputs,
        sampling: SamplingConfig,
        noise: torch.Tensor | None = None,
    ) -> WholeResult:
        """Run the whole inference as one step.

        Raises:
            ValueError: there is no noise, and it is needed.
        """
        if noise is None:
            if not self._codes or sampling.temperature > 0.0:
                raise ValueError('a flow head or a positive temperature needs noise, found None')
            noise = torch.zeros(1, device=self.device)
        arguments = (
            inputs.pixels,
            inputs.text_ids,
            inputs.text_valid,
            inputs.state,
            self._present(inputs),
            noise,
        )
        if self._whole is None or self._whole[0] != sampling:
            vq = self.tokenizer if self._codes else None
            whole = steps.WholeStep(self.model, vq, sampling).to(self.device).eval()
            self._whole = (sampling, self.compile(whole, arguments))
        chunk, tokens, logits = self._whole[1](*arguments)
        values: np.ndarray = chunk[0].float().cpu().numpy()
        # The next run overwrites what it gives.
        return WholeResult(chunk=values.copy(), tokens=tokens.clone(), logits=logits.clone())


class _Blocks:
    """An engine as the model that `decode` asks for logits."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine, model = engine, engine.model
        self.num_tokens, self.block_size = model.num_tokens, model.block_size
        self.begin_token, self.end_code = model.begin_token, model.end_code
        self.token_offset = model.token_offset

    def block_logits(self, inputs: torch.Tensor, block: int, prefix: object) -> torch.Tensor:
        return self._engine.block_logits(inputs, block)
