"""CUDA graphs: the whole inference, from image tensors to the normalised chunk, is one launch.

A step of block-wise decoding is bound by launches and by reading the weights, not by arithmetic;
a captured graph has no launches. Stages are captured too, for decoding that stops early and for
measuring them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from faster_core.errors import ConfigError
from faster_core.policy.engines.stepwise import Step, StepEngine
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer

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
        self.whole = self.can_unroll

    def compile(self, step: nn.Module, example: Sequence[torch.Tensor]) -> Step:
        """Capture a step.

        Raises:
            ConfigError: it does something that cannot be captured.
        """
        inputs = [tensor.clone() for tensor in example]
        # Given to the capture too: torch's own stream stays on the device of the first capture.
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self.device), torch.no_grad():
                with torch.cuda.stream(stream):
                    for _ in range(WARMUP):
                        step(*inputs)
                torch.cuda.current_stream(self.device).wait_stream(stream)
                with torch.cuda.graph(graph, stream=stream):
                    made = step(*inputs)
        except RuntimeError as e:
            raise ConfigError(
                f'engine cuda_graph cannot capture {type(step).__name__} of this model: {e}'
            ) from e

        return _Recorded(step, graph, inputs, made)


class _Recorded:
    """A step that was captured, and all that its kernels read and write.

    Kernels know addresses, not tensors: of the weights, of the step's own buffers, of inputs and
    results. Whatever of these is freed is given to the next tensor that is made.
    """

    def __init__(
        self,
        step: nn.Module,
        graph: torch.cuda.CUDAGraph,
        inputs: Sequence[torch.Tensor],
        made: Any,
    ) -> None:
        self._step, self._graph = step, graph
        self._inputs, self._made = inputs, made

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Run; the next run overwrites what this one returns."""
        for kept, argument in zip(self._inputs, arguments, strict=True):
            kept.copy_(argument, non_blocking=True)
        self._graph.replay()
        return self._made
