"""Training of FASTerVLA by imitation, on one or more processes.

On CPUs several processes with one thread each are faster than one with several threads; their
gradients are averaged (`torch.distributed`, gloo). Every random choice follows from (seed, rank,
step), so a resumed run continues as if it had not stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import multiprocessing as mp
import os
import pathlib
import queue as queues
import time
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from faster_core.config import from_mapping
from faster_core.decoding.blockwise import decode
from faster_core.decoding.sampling import SamplingConfig
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, FasterVlaError
from faster_core.policy import checkpoint
from faster_core.policy.auxiliary import Auxiliary, AuxiliaryWeights
from faster_core.policy.batches import Batches, LABELS
from faster_core.policy.config import PolicyConfig
from faster_core.policy.dataset import build_cache, open_cache, Samples
from faster_core.policy.state import StateNormalizer
from faster_core.policy.text import TextEncoder
from faster_core.tokenizer.faster_vq import FasterVQ
from faster_core.training.ema import WeightAverage
from faster_core.training.run_folder import (
    optimizer_tensors,
    pack,
    restore_optimizer,
    RunFolder,
    unpack,
)
from faster_core.training.schedules import cosine_schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyTrainConfig:
    """How FASTerVLA is trained.

    Attributes:
        embodiment: file of the robot.
        model: fields of `PolicyConfig`.
        steps: optimiser steps.
        max_minutes: the schedule also ends after so many minutes of training, whichever is first;
            0 for no limit.
        workers: processes; each takes batch_size / workers samples per step.
        batch_size, learning_rate, weight_decay, warmup, clip: AdamW with a cosine; `warmup` is a
            share of the training.
        level_weights: weight of the cross-entropy of each level, coarse to fine (ours).
        end_weight: weight of `<EoBlk>`'s.
        auxiliary: weights of the regressions that only training has (`AuxiliaryWeights`).
        backbone_first: share of the training in which only these regressions are trained: without
            the expert a step costs half, and codes mean little to eyes that see nothing yet.
        max_shift, colour: image augmentation, see `augment`.
        state_noise: standard deviation added to the normalised state.
        paraphrases: instruction -> other wordings, used in `paraphrase_share` of the samples.
        held_out: every n-th episode is for validation.
        ema_decay: of the averaged weights that are saved.
        log_every, save_every: steps between lines of metrics, and between checkpoints.
    """

    embodiment: str
    model: dict[str, Any]
    steps: int
    max_minutes: float = 0.0
    workers: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    level_weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    end_weight: float = 0.05
    auxiliary: dict[str, float] = dataclasses.field(default_factory=dict)
    backbone_first: float = 0.0
    max_shift: int = 1
    colour: float = 0.15
    state_noise: float = 0.01
    paraphrases: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    paraphrase_share: float = 0.3
    held_out: int = 30
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000

    def __post_init__(self) -> None:
        """Refuse a batch that the workers cannot share (ConfigError)."""
        if self.workers < 1 or self.batch_size % self.workers:
            raise ConfigError(
                f'batch_size {self.batch_size} is not a multiple of workers {self.workers}'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    config: PolicyTrainConfig
    tokenizer: str
    out: str
    metadata: dict[str, Any]


def train(
    config: PolicyTrainConfig,
    demos: str | pathlib.Path,
    tokenizer: str | pathlib.Path,
    out: str | pathlib.Path,
    metadata: dict[str, Any] | None = None,
) -> Iterator[dict[str, float]]:
    """Train, resuming if `out` holds a state; `out/checkpoint` is the result.

    Yields:
        Rows with 'step' and, on logged steps, losses.

    Raises:
        ConfigError: the demonstrations, the tokenizer and the embodiment do not belong together.
        FasterVlaError: a worker died.
    """
    tokenizer, out = pathlib.Path(tokenizer), pathlib.Path(out)
    if (tokenizer / 'checkpoint').is_dir():
        tokenizer = tokenizer / 'checkpoint'
    embodiment = Embodiment.load(config.embodiment)
    model = from_mapping(PolicyConfig, config.model, source='model')
    RunFolder(out, dataclasses.asdict(config))
    vq = FasterVQ.from_pretrained(tokenizer)
    build_cache(demos, out / 'cache', embodiment, vq, model.image_size)
    job = _Job(config=config, tokenizer=str(tokenizer), out=str(out), metadata=metadata or {})
    if config.workers == 1:
        yield from _run(job, 0)
    else:
        yield from _run_processes(job)
    RunFolder(out, dataclasses.asdict(config)).plot()


def _run_processes(job: _Job) -> Iterator[dict[str, float]]:
    context = mp.get_context('spawn')
    rows = context.Queue()
    (pathlib.Path(job.out) / 'rendezvous').unlink(missing_ok=True)
    workers = [
        context.Process(target=_worker, args=(job, rank, rows), daemon=True)
        for rank in range(job.config.workers)
    ]
    for worker in workers:
        worker.start()
    try:
        while any(w.is_alive() for w in workers) or not rows.empty():
            try:
                yield rows.get(timeout=1.0)
            except queues.Empty:
                _refuse_failed(workers)
        _refuse_failed(workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _refuse_failed(workers: list[mp.Process]) -> None:
    if failed := [w.exitcode for w in workers if w.exitcode]:
        raise FasterVlaError(f'a training process ended with {failed[0]}')


def _worker(job: _Job, rank: int, rows: Any) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    rendezvous = (pathlib.Path(job.out) / 'rendezvous').resolve()
    distributed.init_process_group(
        'gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=job.config.workers
    )
    for row in _run(job, rank):
        if rank == 0:
            rows.put(row)
    distributed.destroy_process_group()


class _Trainee(nn.Module):
    """The model and what only training needs."""

    def __init__(self, model: nn.Module, auxiliary: nn.Module) -> None:
        super().__init__()
        self.model, self.auxiliary = model, auxiliary


def _run(job: _Job, rank: int) -> Iterator[dict[str, float]]:
    config, out = job.config, pathlib.Path(job.out)
    run = RunFolder(out, dataclasses.asdict(config))
    samples = open_cache(out / 'cache')
    held = samples.episode % config.held_out == 0
    pool, held_rows = np.flatnonzero(~held), np.flatnonzero(held)
    if not len(pool):
        raise ConfigError(f'held_out {config.held_out} leaves no episode to train on')
    parts = _parts(job, samples, pool)
    batches = Batches(
        samples,
        parts,
        max_shift=config.max_shift,
        colour=config.colour,
        state_noise=config.state_noise,
        paraphrases=config.paraphrases,
        paraphrase_share=config.paraphrase_share,
    )
    torch.manual_seed(config.seed)
    width = parts.config.text['hidden_size']
    num_states = len(parts.embodiment.state)
    if parts.config.state_encoding == 'text':
        num_states = parts.embodiment.state_dim
    auxiliary = Auxiliary(
        from_mapping(AuxiliaryWeights, config.auxiliary, source='auxiliary'),
        samples,
        width=width,
        num_image_tokens=parts.model.backbone.tokens_per_image * len(parts.embodiment.cameras),
        num_state_tokens=num_states,
    )
    trainee = _Trainee(parts.model, auxiliary)
    optimizer = torch.optim.AdamW(
        trainee.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.95),
        fused=True,
    )
    average = WeightAverage(trainee, config.ema_decay) if rank == 0 else None
    step, before = 0, 0.0
    if state := run.load_state():
        step, tensors, extra = state
        trainee.load_state_dict(unpack(tensors, 'model'))
        restore_optimizer(optimizer, unpack(tensors, 'optimizer'))
        before = extra['elapsed']
        if average is not None:
            average.values, average.updates = unpack(tensors, 'average'), extra['updates']
    start, elapsed = time.perf_counter() - before, before
    progress = _progress(config, step, elapsed)
    while progress < 1.0:
        trainee.train()
        for group in optimizer.param_groups:
            group['lr'] = cosine_schedule(
                progress, warmup=config.warmup, peak=config.learning_rate
            )
        rng = np.random.default_rng([config.seed, rank, step])
        torch.manual_seed(int(rng.integers(2**31)))
        chosen = rng.choice(pool, config.batch_size // config.workers)
        with_expert = progress >= config.backbone_first
        losses = _losses(trainee, batches.make(chosen, rng), with_expert=with_expert)
        total = losses['auxiliary']
        if with_expert:
            for i, weight in enumerate(config.level_weights):
                total = total + weight * losses[f'level{i}']
            total = total + config.end_weight * losses['end']
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        elapsed = _average_gradients(trainee, time.perf_counter() - start, config.workers)
        nn.utils.clip_grad_norm_(trainee.parameters(), config.clip)
        optimizer.step()
        step += 1
        progress = _progress(config, step, elapsed)
        if average is None:
            yield {'step': step}
            continue
        average.update(trainee)
        row: dict[str, float] = {'step': step, 'progress': progress}
        if step % config.log_every == 0 or progress >= 1.0:
            values = {k: v.item() for k, v in losses.items()}
            rate = step * config.batch_size / elapsed
            run.log(step, **values, learning_rate=group['lr'], samples_per_s=rate)
            row |= values | {'samples_per_s': rate}
        if step % config.save_every == 0 or progress >= 1.0:
            tensors = pack(
                # Copied: the averaged weights are about to be loaded into the same storage.
                model={k: v.clone() for k, v in trainee.state_dict().items()},
                average=average.values,
                optimizer=optimizer_tensors(optimizer),
            )
            _load_average(trainee, average)
            error = _held_out_error(batches, held_rows)
            run.log(step, held_out_error=error)
            row['held_out_error'] = error
            metadata = {
                'train': {
                    **job.metadata,
                    'steps': step,
                    'samples': step * config.batch_size,
                    'minutes': round(elapsed / 60, 1),
                    'episodes': int(samples.episode[-1]) + 1,
                    'held_out_error': error,
                }
            }
            checkpoint.save(out / 'checkpoint', parts, metadata)
            trainee.load_state_dict(unpack(tensors, 'model'))
            run.save_state(step, tensors, {'updates': average.updates, 'elapsed': elapsed})
        yield row


def _progress(config: PolicyTrainConfig, step: int, elapsed: float) -> float:
    by_time = elapsed / 60.0 / config.max_minutes if config.max_minutes else 0.0
    return min(1.0, max(step / config.steps, by_time))


def _average_gradients(module: nn.Module, elapsed: float, workers: int) -> float:
    """Average gradients over the processes; return the longest time any of them has run."""
    if workers == 1:
        return elapsed
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    longest = torch.tensor(elapsed, dtype=torch.float64)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    return float(longest)


def _parts(job: _Job, samples: Samples, pool: np.ndarray) -> checkpoint.PolicyParts:
    config = job.config
    embodiment = Embodiment.load(config.embodiment)
    model = from_mapping(PolicyConfig, config.model, source='model')
    others = [t for texts in config.paraphrases.values() for t in texts]
    text = TextEncoder.train([*samples.texts, *others], model.max_text_tokens)
    for instruction in [*samples.texts, *others]:
        text.check(instruction)
    tokenizer = FasterVQ.from_pretrained(job.tokenizer)
    torch.manual_seed(config.seed)
    return checkpoint.PolicyParts(
        config=model,
        embodiment=embodiment,
        tokenizer=tokenizer,
        text=text,
        state=StateNormalizer.fit(samples.state[pool]),
        model=checkpoint.build_model(model, embodiment, tokenizer, text),
    )


def _losses(
    trainee: _Trainee, batch: dict[str, torch.Tensor], *, with_expert: bool
) -> dict[str, torch.Tensor]:
    model = trainee.model
    features = model.backbone.vision(batch['pixels'])
    prefix = model.encode(features, batch['ids'], batch['valid'], batch['state'])
    losses = model.loss(prefix, batch['tokens']) if with_expert else {}
    labels = {name: batch[name] for name in LABELS if name != 'tokens'}
    losses['auxiliary'], errors = trainee.auxiliary(features, prefix.hidden, **labels)
    return losses | errors


def _load_average(trainee: _Trainee, average: WeightAverage) -> None:
    trainee.load_state_dict(average.values)
    trainee.eval()


@torch.inference_mode()
def _held_out_error(batches: Batches, rows: np.ndarray, count: int = 256) -> float:
    """Mean absolute error of greedily decoded chunks, normalised units, on held-out episodes."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    parts = batches.parts
    model, tokenizer = parts.model, parts.tokenizer
    errors = []
    for group in np.array_split(chosen, max(1, len(chosen) // 32)):
        batch = batches.make(group)
        features = model.backbone.vision(batch['pixels'])
        prefix = model.encode(features, batch['ids'], batch['valid'], batch['state'])
        model.prepare(prefix)
        decoded = decode(model, prefix, sampling=SamplingConfig(), batch=len(group))
        codes = model.codes(decoded).numpy()
        actions = tokenizer.decode(tokenizer.codes(codes))
        error = tokenizer.normalizer.normalize(actions) - batch['chunk'].numpy()
        errors.append(np.abs(error).mean())
    return float(np.mean(errors))
