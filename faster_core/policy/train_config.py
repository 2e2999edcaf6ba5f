"""How FASTerVLA is trained: every choice by name."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from faster_core.config import from_mapping
from faster_core.errors import ConfigError

PRECISIONS = ('float32', 'bfloat16')
# Fields that change how fast a training runs or what it tells, never what comes out of it: a run
# may be resumed with other ones.
FREE = ('workers', 'data_workers', 'profile')


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage: an AdamW and a cosine of its own over the parameters it names.

    A pattern is the beginning of a parameter's name up to a dot (`expert`,
    `backbone.vlm.language_model`), or has wildcards (`*.layers.0.*`).

    Attributes:
        steps: optimiser steps.
        learning_rate: peak; None: the training's.
        warmup: share of the stage that warms up; None: the training's.
        train: patterns of what is trained.
        freeze: patterns of what is not, although `train` names it.
    """

    steps: int
    learning_rate: float | None = None
    warmup: float | None = None
    train: tuple[str, ...] = ('*',)
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a stage without steps or with patterns that are no list (ConfigError)."""
        _check_whole(self, ('steps',))
        _check_share('stages: warmup', 0.0 if self.warmup is None else self.warmup)
        if self.learning_rate is not None:
            _check_rate('stages: learning_rate', self.learning_rate)
        for name in ('train', 'freeze'):
            value = getattr(self, name)
            if not _are_names(value):
                raise ConfigError(f'stages: {name}: expected a list of patterns, found {value!r}')
            object.__setattr__(self, name, tuple(value))
        if not self.train:
            raise ConfigError('stages: train: expected at least one pattern')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraFields:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on linear layers; needs `peft`.

    The weights under them, and all else of a pretrained model, stay as they are. A saved
    checkpoint holds the sums.

    Attributes:
        rank: of the two matrices.
        alpha: their product is scaled by alpha / rank.
        dropout: of the adapter's input; drawn in every process for itself.
        targets: last names of the linear layers.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj', 'o_proj')

    def __post_init__(self) -> None:
        """Refuse numbers out of range (ConfigError)."""
        _check_whole(self, ('rank',))
        if not 0 <= self.dropout < 1:
            raise ConfigError(f'lora: dropout: expected 0 <= share < 1, found {self.dropout!r}')
        if not _are_names(self.targets) or not len(self.targets):
            raise ConfigError(f'lora: targets: expected a list of names, found {self.targets!r}')
        object.__setattr__(self, 'targets', tuple(self.targets))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyTrainConfig:
    """How FASTerVLA is trained.

    Attributes:
        embodiment: file of the robot.
        model: fields of `PolicyConfig`. `pretrained` fills in backbone, `vlm` and image
            statistics; a tokenizer of variable length fills in `max_action_tokens`.
        steps: optimiser steps of a training without `stages`.
        stages: `StageConfig`s, one after the other; empty: one that trains everything.
        max_minutes: the schedule also ends after so many minutes of training, whichever is first;
            0 for no limit. Only without `stages`.
        workers: processes that are started on this machine; under `torchrun` or `accelerate
            launch` their number counts.
        batch_size: samples per optimiser step, over all processes.
        gradient_accumulation: parts that the batch of a process is cut into, one after the other.
        learning_rate, weight_decay, warmup, clip: AdamW with a cosine; `warmup` is a share of the
            stage.
        precision: 'float32', or 'bfloat16' (autocast; weights, optimiser and losses stay in
            float32).
        gradient_checkpointing: compute the layers again in the backward pass: less memory.
        fsdp: shard weights, gradients and optimiser over the processes.
        lora: `LoraFields`; None: no adapters.
        level_weights: weight of the cross-entropy of each level, coarse to fine (ours); further
            levels have the last one.
        end_weight: weight of `<EoBlk>`'s.
        auxiliary: weights of the regressions that only training has (`AuxiliaryWeights`).
        backbone_first: share of the training in which only these regressions are trained: without
            the expert a step costs half, and codes mean little to eyes that see nothing yet. Only
            without `stages`.
        max_shift, colour: image augmentation, see `augment`.
        state_noise: standard deviation added to the normalised state.
        camera_dropout: share of the samples that lack one camera. More than 0: the policy then
            takes observations that do (`PolicyConfig.missing_cameras`).
        paraphrases: instruction -> other wordings, used in `paraphrase_share` of the samples.
        start_share: share of the samples that are the first `start_rows` rows of an episode, where
            only what is seen says which way to go: later the state tells it, too.
        start_rows: of every episode.
        held_out: every n-th episode, counted instruction by instruction, is for validation.
        ema_decay: of the averaged weights that are saved; 0: the weights themselves.
        seed: of weights and of every draw. A draw follows from seed, step and place in the batch.
        data_workers: processes per training process that prepare batches ahead; 0: none, batches
            are made when they are needed.
        log_every, save_every: steps between lines of metrics, and between checkpoints.
        profile: so many steps of a run are traced with torch.profiler.
    """

    embodiment: str
    model: dict[str, Any]
    steps: int = 0
    stages: tuple[StageConfig, ...] = ()
    max_minutes: float = 0.0
    workers: int = 1
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    precision: str = 'float32'
    gradient_checkpointing: bool = False
    fsdp: bool = False
    lora: LoraFields | None = None
    level_weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    end_weight: float = 0.05
    auxiliary: dict[str, float] = dataclasses.field(default_factory=dict)
    backbone_first: float = 0.0
    max_shift: int = 1
    colour: float = 0.15
    state_noise: float = 0.01
    camera_dropout: float = 0.0
    paraphrases: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    paraphrase_share: float = 0.3
    start_share: float = 0.0
    start_rows: int = 2
    held_out: int = 30
    ema_decay: float = 0.999
    seed: int = 0
    data_workers: int = 2
    log_every: int = 50
    save_every: int = 1000
    profile: int = 0

    def __post_init__(self) -> None:
        """Read stages and lora; refuse numbers out of range (ConfigError)."""
        stages = tuple(
            s if isinstance(s, StageConfig) else from_mapping(StageConfig, s, source='stages')
            for s in self.stages
        )
        object.__setattr__(self, 'stages', stages)
        if self.lora is not None and not isinstance(self.lora, LoraFields):
            object.__setattr__(self, 'lora', from_mapping(LoraFields, self.lora, source='lora'))
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f'precision: expected one of {", ".join(PRECISIONS)}, found {self.precision!r}'
            )
        _check_whole(
            self,
            ('workers', 'batch_size', 'gradient_accumulation', 'start_rows', 'held_out')
            + (('log_every', 'save_every') if stages else ('log_every', 'save_every', 'steps')),
        )
        for name in ('camera_dropout', 'ema_decay', 'backbone_first', 'warmup', 'start_share'):
            _check_share(name, getattr(self, name))
        _check_rate('learning_rate', self.learning_rate)
        if self.data_workers < 0 or self.profile < 0:
            raise ConfigError('data_workers and profile: expected >= 0')
        if stages and (self.steps or self.max_minutes or self.backbone_first):
            raise ConfigError('steps, max_minutes and backbone_first: only without stages')
        self.check_shares(self.workers)

    def check_shares(self, num_processes: int) -> None:
        """Refuse a batch that the processes cannot share (ConfigError)."""
        parts = num_processes * self.gradient_accumulation
        if self.batch_size % parts:
            raise ConfigError(
                f'batch_size {self.batch_size} is not a multiple of workers {num_processes} x '
                f'gradient_accumulation {self.gradient_accumulation}'
            )

    @property
    def plan(self) -> tuple[StageConfig, ...]:
        """The stages, complete: learning rate and warm-up filled in."""
        stages = self.stages or (StageConfig(steps=self.steps),)
        return tuple(
            dataclasses.replace(
                s,
                learning_rate=self.learning_rate if s.learning_rate is None else s.learning_rate,
                warmup=self.warmup if s.warmup is None else s.warmup,
            )
            for s in stages
        )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(s.steps for s in self.plan)

    def to_dict(self) -> dict[str, Any]:
        """Return what a resumed run must share: all but `FREE`."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in FREE}


def _are_names(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(v, str) for v in value)


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f'{name}: expected 0 <= number <= 1, found {value!r}')


def _check_rate(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f'{name}: expected a number >= 0, found {value!r}')


def _check_whole(config: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or value < 1:
            raise ConfigError(f'{name}: expected a whole number >= 1, found {value!r}')
