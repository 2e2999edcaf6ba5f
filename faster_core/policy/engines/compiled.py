"""torch.compile: every step a compiled function of fixed shapes."""

from __future__ import annotations

from collections.abc import Sequence
import shutil

import torch
from torch import nn

from faster_core.errors import ConfigError
from faster_core.policy.engines.stepwise import Step, StepEngine
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer


class CompileEngine(StepEngine):
    """Inductor; the first inference takes up to minutes."""

    name = 'compile'

    def __init__(self, model: FasterVla | FlowVla, tokenizer: ActionTokenizer) -> None:
        """Check for the compiler that Inductor calls on a CPU (ConfigError)."""
        if model.device.type == 'cpu' and not (shutil.which('g++') or shutil.which('clang++')):
            raise ConfigError('engine compile: on a CPU it needs a C++ compiler, g++ or clang++')
        super().__init__(model, tokenizer)

    def compile(self, step: nn.Module, example: Sequence[torch.Tensor]) -> Step:
        """Compile for fixed shapes."""
        return torch.compile(step, dynamic=False)
