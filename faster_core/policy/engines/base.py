"""What an engine does: vision, prefill, decoding and detokenizing, stage by stage."""

from __future__ import annotations

import abc
from collections.abc import Callable
import dataclasses
from typing import Any, ClassVar

import numpy as np
import torch

from faster_core.decoding.blockwise import Block
from faster_core.decoding.sampling import SamplingConfig
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.interface import ActionTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """One observation as the model takes it, batch 1.

    Attributes:
        pixels: uint8 [1, cameras, size, size, 3].
        text_ids, text_valid: int64 and bool [1, L].
        state: float [1, S] or int64 [1, M], see `inputs.state_input`.
        present: bool [1, cameras], or None if all cameras are there.
    """

    pixels: torch.Tensor
    text_ids: torch.Tensor
    text_valid: torch.Tensor
    state: torch.Tensor
    present: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeResult:
    """What one uninterrupted inference made.

    Attributes:
        chunk: normalised, [H, D].
        tokens: ids int64 [1, N], empty of a flow head.
        logits: [blocks, block_size, K] they were chosen from.
    """

    chunk: np.ndarray
    tokens: torch.Tensor
    logits: torch.Tensor


class Engine(abc.ABC):
    """Runs a model on one observation at a time. Not thread-safe.

    Attributes:
        name: value of the `engine` parameter.
        model: what is run.
        device: where the inputs go.
        whole: whether `run` does everything at once, without stages to be timed.
    """

    name: ClassVar[str]
    whole: bool = False

    def __init__(self, model: FasterVla | FlowVla, tokenizer: ActionTokenizer) -> None:
        """Prepare to run a model that is on its device, in its precision."""
        self.model, self.tokenizer = model, tokenizer
        self.device, self.dtype = model.device, model.dtype

    @abc.abstractmethod
    def vision(self, pixels: torch.Tensor) -> Any:
        """Encode images uint8 [1, cameras, size, size, 3]; what `prefill` takes."""

    @abc.abstractmethod
    def prefill(self, features: Any, inputs: ModelInputs) -> None:
        """Run the backbone's language model and keep what it made for `decode`."""

    @abc.abstractmethod
    def decode(
        self,
        sampling: SamplingConfig,
        *,
        num_blocks: int | None = None,
        noise: torch.Tensor | None = None,
        on_block: Callable[[Block], None] | None = None,
    ) -> torch.Tensor:
        """Return token ids int64 [1, n] (`decoding.blockwise.decode`)."""

    @abc.abstractmethod
    def integrate(self, noise: torch.Tensor) -> np.ndarray:
        """Return the normalised chunk [1, H, D] of a flow head from noise (`drawing.draw`)."""

    def detokenize(self, codes: np.ndarray, num_levels: int | None = None) -> np.ndarray:
        """Return the chunk [H, D], SI units, of codes of one chunk."""
        if num_levels is None:
            return self.tokenizer.decode(codes)
        return self.tokenizer.decode(codes, num_levels=num_levels)

    def run(
        self,
        inputs: ModelInputs,
        sampling: SamplingConfig,
        noise: torch.Tensor | None = None,
    ) -> WholeResult:
        """Do everything from images to the normalised chunk, if `whole`.

        Args:
            inputs: the observation.
            sampling: how codes are chosen.
            noise: of `drawing.draw` with that sampling.
        """
        raise NotImplementedError(f'engine {self.name} works stage by stage')
