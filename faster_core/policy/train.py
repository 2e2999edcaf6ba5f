"""Training of FASTerVLA by imitation, on one or more processes.

One process, `workers` of them on one machine, or as many as `torchrun` or `accelerate launch`
started: all train on the same joint batch. A resumed run continues as if it had not stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import hashlib
import pathlib
import time
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import FullyShardedDataParallelPlugin
import numpy as np
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.policy import checkpoint, held_out
from faster_core.policy.auxiliary import Auxiliary
from faster_core.policy.batches import Batches, joint_generator
from faster_core.policy.dataset import build_cache, Folders, folders_of, open_cache, Samples
from faster_core.policy.loader import Prefetched, StepBatches
from faster_core.policy.stages import check_patterns
from faster_core.policy.train_config import PolicyTrainConfig, StageConfig
from faster_core.policy.train_parts import (
    make_auxiliary,
    make_parts,
    read_model_config,
    read_tokenizer,
)
from faster_core.policy.trainee import Named, Trainee
from faster_core.training.ema import WeightAverage
from faster_core.training.profile import StepProfiler
from faster_core.training.run_folder import (
    optimizer_tensors,
    pack,
    restore_optimizer,
    RunFolder,
    unpack,
)
from faster_core.training.schedules import cosine_schedule
from faster_core.training.sharding import like, whole
from faster_core.training.spawn import is_launched, run_processes
from faster_core.training.throughput import Throughput

# The first process prepares the samples while the others wait.
_PATIENCE = datetime.timedelta(hours=6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    config: PolicyTrainConfig
    demos: tuple[str, ...]
    tokenizer: str
    out: str
    metadata: dict[str, Any]


def train(
    config: PolicyTrainConfig,
    demos: Folders,
    tokenizer: str | pathlib.Path,
    out: str | pathlib.Path,
    metadata: dict[str, Any] | None = None,
) -> Iterator[dict[str, float]]:
    """Train, resuming if `out` holds a state; `out/checkpoint` is the result.

    Args:
        config: what and how.
        demos: folder of episodes, or several.
        tokenizer: folder of a tokenizer of any kind, or its run folder.
        out: run folder; all processes must see the same one.
        metadata: stands in the checkpoint's metadata.json under 'train'.

    Yields:
        Rows with 'step' and, on logged steps, losses.

    Raises:
        ConfigError: the demonstrations, the tokenizer and the embodiment do not belong together,
            or `out` was begun with others.
        FasterVlaError: a process died.
    """
    job = _Job(
        config=config,
        demos=folders_of(demos),
        tokenizer=str(tokenizer),
        out=str(out),
        metadata=metadata or {},
    )
    if is_launched() or config.workers == 1:
        yield from _run(job)
        return
    _prepare(job)
    yield from run_processes(_run, (job,), config.workers)


def _prepare(job: _Job) -> None:
    """Create or check the run folder, and write the samples."""
    RunFolder(job.out, job.config.to_dict())
    embodiment = Embodiment.load(job.config.embodiment)
    size = read_model_config(job.config).image_size
    tokenizer = read_tokenizer(job.tokenizer, embodiment)
    build_cache(
        job.demos,
        pathlib.Path(job.out) / 'cache',
        embodiment,
        tokenizer,
        size,
        tokenizer_checksum=_checksum(pathlib.Path(job.tokenizer)),
    )


def _checksum(tokenizer: pathlib.Path) -> str:
    """Return a checksum (hex) of the files that `read_tokenizer` reads."""
    result = tokenizer / 'checkpoint'
    digest = hashlib.sha256()
    for file in sorted((result if result.is_dir() else tokenizer).iterdir()):
        if file.suffix in ('.json', '.safetensors'):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f'{file.name} {content}\n'.encode())
    return digest.hexdigest()[:16]


def _run(job: _Job) -> Iterator[dict[str, float]]:
    config = job.config
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # or several processes on CPUs are not seen as such
        fsdp_plugin=_sharding() if config.fsdp else None,
        kwargs_handlers=[
            # Not every stage, and not every head, uses every parameter.
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
    )
    config.check_shares(accelerator.num_processes)
    if config.fsdp and accelerator.num_processes == 1:
        raise ConfigError('fsdp: there is one process, nothing to shard among')
    if accelerator.is_main_process:
        _prepare(job)
    accelerator.wait_for_everyone()
    training = _Training(job, accelerator)
    first = 0
    for stage in config.plan:
        yield from training.stage(stage, first)
        first += stage.steps
        accelerator.free_memory()
        accelerator.wait_for_everyone()
    training.profiler.stop()
    if accelerator.is_main_process:
        training.folder.plot()
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        accelerator.end_training()


def _sharding() -> FullyShardedDataParallelPlugin:
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy='transformer_based_wrap',
        cpu_ram_efficient_loading=False,
    )


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """Where a training is.

    Attributes:
        step: optimiser steps done.
        elapsed: seconds of training, also before a resume.
        share: of the schedule of this stage that is done.
    """

    step: int
    elapsed: float
    share: float


class _Training:
    """What all stages share."""

    def __init__(self, job: _Job, accelerator: Accelerator) -> None:
        self.job, self.config, self.accelerator = job, job.config, accelerator
        config = job.config
        self.folder = RunFolder(job.out, config.to_dict())
        self.samples: Samples = open_cache(self.folder.path / 'cache')
        held = self.samples.held_out(config.held_out)
        self.pool, self.held = np.flatnonzero(~held), np.flatnonzero(held)
        if not len(self.pool):
            raise ConfigError(f'held_out {config.held_out} leaves no episode to train on')
        embodiment = Embodiment.load(config.embodiment)
        self.parts = make_parts(
            config,
            read_model_config(config),
            read_tokenizer(job.tokenizer, embodiment),
            self.samples,
            self.pool,
        )
        self.auxiliary: Auxiliary = make_auxiliary(config, self.parts, self.samples)
        # Of all stages before the first step: hours later would be late to learn of a typo.
        names = [n for n, _ in Named(self.parts.model, self.auxiliary).named_parameters()]
        for stage in config.plan:
            check_patterns(names, stage)
        self.batches = Batches(
            self.samples,
            self.parts,
            max_shift=config.max_shift,
            colour=config.colour,
            state_noise=config.state_noise,
            camera_dropout=config.camera_dropout,
            paraphrases=config.paraphrases,
            paraphrase_share=config.paraphrase_share,
        )
        self.profiler = StepProfiler(
            self.folder.path / 'profile', config.profile if accelerator.is_main_process else 0
        )

    def stage(self, stage: StageConfig, first: int) -> Iterator[dict[str, float]]:
        """Train a stage that begins after `first` steps, or what is left of it."""
        config, accelerator = self.config, self.accelerator
        trainee = Trainee(config, stage, self.parts.model, self.auxiliary)
        state = self.folder.load_state()
        now = _Progress(step=first, elapsed=0.0, share=0.0)
        if state:
            now.step, now.elapsed = max(first, state[0]), state[2]['elapsed']
            if state[0] >= first + stage.steps:
                return
            trainee.load_state_dict(unpack(state[1], 'model'))
        self._advance(now, stage, first)
        optimizer = torch.optim.AdamW(
            [p for p in trainee.parameters() if p.requires_grad],
            lr=stage.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.95),
            fused=not config.fsdp,
        )
        trainee._no_split_modules = _layer_classes(trainee)
        wrapped, optimizer = accelerator.prepare(trainee, optimizer)
        trainee = accelerator.unwrap_model(wrapped)
        average = None
        if accelerator.is_main_process or config.fsdp:
            average = WeightAverage(trainee, config.ema_decay)
        if state:
            self._restore(state, trainee, average, optimizer if state[0] > first else None)
        loader = Prefetched(
            StepBatches(
                config,
                self.batches,
                self.pool,
                rank=accelerator.process_index,
                num_processes=accelerator.num_processes,
            ),
            range(now.step, first + stage.steps),
            config.data_workers,
            accelerator.device,
        )
        start = time.perf_counter() - now.elapsed
        looked = Throughput(now.step, loader)
        # Parts are made while the last step still runs; a finished run needs none.
        steps = iter(loader) if now.share < 1.0 else iter(())
        for parts in steps:
            self.profiler.step()
            with_expert = now.share >= config.backbone_first
            losses = self._gradients(wrapped, parts, now.step, with_expert=with_expert)
            norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip)
            rate = cosine_schedule(now.share, warmup=stage.warmup, peak=stage.learning_rate)
            for group in optimizer.param_groups:
                group['lr'] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update(trainee)
            now.step += 1
            now.elapsed = self._longest(time.perf_counter() - start)
            self._advance(now, stage, first)
            ended = now.share >= 1.0
            row: dict[str, float] = {'step': now.step, 'progress': self._overall(now)}
            if now.step % config.log_every == 0 or ended:
                values = self._mean(losses | {'gradient_norm': whole({'': norm})['']})
                values |= {'learning_rate': rate, **looked.since(now.step, config.batch_size)}
                row |= values
                if accelerator.is_main_process:
                    self.folder.log(now.step, **values)
            if now.step % config.save_every == 0 or ended:
                with looked.aside():
                    row |= self._save(now, trainee, average, optimizer)
            yield row
            if ended:
                break

    def _gradients(
        self,
        wrapped: nn.Module,
        parts: list[Mapping[str, torch.Tensor]],
        step: int,
        *,
        with_expert: bool,
    ) -> dict[str, torch.Tensor]:
        """Add up the gradients of the parts of a step; return the mean losses."""
        config, accelerator = self.config, self.accelerator
        wrapped.train()
        seed = int(joint_generator(config.seed, step).integers(2**31))
        sums: dict[str, torch.Tensor] = {}
        for i, part in enumerate(parts):
            # One draw of the jitter for all parts and processes.
            torch.manual_seed(seed)
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                with torch.autocast(
                    accelerator.device.type,
                    torch.bfloat16,
                    enabled=config.precision == 'bfloat16',
                ):
                    losses = wrapped(part, with_expert)
                accelerator.backward(losses['total'] / len(parts))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
        return sums

    def _mean(self, values: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return the means over the processes."""
        device = self.accelerator.device
        stacked = torch.stack([v.to(device, torch.float32) for v in values.values()])
        mean = self.accelerator.reduce(stacked, reduction='mean').tolist()
        return {'loss' if k == 'total' else k: v for k, v in zip(values, mean, strict=True)}

    def _longest(self, elapsed: float) -> float:
        """Return the longest time any process has run, if that decides anything."""
        if not self.config.max_minutes or self.accelerator.num_processes == 1:
            return elapsed
        mine = torch.tensor([elapsed], device=self.accelerator.device)
        return float(self.accelerator.gather(mine).max())

    def _advance(self, now: _Progress, stage: StageConfig, first: int) -> None:
        minutes = self.config.max_minutes
        by_time = now.elapsed / 60.0 / minutes if minutes else 0.0
        now.share = min(1.0, max((now.step - first) / stage.steps, by_time))

    def _overall(self, now: _Progress) -> float:
        return now.share if not self.config.stages else now.step / self.config.total_steps

    def _restore(
        self,
        state: tuple[int, dict[str, torch.Tensor], dict[str, Any]],
        trainee: nn.Module,
        average: WeightAverage | None,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        _, tensors, extra = state
        if average is not None:
            average.values = {
                k: like(v, average.values[k]) for k, v in unpack(tensors, 'average').items()
            }
            average.updates = extra['updates']
        if optimizer is None:
            return
        trained = [p for p in trainee.parameters() if p.requires_grad]
        restore_optimizer(
            optimizer,
            {
                key: like(value, trained[int(key.split('.')[0])]) if value.ndim else value
                for key, value in unpack(tensors, 'optimizer').items()
            },
        )

    def _save(
        self,
        now: _Progress,
        trainee: nn.Module,
        average: WeightAverage | None,
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, float]:
        """Write state and checkpoint; return how good the averaged weights are."""
        if average is None:
            return {}
        main = self.accelerator.is_main_process
        tensors = pack(
            model=whole(trainee.state_dict(), keep=main),
            average=whole(average.values, keep=main),
            optimizer=whole(optimizer_tensors(optimizer), keep=main),
        )
        if not main:
            return {}
        parts, config, device = self.parts, self.config, self.accelerator.device
        parts.model.load_state_dict(trainee.plain(unpack(tensors, 'average')))
        parts.model.to(device)
        report = held_out.measure(parts, self.batches, self.held, device=device)
        self.folder.log(now.step, **report)
        metadata = {
            **self.job.metadata,
            'steps': now.step,
            'samples': now.step * config.batch_size,
            'minutes': round(now.elapsed / 60, 1),
            'processes': self.accelerator.num_processes,
            'episodes': int(self.samples.episode[-1]) + 1,
            **report,
        }
        checkpoint.save(self.folder.path / 'checkpoint', parts, {'train': metadata})
        parts.model.to('cpu')
        extra = {'updates': average.updates, 'elapsed': now.elapsed}
        self.folder.save_state(now.step, tensors, extra)
        return report


def _layer_classes(module: nn.Module) -> list[str]:
    """Return the classes of layers that FSDP gathers one by one."""
    layers = (m for m in module.modules() if isinstance(m, GradientCheckpointingLayer))
    return sorted({type(layer).__name__ for layer in layers})
