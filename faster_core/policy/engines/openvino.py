"""OpenVINO: the whole inference, and every step, converted once and run by its CPU plugin.

In float32. As one graph it is spared the copies of keys and values between its passes. Steps are
converted when they are used: for decoding that stops early and for measuring them.
"""

from __future__ import annotations

from collections.abc import Sequence
import warnings

import torch
from torch import nn

from faster_core.errors import ConfigError
from faster_core.policy.engines.stepwise import Step, StepEngine
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer

# Passes that are unrolled into one graph at most: it takes long to convert.
MOST_PASSES = 16


class OpenVinoEngine(StepEngine):
    """The fastest on a CPU; an installation with the extra `openvino` has it."""

    name = 'openvino'

    def __init__(self, model: FasterVla | FlowVla, tokenizer: ActionTokenizer) -> None:
        """Check that it can run here (ConfigError)."""
        try:
            import openvino
        except ImportError as e:
            raise ConfigError(
                f'engine openvino: {e}; it comes with `pip install .[openvino]`'
            ) from e
        if model.device.type != 'cpu' or model.dtype != torch.float32:
            raise ConfigError(
                f'engine openvino: expected device cpu and dtype float32, found {model.device} '
                f'and {model.dtype}'
            )
        self._openvino, self._core = openvino, openvino.Core()
        super().__init__(model, tokenizer)
        passes = model.num_blocks if self._codes else model.config.flow_steps
        self.whole = self.can_unroll and passes <= MOST_PASSES

    def compile(self, step: nn.Module, example: Sequence[torch.Tensor]) -> Step:
        """Trace, convert and compile for fixed shapes."""
        try:
            with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
                # Tracing says of every shape that it becomes a constant, as it should.
                warnings.simplefilter('ignore', torch.jit.TracerWarning)
                warnings.simplefilter('ignore', FutureWarning)
                warnings.simplefilter('ignore', DeprecationWarning)
                copies = tuple(tensor.clone() for tensor in example)
                traced = torch.jit.trace(step, copies, strict=False, check_trace=False)
                converted = self._openvino.convert_model(traced, example_input=copies)
            converted.reshape({i: list(t.shape) for i, t in enumerate(example)})
        except Exception as e:  # whatever tracing or conversion stumbles over
            raise ConfigError(f'engine openvino cannot run {type(step).__name__}: {e}') from e
        compiled = self._core.compile_model(
            converted,
            'CPU',
            {
                'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_PRECISION_HINT': 'f32',
                'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            },
        )
        request = compiled.create_infer_request()
        count = len(compiled.outputs)
        tensor = self._openvino.Tensor

        def run(*arguments: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
            for i, argument in enumerate(arguments):
                shared = tensor(argument.contiguous().numpy(), shared_memory=True)
                request.set_input_tensor(i, shared)
            request.infer()
            # Views of what the next call overwrites: users copy what they keep.
            made = [torch.from_numpy(request.get_output_tensor(i).data) for i in range(count)]
            return made[0] if count == 1 else made

        return run
