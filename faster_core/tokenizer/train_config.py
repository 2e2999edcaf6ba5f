"""How a tokenizer is trained: every choice by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from faster_core.errors import ConfigError
from faster_core.tokenizer.presets import PRESETS
from faster_core.tokenizer.registry import TOKENIZERS
from faster_core.tokenizer.rvq import RvqTokenizer

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
LEARNED = tuple(k for k, cls in TOKENIZERS.items() if issubclass(cls, RvqTokenizer))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTrainConfig:
    """How a tokenizer is trained.

    Attributes:
        tokenizer: 'faster', or a learned rival: 'minivla', 'vqvla'.
        preset: of `faster_core.tokenizer.presets`, for 'faster'; its fields are the defaults of
            `model`.
        model: fields of the tokenizer's configuration beside horizon and group sizes.
        robots: name of a data set -> fields that differ for it (`slots_per_group`, ...). Several
            data sets share transformer, latent projections and codebooks.
        weights: name of a data set -> its share of every batch; equal if left out.
        steps, batch_size, learning_rate, weight_decay, warmup, clip: AdamW with a cosine;
            `warmup` is a share of the steps; `batch_size` is that of all processes together.
        linear_rate: learning rate of the linear path (`FasterVQConfig.linear_path`), as a share of
            `learning_rate` (ours): it starts where it is good already.
        time, dct, commitment: weights of the three losses.
        dct_axis: 'time', or 'time_and_action' for a two-dimensional transform.
        precision: 'float32' or 'bfloat16' (quantiser and losses stay in float32).
        offset_noise: chunks are shifted by a constant drawn with this standard deviation
            (normalised units), so that codes cover more than the demonstrations' exact poses.
        level_dropout: share of the steps that decode from fewer levels.
        continuous: share of the steps, at the start, without quantisation (ours): the codebooks
            are then filled from latents that mean something.
        initial_chunks: so many chunks fill the codebooks.
        ema_decay: of the averaged weights that are saved.
        seed: of weights, batches and dropout.
        log_every: steps between lines of metrics.
        save_every: steps between states to resume from, each with a look at held-out chunks.
    """

    tokenizer: str = 'faster'
    preset: str | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    robots: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    linear_rate: float = 0.1
    time: float = 1.0
    dct: float = 1.0
    commitment: float = 0.25
    dct_axis: str = 'time'
    precision: str = 'float32'
    offset_noise: float = 0.05
    level_dropout: float = 0.1
    continuous: float = 0.1
    initial_chunks: int = 4096
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 100
    save_every: int = 1000

    def __post_init__(self) -> None:
        """Refuse unknown names and numbers out of range (ConfigError)."""
        known = {
            'tokenizer': LEARNED,
            'preset': (None, *PRESETS),
            'precision': tuple(PRECISIONS),
            'dct_axis': ('time', 'time_and_action'),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ConfigError(
                    f'{name}: expected one of {", ".join(map(str, values))}, '
                    f'found {getattr(self, name)!r}'
                )
        if self.preset is not None and self.tokenizer != 'faster':
            raise ConfigError(f'preset {self.preset!r}: only for faster, not {self.tokenizer}')
        for name in ('steps', 'batch_size', 'log_every', 'save_every'):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f'{name}: expected a whole number >= 1, found {value!r}')
        if not 0 <= self.continuous < 1:
            raise ConfigError(f'continuous: expected 0 <= share < 1, found {self.continuous!r}')
        if bad := {k: w for k, w in self.weights.items() if not w > 0}:
            raise ConfigError(f'weights: expected positive numbers, found {bad}')
