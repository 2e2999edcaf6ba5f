"""Training of FASTerVQ and of its learned rivals, on one or several robots at once.

Several processes (`torchrun`, `accelerate launch`) train on the same joint batch as one would:
gradients are averaged, codebook statistics summed, random choices drawn once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
import time
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs
import numpy as np
import torch
from torch import nn

from faster_core.config import write_json
from faster_core.data.motions import MotionSet
from faster_core.errors import ConfigError
from faster_core.tokenizer import metrics
from faster_core.tokenizer.evaluate import code_counts, reconstruct
from faster_core.tokenizer.loss import reconstruction_loss
from faster_core.tokenizer.plots import plot_code_use
from faster_core.tokenizer.robots import fit_linear_paths, load_data, make_robots, Robot
from faster_core.tokenizer.train_config import PRECISIONS, TokenizerTrainConfig
from faster_core.training.ema import WeightAverage
from faster_core.training.run_folder import (
    optimizer_tensors,
    pack,
    restore_optimizer,
    RunFolder,
    unpack,
)
from faster_core.training.schedules import cosine_schedule

# Latents that the first k-means sees at most: 64 for each of 1024 codes.
INITIAL_ROWS = 65_536


def train(
    config: TokenizerTrainConfig,
    data: Sequence[str | pathlib.Path],
    out: str | pathlib.Path,
) -> Iterator[dict[str, float]]:
    """Train, resuming if `out` holds a state.

    `out/checkpoint` is the tokenizer with the best held-out VRR; with several data sets it holds
    a tokenizer per set.

    Args:
        config: what and how.
        data: folders of motion sets or of demonstrations.
        out: run folder.

    Yields:
        After every step: 'step', and losses on the steps that are logged.

    Raises:
        ConfigError: the run folder is of another configuration, or was trained on other data.
    """
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # or several processes on CPUs are not seen as such
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    run = RunFolder(out, dataclasses.asdict(config))
    torch.manual_seed(config.seed)
    robots = make_robots(config, _load(data, run, accelerator), accelerator)
    fit_linear_paths(robots)
    trainee = _Trainee(config, robots).to(accelerator.device)
    average = WeightAverage(trainee, config.ema_decay)
    optimizer = torch.optim.AdamW(
        _parameter_groups(trainee, config),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.95),
    )
    step, elapsed, best = 0, 0.0, -1.0
    if state := run.load_state():
        step, tensors, extra = state
        trainee.load_state_dict(unpack(tensors, 'model'))
        average.values = unpack(tensors, 'average')
        average.updates, elapsed, best = extra['updates'], extra['elapsed'], extra['best']
        restore_optimizer(optimizer, unpack(tensors, 'optimizer'))
    wrapped, optimizer = accelerator.prepare(trainee, optimizer)
    start = time.perf_counter() - elapsed
    quantised_from = round(config.continuous * config.steps)
    while step < config.steps:
        if step == quantised_from:
            trainee.fill_codebooks()
            average.take_over(trainee, '.quantizer.')
        wrapped.train()
        for group in optimizer.param_groups:
            group['lr'] = group['share'] * cosine_schedule(
                step / config.steps, warmup=config.warmup, peak=config.learning_rate
            )
        draw = np.random.default_rng([config.seed, step])
        batches = _draw_batches(config, robots, draw)
        shares = {k: _share(v, accelerator).to(accelerator.device) for k, v in batches.items()}
        levels = None
        if draw.random() < config.level_dropout:
            levels = int(draw.integers(1, robots[0].tokenizer.config.num_levels + 1))
        if step < quantised_from:
            levels = 0
        torch.manual_seed(int(draw.integers(2**31)))
        with torch.autocast(
            accelerator.device.type,
            PRECISIONS[config.precision],
            enabled=config.precision != 'float32',
        ):
            losses = wrapped(shares, levels)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses['total'])
        accelerator.clip_grad_norm_(wrapped.parameters(), config.clip)
        optimizer.step()
        average.update(trainee)
        step += 1
        row: dict[str, float] = {'step': step}
        if step % config.log_every == 0 or step == config.steps:
            row |= {k: v.item() for k, v in losses.items()}
            if accelerator.is_main_process:
                run.log(**row, learning_rate=optimizer.param_groups[0]['lr'])
        if accelerator.is_main_process and (step % config.save_every == 0 or step == config.steps):
            tensors = pack(
                # Copied: the averaged weights are about to be loaded into the same storage.
                model={k: v.clone() for k, v in trainee.state_dict().items()},
                average=average.values,
                optimizer=optimizer_tensors(optimizer),
            )
            trainee.load_state_dict(average.values)
            report = _look_at_held_out(robots)
            run.log(step, **report)
            if step > quantised_from and report['held_out_vrr'] >= best:
                best = report['held_out_vrr']
                _save(robots, run.path / 'checkpoint')
            trainee.load_state_dict(unpack(tensors, 'model'))
            extra = {
                'updates': average.updates,
                'elapsed': time.perf_counter() - start,
                'best': best,
            }
            run.save_state(step, tensors, extra)
        yield row
    if accelerator.is_main_process:
        run.plot()
        _plot_code_use(robots, run.path)
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        accelerator.end_training()


def _load(
    data: Sequence[str | pathlib.Path], run: RunFolder, accelerator: Accelerator
) -> list[MotionSet]:
    """Read the data; a run that goes on must have begun with the same (ConfigError)."""
    sets = [load_data(path) for path in data]
    now = [f'{s.name}, {len(s.motions)} episodes, checksum {_checksum(s)}' for s in sets]
    file = run.path / 'data.json'
    if not (run.path / 'state.safetensors').exists():
        if accelerator.is_main_process:
            write_json(file, now)
    elif file.exists():  # runs begun before there was this file have none
        then = json.loads(file.read_text(encoding='utf-8'))
        if then != now:
            raise ConfigError(
                f'{run.path} was trained on other data ({"; ".join(then)}; now: {"; ".join(now)}):'
                ' give the same as before, or choose an empty folder'
            )
    return sets


def _checksum(data: MotionSet) -> str:
    """Return a checksum (hex) of all that decides the chunks."""
    steps = [motion.num_steps for motion in data.motions]
    described = [data.embodiment.checksum, data.rests, data.splits, steps]
    digest = hashlib.sha256(json.dumps(described).encode())
    for motion in data.motions:
        digest.update(motion.action.tobytes())
        if motion.state is not None:
            digest.update(motion.state.tobytes())
    return digest.hexdigest()[:16]


class _Trainee(nn.Module):
    """The models of all robots; shared parts are the same modules in each."""

    def __init__(self, config: TokenizerTrainConfig, robots: Sequence[Robot]) -> None:
        super().__init__()
        self.models = nn.ModuleDict({r.name: r.tokenizer.model for r in robots})
        self._config, self._robots = config, robots

    def forward(
        self, batches: Mapping[str, torch.Tensor], num_levels: int | None
    ) -> dict[str, torch.Tensor]:
        """Return the three losses and their weighted 'total', averaged over chunks."""
        config = self._config
        count = sum(len(batch) for batch in batches.values())
        sums: dict[str, torch.Tensor] = {}
        for robot in self._robots:
            batch = batches[robot.name]
            predicted, _, commitment = self.models[robot.name](batch, num_levels)
            losses = reconstruction_loss(
                predicted.float(), batch, robot.basis, both=config.dct_axis == 'time_and_action'
            )
            for name, value in (losses | {'commitment': commitment}).items():
                sums[name] = sums.get(name, 0.0) + value * (len(batch) / count)
        weights = {'time': config.time, 'dct': config.dct, 'commitment': config.commitment}
        return {'total': sum(weights[k] * v for k, v in sums.items()), **sums}

    @torch.no_grad()
    def fill_codebooks(self) -> None:
        """Let many chunks choose the first codes: k-means needs more rows than there are codes.

        The robots share codebooks, so the rows of all of them count. Every process does the same.
        """
        config, latents = self._config, []
        draw = np.random.default_rng([config.seed, 2**32 - 1])
        count = max(config.initial_chunks // len(self._robots), 1)
        for robot in self._robots:
            chunks = robot.training[draw.integers(len(robot.training), size=count)]
            encode = self.models[robot.name].autoencoder.encode
            parts = [encode(part.to(robot.basis.device)) for part in chunks.split(512)]
            latents.append(torch.cat(parts).flatten(0, -2))
        torch.manual_seed(config.seed)
        rows = torch.cat(latents)
        if len(rows) > INITIAL_ROWS:
            rows = rows[torch.randperm(len(rows), device=rows.device)[:INITIAL_ROWS]]
        self._robots[0].tokenizer.model.quantizer.fill(rows)


def _parameter_groups(trainee: nn.Module, config: TokenizerTrainConfig) -> list[dict[str, Any]]:
    """Return the network's parameters and, if there is one, those of the linear path."""
    network, linear = [], []
    for name, parameter in trainee.named_parameters():
        (linear if '.linear.' in name else network).append(parameter)
    groups = [{'params': network, 'share': 1.0}]
    if linear:
        groups.append({'params': linear, 'share': config.linear_rate, 'weight_decay': 0.0})
    return groups


def _share(batch: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """Return this process's part of a joint batch; parts in the order of ranks are the whole."""
    return batch.tensor_split(accelerator.num_processes)[accelerator.process_index]


def _draw_batches(
    config: TokenizerTrainConfig, robots: Sequence[Robot], draw: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Return the joint batch [B, H, D] of every robot, with the offset noise on it."""
    batches = {}
    for robot in robots:
        chunks = robot.training[draw.integers(len(robot.training), size=robot.batch)]
        noise = draw.normal(size=(robot.batch, 1, chunks.shape[2])) * config.offset_noise
        batches[robot.name] = chunks + torch.from_numpy(noise.astype(np.float32))
    return batches


def _look_at_held_out(robots: Sequence[Robot]) -> dict[str, float]:
    """Return VRR (physical, 1e-3, per value) and normalised L1: mean over robots, and of each."""
    report: dict[str, float] = {}
    for robot in robots:
        tokenizer, chunks = robot.tokenizer, robot.held_out
        tokenizer.model.eval()
        codes = [tokenizer.encode(chunks[i : i + 512]) for i in range(0, len(chunks), 512)]
        error = chunks - np.concatenate([tokenizer.decode(c) for c in codes])
        moving = metrics.moving_dimensions(chunks)
        normal = np.abs(error / tokenizer.normalizer.half_range)[..., moving]
        counts = np.bincount(np.concatenate(codes)[:, 0].ravel(), minlength=tokenizer.vocab_size)
        values = {
            'held_out_vrr': metrics.vrr(error[..., moving], metrics.SIGMAS[0], 'dim'),
            'held_out_l1': float(normal.mean()),
            'held_out_entropy': metrics.code_statistics(counts)['entropy'],
        }
        for key, value in values.items():
            report[key] = report.get(key, 0.0) + value / len(robots)
            if len(robots) > 1:
                report[f'{key}.{robot.name}'] = value
    return report


def _plot_code_use(robots: Sequence[Robot], folder: pathlib.Path) -> None:
    """Draw codes.png: how the codes of the best tokenizers are used on held-out chunks."""
    counts = {}
    for robot in robots:
        path = folder / 'checkpoint'
        best = type(robot.tokenizer).from_pretrained(
            path / robot.name if len(robots) > 1 else path
        )
        counts[robot.name] = code_counts(best, reconstruct(best, robot.held_out).tokens)
    plot_code_use(counts, folder / 'codes.png')


def _save(robots: Sequence[Robot], folder: pathlib.Path) -> None:
    for robot in robots:
        path = folder / robot.name if len(robots) > 1 else folder
        robot.tokenizer.save_pretrained(path)
