"""CUDA graphs: the whole inference, from image tensors to the normalised chunk, is one launch.

A step of block-wise decoding is bound by launches and by reading the weights, not by arithmetic;
a captured graph has no launches. Stages are captured too, for decoding that stops early and for
measuring them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from faster_core.decoding.sampling import gumbel, SamplingConfig
from faster_core.errors import ConfigError
from faster_core.policy.engines import steps
from faster_core.policy.engines.base import ModelInputs, WholeResult
from faster_core.policy.engines.stepwise import Step, StepEngine
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.rvq import RvqTokenizer

# Runs before a capture: libraries choose their kernels and allocate their workspaces there.
WARMUP = 3


class CudaGraphEngine(StepEngine):
    """Fixed buffers, captured kernels."""

    name = 'cuda_graph'

    def __init__(self, model: FasterVla | FlowVla, tokenizer: ActionTokenizer) -> None:
        """Check the device (ConfigError) and capture the VQ decoder."""
        if model.device.type != 'cuda':
            raise ConfigError(f'engine cuda_graph: expected device cuda, found {model.device}')
        super().__init__(model, tokenizer)
        # Strings of variable length end when they end: those are decoded stage by stage.
        self.whole = not self._codes or isinstance(tokenizer, RvqTokenizer)
        self._whole: tuple[SamplingConfig, Step] | None = None

    def compile(self, step: nn.Module, example: Sequence[torch.Tensor]) -> Step:
        """Capture a step.

        Raises:
            ConfigError: it does something that cannot be captured.
        """
        inputs = [tensor.clone() for tensor in example]
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.no_grad():
                with torch.cuda.stream(stream):
                    for _ in range(WARMUP):
                        step(*inputs)
                torch.cuda.current_stream(self.device).wait_stream(stream)
                with torch.cuda.graph(graph):
                    made = step(*inputs)
        except RuntimeError as e:
            raise ConfigError(
                f'engine cuda_graph cannot capture {type(step).__name__} of this model: {e}'
            ) from e

        def run(*arguments: torch.Tensor) -> Any:
            for kept, argument in zip(inputs, arguments, strict=True):
                kept.copy_(argument, non_blocking=True)
            graph.replay()
            return made

        return run

    def run(
        self,
        inputs: ModelInputs,
        sampling: SamplingConfig,
        generator: torch.Generator | None = None,
    ) -> WholeResult:
        """Replay the whole inference."""
        arguments = self._arguments(inputs, sampling, generator)
        if self._whole is None or self._whole[0] != sampling:
            vq = self.tokenizer if self._codes else None
            whole = steps.WholeStep(self.model, vq, sampling).to(self.device).eval()
            self._whole = (sampling, self.compile(whole, arguments))
        chunk, tokens, logits = self._whole[1](*arguments)
        values: np.ndarray = chunk[0].float().cpu().numpy()
        return WholeResult(chunk=values, tokens=tokens, logits=logits)

    def _arguments(
        self,
        inputs: ModelInputs,
        sampling: SamplingConfig,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, ...]:
        model = self.model
        if self._codes:
            top_k = min(sampling.top_k, model.layout.codebook_size)
            shape = (model.num_blocks, 1, model.block_size, top_k)
            if sampling.temperature == 0.0:
                noise = torch.zeros(1, device=self.device)
            else:
                noise = gumbel(shape, generator, self.device)
        else:
            noise = torch.randn(
                (1, model.horizon, model.action_dim),
                generator=generator,
                device=self.device,
                dtype=self.dtype,
            )
        present = self._present(inputs)
        return (
            inputs.pixels,
            inputs.text_ids,
            inputs.text_valid,
            inputs.state,
            present,
            noise,
        )
