"""The robots of a training: for each data set its tokenizer and its chunks."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from accelerate import Accelerator
import numpy as np
import torch

from faster_core.config import from_mapping
from faster_core.data.motions import HELD_OUT, MotionSet, TRAIN
from faster_core.data.sources import r1_lite
from faster_core.errors import ConfigError
from faster_core.tokenizer.config import FasterVQConfig
from faster_core.tokenizer.faster_vq import FasterVQ
from faster_core.tokenizer.linear_path import LinearPath
from faster_core.tokenizer.loss import dct_matrix
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.presets import PRESETS
from faster_core.tokenizer.registry import TOKENIZERS
from faster_core.tokenizer.rvq import RvqTokenizer
from faster_core.tokenizer.train_config import TokenizerTrainConfig

# Chunks of a robot whose principal components are taken: neighbours say almost the same.
LINEAR_PATH_CHUNKS = 8_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Robot:
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


def make_robots(
    config: TokenizerTrainConfig, data: Sequence[MotionSet], accelerator: Accelerator
) -> list[Robot]:
    """Return a robot per data set; the first one's model is shared by the others (ConfigError)."""
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
    robots: list[Robot] = []
    for motions, size in zip(data, sizes, strict=True):
        shared = robots[0].tokenizer if robots else None
        robots.append(_make_robot(config, motions, int(size), shared, device))
    return robots


def _make_robot(
    config: TokenizerTrainConfig,
    data: MotionSet,
    batch: int,
    shared: RvqTokenizer | None,
    device: torch.device,
) -> Robot:
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
    return Robot(
        name=data.name,
        tokenizer=tokenizer,
        training=torch.from_numpy(normalizer.normalize(training)),
        held_out=thinned,
        basis=dct_matrix(model_config.horizon).to(device),
        batch=batch,
    )


def fit_linear_paths(robots: Sequence[Robot]) -> None:
    """Start every linear path from the training chunks of the robots that share it."""
    paths: dict[torch.nn.Module, tuple[LinearPath, list[torch.Tensor]]] = {}
    for robot in robots:
        path = getattr(robot.tokenizer.model.autoencoder, 'linear', None)
        if path is not None:
            chunks = robot.training[:: -(-len(robot.training) // LINEAR_PATH_CHUNKS)]
            paths.setdefault(path.to_latent, (path, []))[1].append(path.windows(chunks))
    for path, parts in paths.values():
        path.fit(parts)


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
    fields += ('strides', 'layout', 'linear_path')
    if first.layout == 'by_kind':
        fields += ('patch_length', 'slot_width')
    for field in fields:
        a, b = getattr(first, field), getattr(other, field)
        if a != b:
            raise ConfigError(f'{name}: {field} {b!r}, the shared model has {a!r}')
