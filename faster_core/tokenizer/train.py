"""Training of FASTerVQ and of its learned rivals, on one or several robots at once.

Several processes (`torchrun`, `accelerate launch`) train on the same joint batch as one would:
gradients are averaged, codebook statistics summed, random choices drawn once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs
import numpy as np
import torch
from torch import nn

from faster_core.config import from_mapping
from faster_core.data.motions import HELD_OUT, MotionSet, TRAIN
from faster_core.data.sources import r1_lite
from faster_core.errors import ConfigError
from faster_core.tokenizer import metrics
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.evaluate import code_counts, reconstruct
from faster_core.tokenizer.faster_vq import FasterVQ
from faster_core.tokenizer.loss import dct_matrix, reconstruction_loss
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.plots import plot_code_use
from faster_core.tokenizer.presets import PRESETS
from faster_core.tokenizer.registry import TOKENIZERS
from faster_core.tokenizer.rvq import RvqTokenizer
from faster_core.training.ema import WeightAverage
from faster_core.training.run_folder import (
    optimizer_tensors,
    pack,
    restore_optimizer,
    RunFolder,
    unpack,
)
from faster_core.training.schedules import cosine_schedule

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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Robot:
    """One data set in training: its tokenizer, its chunks (normalised) and the held-out ones."""

    name: str
    tokenizer: RvqTokenizer
    training: torch.Tensor
    held_out: np.ndarray
    basis: torch.Tensor
    batch: int


def load_data(path: str | pathlib.Path) -> MotionSet:
    """Read a motion set, or a folder of R1 Lite demonstrations as one."""
    path = pathlib.Path(path)
    if (path / 'dataset.json').exists():
        return MotionSet.load(path)
    return r1_lite.build(r1_lite.R1LiteConfig(input=str(path)), lambda items: items)


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
    """
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # or several processes on CPUs are not seen as such
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    run = RunFolder(out, dataclasses.asdict(config))
    torch.manual_seed(config.seed)
    robots = _robots(config, [load_data(path) for path in data], accelerator)
    trainee = _Trainee(config, robots).to(accelerator.device)
    average = WeightAverage(trainee, config.ema_decay)
    optimizer = torch.optim.AdamW(
        trainee.parameters(),
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
            group['lr'] = cosine_schedule(
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


class _Trainee(nn.Module):
    """The models of all robots; shared parts are the same modules in each."""

    def __init__(self, config: TokenizerTrainConfig, robots: Sequence[_Robot]) -> None:
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
        self._robots[0].tokenizer.model.quantizer.fill(torch.cat(latents))


def _share(batch: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """Return this process's part of a joint batch; parts in the order of ranks are the whole."""
    return batch.tensor_split(accelerator.num_processes)[accelerator.process_index]


def _draw_batches(
    config: TokenizerTrainConfig, robots: Sequence[_Robot], draw: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Return the joint batch [B, H, D] of every robot, with the offset noise on it."""
    batches = {}
    for robot in robots:
        chunks = robot.training[draw.integers(len(robot.training), size=robot.batch)]
        noise = draw.normal(size=(robot.batch, 1, chunks.shape[2])) * config.offset_noise
        batches[robot.name] = chunks + torch.from_numpy(noise.astype(np.float32))
    return batches


def _robots(
    config: TokenizerTrainConfig, data: Sequence[MotionSet], accelerator: Accelerator
) -> list[_Robot]:
    device, processes = accelerator.device, accelerator.num_processes
    names = [d.name for d in data]
    if not data or len(set(names)) != len(names):
        raise ConfigError(f'data: expected one or more different sets, found {names}')
    for field in ('robots', 'weights'):
        if unknown := set(getattr(config, field)) - set(names):
            raise ConfigError(f'{field}: unknown data sets {sorted(unknown)}; known: {names}')
    weights = np.array([config.weights.get(name, 1.0) for name in names])
    sizes = np.maximum(1, np.round(config.batch_size * weights / weights.sum())).astype(int)
    if uneven := [int(size) for size in sizes if size % processes]:
        raise ConfigError(
            f'batch_size {config.batch_size}: a data set gets {uneven[0]} chunks of it, expected '
            f'a multiple of the {processes} processes'
        )
    robots: list[_Robot] = []
    for motions, size in zip(data, sizes, strict=True):
        shared = robots[0].tokenizer if robots else None
        robots.append(_robot(config, motions, int(size), shared, device))
    return robots


def _robot(
    config: TokenizerTrainConfig,
    data: MotionSet,
    batch: int,
    shared: RvqTokenizer | None,
    device: torch.device,
) -> _Robot:
    model_config = model_config_of(config, data)
    training = data.chunks(TRAIN, model_config.reference)
    try:
        held_out = data.chunks(HELD_OUT, model_config.reference)
    except ValueError:  # nothing held out: look at the training data instead
        held_out = training
    normalizer = ActionNormalizer.fit(training, data.embodiment)
    kind = TOKENIZERS[config.tokenizer]
    if shared is None:
        model = kind.make_model(model_config)
    elif kind is FasterVQ:
        _check_shared(shared.config, model_config, data.name)
        model = FasterVQ.make_model(model_config, shared.model)
    else:
        raise ConfigError(f'{config.tokenizer} is trained on one data set, found several')
    tokenizer = kind(model_config, normalizer, model)
    thinned = held_out[:: -(-len(held_out) // 2048)]
    return _Robot(
        name=data.name,
        tokenizer=tokenizer,
        training=torch.from_numpy(normalizer.normalize(training)),
        held_out=thinned,
        basis=dct_matrix(model_config.horizon).to(device),
        batch=batch,
    )


def model_config_of(config: TokenizerTrainConfig, data: MotionSet) -> Any:
    """Return the tokenizer's configuration for one data set."""
    fields = dict(PRESETS[config.preset].fields) if config.preset else {}
    fields |= config.model | config.robots.get(data.name, {})
    cls = TOKENIZERS[config.tokenizer].config_class
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := set(fields) - known:
        raise ConfigError(
            f'model: unknown keys {", ".join(sorted(unknown))}; known: {", ".join(sorted(known))}'
        )
    if cls is FasterVQConfig and 'slots_per_group' not in fields:
        raise ConfigError(f'model: missing slots_per_group for {data.name}')
    return from_mapping(
        cls, dataclasses.asdict(cls.from_embodiment(data.embodiment, **fields)), source='model'
    )


def _check_shared(first: FasterVQConfig, other: FasterVQConfig, name: str) -> None:
    fields = ('width', 'depth', 'heads', 'encoder', 'latent_dim', 'num_levels', 'codebook_size')
    fields += ('strides', 'layout')
    if first.layout == 'by_kind':
        fields += ('patch_length', 'slot_width')
    for field in fields:
        a, b = getattr(first, field), getattr(other, field)
        if a != b:
            raise ConfigError(f'{name}: {field} {b!r}, the shared model has {a!r}')


def _look_at_held_out(robots: Sequence[_Robot]) -> dict[str, float]:
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


def _plot_code_use(robots: Sequence[_Robot], folder: pathlib.Path) -> None:
    """Draw codes.png: how the codes of the best tokenizers are used on held-out chunks."""
    counts = {}
    for robot in robots:
        path = folder / 'checkpoint'
        best = type(robot.tokenizer).from_pretrained(
            path / robot.name if len(robots) > 1 else path
        )
        counts[robot.name] = code_counts(best, reconstruct(best, robot.held_out).tokens)
    plot_code_use(counts, folder / 'codes.png')


def _save(robots: Sequence[_Robot], folder: pathlib.Path) -> None:
    for robot in robots:
        path = folder / robot.name if len(robots) > 1 else folder
        robot.tokenizer.save_pretrained(path)
