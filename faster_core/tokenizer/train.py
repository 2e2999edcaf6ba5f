"""Training of FASTerVQ on the chunks of a folder of demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
import torch

from faster_core.config import from_mapping
from faster_core.data.episodes import chunk_labels, load_motions
from faster_core.data.reference import reference_of
from faster_core.embodiment import Embodiment
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.evaluate import evaluate
from faster_core.tokenizer.faster_vq import FasterVQ, VqModel
from faster_core.tokenizer.loss import dct_matrix, reconstruction_loss
from faster_core.tokenizer.normalizer import ActionNormalizer
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
class TokenizerTrainConfig:
    """How FASTerVQ is trained.

    Attributes:
        embodiment: file of the robot.
        model: fields of `FasterVQConfig` beside horizon and group sizes.
        steps, batch_size, learning_rate, weight_decay, warmup, clip: AdamW with a cosine;
            `warmup` is a share of the steps.
        commitment: weight of the commitment loss.
        offset_noise: chunks are shifted by a constant drawn with this standard deviation
            (normalised units), so that codes cover more than the demonstrations' exact poses.
        level_dropout: share of the steps that decode from fewer levels.
        held_out: every n-th episode is for validation.
        ema_decay: of the averaged weights that are saved.
        seed: of weights, batches and dropout.
        log_every: steps between lines of metrics.
        save_every: steps between states to resume from.
    """

    embodiment: str
    model: dict[str, Any]
    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    commitment: float = 0.25
    offset_noise: float = 0.05
    level_dropout: float = 0.1
    held_out: int = 20
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 100
    save_every: int = 1000


def train(
    config: TokenizerTrainConfig, demos: str | pathlib.Path, out: str | pathlib.Path
) -> Iterator[dict[str, float]]:
    """Train, resuming if `out` holds a state; `out/checkpoint` is the result.

    Yields:
        After every step: 'step', and losses on the steps that are logged.
    """
    embodiment = Embodiment.load(config.embodiment)
    run = RunFolder(out, dataclasses.asdict(config))
    vq_config = from_mapping(
        FasterVQConfig,
        dataclasses.asdict(FasterVQConfig.from_embodiment(embodiment, **config.model)),
        source='model',
    )
    training, held_out = _chunks(demos, embodiment, config, vq_config.reference)
    torch.manual_seed(config.seed)
    normalizer = ActionNormalizer.fit(training, embodiment)
    model = VqModel(vq_config)
    average = WeightAverage(model, config.ema_decay)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.95),
    )
    data = torch.from_numpy(normalizer.normalize(training))
    basis = dct_matrix(vq_config.horizon)
    step, elapsed = 0, 0.0
    if state := run.load_state():
        step, tensors, extra = state
        model.load_state_dict(unpack(tensors, 'model'))
        average.values = unpack(tensors, 'average')
        average.updates, elapsed = extra['updates'], extra['elapsed']
        restore_optimizer(optimizer, unpack(tensors, 'optimizer'))
        torch.set_rng_state(tensors['rng'])
    start = time.perf_counter() - elapsed
    while step < config.steps:
        model.train()
        for group in optimizer.param_groups:
            group['lr'] = cosine_schedule(
                step / config.steps, warmup=config.warmup, peak=config.learning_rate
            )
        batch = data[torch.randint(len(data), (config.batch_size,))]
        noise = torch.randn(len(batch), 1, batch.shape[2]) * config.offset_noise
        batch = batch + noise
        levels = None
        if torch.rand(()) < config.level_dropout:
            levels = int(torch.randint(1, vq_config.num_levels + 1, ()))
        predicted, _, commitment = model(batch, levels)
        losses = reconstruction_loss(predicted, batch, basis) | {'commitment': commitment}
        total = losses['time'] + losses['dct'] + config.commitment * commitment
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        average.update(model)
        step += 1
        row: dict[str, float] = {'step': step}
        if step % config.log_every == 0 or step == config.steps:
            values = {k: v.item() for k, v in losses.items()}
            row |= values
            run.log(step, **values, learning_rate=optimizer.param_groups[0]['lr'])
        if step % config.save_every == 0 or step == config.steps:
            result = _averaged(vq_config, normalizer, average)
            report = evaluate(result, embodiment, held_out[:2048])
            flat = {f'held_out_{k}': v for k, v in report['mae'].items()}
            run.log(step, **flat, held_out_vrr_1e2=report['vrr_normalized']['0.01'])
            result.save_pretrained(run.path / 'checkpoint')
            tensors = pack(
                model=model.state_dict(),
                average=average.values,
                optimizer=optimizer_tensors(optimizer),
            )
            extra = {'updates': average.updates, 'elapsed': time.perf_counter() - start}
            run.save_state(step, tensors | {'rng': torch.get_rng_state()}, extra)
        yield row
    run.plot()


def held_out_chunks(
    demos: str | pathlib.Path, embodiment: Embodiment, every: int, reference: str
) -> np.ndarray:
    """Return the chunks [M, H, D] of every `every`-th episode, relative to `reference`."""
    return np.concatenate(_labels(demos, embodiment, reference)[::every])


def _chunks(
    demos: str | pathlib.Path,
    embodiment: Embodiment,
    config: TokenizerTrainConfig,
    reference: str,
) -> tuple[np.ndarray, np.ndarray]:
    labels = _labels(demos, embodiment, reference)
    held = labels[:: config.held_out]
    kept = [c for i, c in enumerate(labels) if i % config.held_out] or held
    return np.concatenate(kept), np.concatenate(held)


def _labels(demos: str | pathlib.Path, embodiment: Embodiment, reference: str) -> list[np.ndarray]:
    return [
        chunk_labels(action, embodiment) - reference_of(state, embodiment, reference)[:, None]
        for state, action in load_motions(demos)
    ]


def _averaged(
    config: FasterVQConfig, normalizer: ActionNormalizer, average: WeightAverage
) -> FasterVQ:
    model = VqModel(config)
    model.load_state_dict(average.values)
    return FasterVQ(config, normalizer, model)
