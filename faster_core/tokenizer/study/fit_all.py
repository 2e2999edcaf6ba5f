"""Fit what the plan names, once: results are kept under the hash of what decides them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import fcntl
import json
import pathlib
import shutil
import time
from typing import Any

import numpy as np

from faster_core.config import from_mapping, write_json
from faster_core.data.motions import MotionSet, TRAIN
from faster_core.errors import ConfigError
from faster_core.tokenizer.baselines.fast import coefficients, Fast, FastConfig, train_bpe
from faster_core.tokenizer.config import velocity_dims
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.registry import load_tokenizer, TOKENIZERS
from faster_core.tokenizer.study.plan import (
    BSPLINE,
    Entry,
    FAST,
    FAST_UNIVERSAL,
    FASTER,
    plan,
    StudyConfig,
)
from faster_core.tokenizer.train import train
from faster_core.tokenizer.train_config import TokenizerTrainConfig

# Chunks of overlapping windows say almost the same; closed-form fits need no more than these.
FIT_CHUNKS = 20_000


class Study:
    """The plan, the data and the folder of results."""

    def __init__(
        self, config: StudyConfig, data: str | pathlib.Path, cache: str | pathlib.Path
    ) -> None:
        """Bind; motion sets are folders of their names inside `data`.

        Raises:
            ConfigError: a motion set is not there.
        """
        self.config, self.entries = config, plan(config)
        self._data, self.cache = pathlib.Path(data), pathlib.Path(cache)
        self._sets: dict[str, MotionSet] = {}
        self._fingerprints = {}
        for name in dict.fromkeys(d for e in self.entries for d in (*e.data, *e.strangers)):
            path = self._data / name / 'dataset.json'
            if not path.exists():
                raise ConfigError(
                    f'{path.parent}: no motion set; `faster-vla data prepare {name}` makes it'
                )
            self._fingerprints[name] = json.loads(path.read_text())['sha256']['motions.npz']

    def motions(self, name: str) -> MotionSet:
        """Return a motion set, read once."""
        if name not in self._sets:
            self._sets[name] = MotionSet.load(self._data / name)
        return self._sets[name]

    def folder(self, entry: Entry) -> pathlib.Path:
        """Return where the result of an entry is or will be."""
        return self.cache / f'{entry.name}-{entry.key(self._fingerprints)}'

    def is_fitted(self, entry: Entry) -> bool:
        """Whether the result is there and complete."""
        return (self.folder(entry) / 'fit.json').exists()

    def load(self, entry: Entry, data: str) -> ActionTokenizer:
        """Return the fitted tokenizer of an entry for one of its motion sets."""
        folder = self.folder(entry) / 'tokenizer'
        return load_tokenizer(folder / data if entry.joint else folder)

    def ship(self, out: str | pathlib.Path) -> None:
        """Write the headline FASTerVQ of every data set to `out/<data set>`."""
        for entry in self.entries:
            if entry.name == FASTER and entry.kind == 'headline' and self.is_fitted(entry):
                data = entry.data[0]
                self.load(entry, data).save_pretrained(pathlib.Path(out) / data)

    def cost(self, entry: Entry) -> dict[str, Any]:
        """Return 'seconds' of the fit and, of learned ones, 'steps'."""
        return json.loads((self.folder(entry) / 'fit.json').read_text())

    def fit(self, entry: Entry, on_step: Callable[[int, int], None] | None = None) -> bool:
        """Fit one entry; a learned one goes on where it was interrupted.

        Several processes may work on one cache: what another one has begun is left to it.

        Args:
            entry: of `self.entries`.
            on_step: called with the step and the number of steps.

        Returns:
            whether it was fitted now.
        """
        folder = self.folder(entry)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / 'lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self.is_fitted(entry):
                return False
            self._fit_now(entry, folder, on_step)
        return True

    def _fit_now(
        self, entry: Entry, folder: pathlib.Path, on_step: Callable[[int, int], None] | None
    ) -> None:
        start = time.perf_counter()
        cost: dict[str, Any] = {'title': entry.title}
        if entry.learned:
            cost |= self._train(entry, folder, on_step)
        else:
            fitted = self._fit(entry)
            for name, tokenizer in fitted.items():
                path = folder / 'tokenizer'
                tokenizer.save_pretrained(path / name if entry.joint else path)
            cost['seconds'] = round(time.perf_counter() - start, 2)
        write_json(folder / 'fit.json', cost)

    def _train(
        self, entry: Entry, folder: pathlib.Path, on_step: Callable[[int, int], None] | None
    ) -> dict[str, Any]:
        from faster_core.training.run_folder import RunFolder

        data = [self._data / name for name in entry.data]
        config = from_mapping(TokenizerTrainConfig, dict(entry.fields), source=entry.title)
        cost: dict[str, Any] = {'steps': config.steps}
        if entry.learning_rates:
            cost |= self._try(entry, config, data, folder)
            config = dataclasses.replace(config, learning_rate=cost['learning_rate'])
        for row in train(config, data, folder / 'run'):
            if on_step is not None:
                on_step(int(row['step']), config.steps)
        shutil.copytree(folder / 'run' / 'checkpoint', folder / 'tokenizer', dirs_exist_ok=True)
        state = RunFolder(folder / 'run', _config_of(folder / 'run')).load_state()
        (folder / 'run' / 'state.safetensors').unlink()
        return {**cost, 'seconds': round(state[2]['elapsed'], 1)}

    def _try(
        self,
        entry: Entry,
        config: TokenizerTrainConfig,
        data: list[pathlib.Path],
        folder: pathlib.Path,
    ) -> dict[str, Any]:
        """Return the 'learning_rate' whose short training is best, and all 'trials'."""
        trials = {}
        for rate in entry.learning_rates:
            short = dataclasses.replace(
                config, learning_rate=rate, steps=entry.trial_steps, save_every=entry.trial_steps
            )
            run = folder / f'trial-{rate:g}'
            for _ in train(short, data, run):
                pass
            lines = [json.loads(line) for line in (run / 'metrics.jsonl').open()]
            trials[rate] = [r['held_out_vrr'] for r in lines if 'held_out_vrr' in r][-1]
            shutil.rmtree(run)
        best = max(trials, key=trials.__getitem__)
        return {'learning_rate': best, 'trials': {f'{k:g}': v for k, v in trials.items()}}

    def _fit(self, entry: Entry) -> dict[str, ActionTokenizer]:
        if entry.name == FAST_UNIVERSAL:
            return fit_universal(
                {name: self.motions(name) for name in entry.data}, dict(entry.fields)
            )
        (name,) = entry.data
        motions = self.motions(name)
        fields = dict(entry.fields)
        if entry.name == BSPLINE:
            horizon = motions.embodiment.action_horizon
            points = max(round(fields.pop('share') * horizon), 4)
            fields |= {'num_points': points, 'degree': min(4, points - 1)}
        cls = TOKENIZERS[entry.name]
        normalizer, chunks = _training_chunks(motions)
        if entry.name == FAST:
            rounded = coefficients(chunks, fields['scale'])
            fields['vocab_size'] = _vocabulary(fields['vocab_size'], rounded.min(), rounded.max())
        config = cls.config_class(**_shape(motions), **fields)
        return {name: cls.fit(config, normalizer, chunks)}


def fit_universal(
    sets: Mapping[str, MotionSet], fields: Mapping[str, Any]
) -> dict[str, ActionTokenizer]:
    """Fit one byte-pair encoding over all motion sets, as FAST+; each keeps its normalisation.

    Every set counts with as many chunks as the smallest has, at least 2000.
    """
    prepared = {name: _training_chunks(motions) for name, motions in sets.items()}
    least = max(2000, min(len(chunks) for _, chunks in prepared.values()))
    rounded = {
        name: coefficients(_thin(chunks, least), fields['scale'])
        for name, (_, chunks) in prepared.items()
    }
    limits = {
        'lowest': min(int(r.min()) for r in rounded.values()),
        'highest': max(int(r.max()) for r in rounded.values()),
    }
    size = _vocabulary(fields['vocab_size'], limits['lowest'], limits['highest'])
    fields = {**fields, 'vocab_size': size}
    configs = {
        name: FastConfig(**_shape(motions), **fields, **limits) for name, motions in sets.items()
    }
    rows = [row for r in rounded.values() for row in r]
    bpe = train_bpe(next(iter(configs.values())), rows)
    return {name: Fast(configs[name], prepared[name][0], bpe) for name in sets}


def _vocabulary(size: int, lowest: int, highest: int) -> int:
    """Return FAST's vocabulary: `size`, on top of the coefficients if these alone need more."""
    values = int(highest) - int(lowest) + 1
    return size if values <= size else values + size


def _training_chunks(motions: MotionSet) -> tuple[ActionNormalizer, np.ndarray]:
    """Return the statistics of all training chunks, and normalised ones to fit on."""
    chunks = motions.chunks(TRAIN)
    normalizer = ActionNormalizer.fit(chunks, motions.embodiment)
    return normalizer, normalizer.normalize(_thin(chunks, FIT_CHUNKS))


def _thin(chunks: np.ndarray, count: int) -> np.ndarray:
    return chunks[:: -(-len(chunks) // count)]


def _shape(motions: MotionSet) -> dict[str, Any]:
    return {
        'horizon': motions.embodiment.action_horizon,
        'action_dim': motions.embodiment.action_dim,
        'velocity_dims': velocity_dims(motions.embodiment),
    }


def _config_of(run: pathlib.Path) -> dict[str, Any]:
    return json.loads((run / 'config.json').read_text())
