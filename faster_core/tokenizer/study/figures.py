"""Pictures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from faster_core.data.motions import HELD_OUT
from faster_core.tokenizer.evaluate import code_counts, reconstruct
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.plots import plot_code_use
from faster_core.tokenizer.study.compare import as_points
from faster_core.tokenizer.study.curves import frontier
from faster_core.tokenizer.study.fit_all import Study
from faster_core.tokenizer.study.plan import FASTER, NAMES

COLOURS = dict(zip(NAMES, ('C3', 'C0', 'C9', 'C7', 'C2', 'C4', 'C1'), strict=True))
CHUNKS = 500


def draw_all(study: Study, report: Mapping[str, Any], folder: pathlib.Path) -> list[pathlib.Path]:
    """Write every figure whose parts are fitted; returns the files."""
    import matplotlib as mpl

    mpl.use('Agg')
    folder.mkdir(parents=True, exist_ok=True)
    loaded = {
        data: {
            e.name: study.load(e, data)
            for e in study.entries
            if e.kind == 'headline' and data in e.data and study.is_fitted(e)
        }
        for data in study.config.data
    }
    return [
        _rate_distortion(report, folder / 'rate_distortion.png'),
        _vrr_curves(study, loaded, folder / 'vrr.png'),
        _traces(study, loaded, folder / 'traces.png'),
        _code_use(study, loaded, folder / 'codes.png'),
    ]


def _panels(count: int, width: float = 4.6, height: float = 3.4) -> tuple[Any, Sequence[Any]]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False)
    return figure, axes[0]


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _rate_distortion(report: Mapping[str, Any], path: pathlib.Path) -> pathlib.Path:
    sets = report['curves']
    figure, axes = _panels(len(sets))
    for axis, (data, curves) in zip(axes, sets.items(), strict=True):
        for name, values in curves.items():
            points = as_points(values)
            best = frontier(points)
            axis.plot(
                [p.tokens for p in best],
                [p.vrr for p in best],
                '-',
                color=COLOURS[name],
                label=name,
                linewidth=2.2 if name == FASTER else 1.2,
            )
            axis.plot(
                [p.tokens for p in points], [p.vrr for p in points], '.', color=COLOURS[name]
            )
        axis.set(xscale='log', xlabel='tokens per chunk', ylabel='VRR at 1e-3', title=data)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return _save(figure, path)


def _vrr_curves(
    study: Study, loaded: Mapping[str, Mapping[str, ActionTokenizer]], path: pathlib.Path
) -> pathlib.Path:
    figure, axes = _panels(len(loaded))
    sigmas = np.logspace(-4, -1, 40)
    for axis, (data, tokenizers) in zip(axes, loaded.items(), strict=True):
        chunks = _chunks(study, data)
        for name, tokenizer in tokenizers.items():
            error = np.abs(chunks - reconstruct(tokenizer, chunks).decoded)
            shares = [(error < s).mean() for s in sigmas]
            axis.plot(sigmas, shares, color=COLOURS[name], label=name)
        axis.set(xscale='log', xlabel='sigma (SI units)', ylabel='VRR', title=data)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return _save(figure, path)


def _traces(
    study: Study, loaded: Mapping[str, Mapping[str, ActionTokenizer]], path: pathlib.Path
) -> pathlib.Path:
    """Draw the dimension that moves most in the chunk that moves most."""
    figure, axes = _panels(len(loaded))
    for axis, (data, tokenizers) in zip(axes, loaded.items(), strict=True):
        chunks = _chunks(study, data)
        half = next(iter(tokenizers.values())).normalizer.half_range
        spread = (chunks.max(axis=1) - chunks.min(axis=1)) / half
        index = np.unravel_index(np.argsort(spread, axis=None)[-len(spread) // 50], spread.shape)
        chunk, column = chunks[index[0]], index[1]
        for name, tokenizer in tokenizers.items():
            decoded = tokenizer.decode(tokenizer.encode(chunk))
            axis.plot(decoded[:, column], color=COLOURS[name], label=name, linewidth=1.2)
        axis.plot(chunk[:, column], 'k--', label='truth', linewidth=1.2)
        axis.set(xlabel='row', ylabel=f'dimension {column}', title=data)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return _save(figure, path)


def _code_use(
    study: Study, loaded: Mapping[str, Mapping[str, ActionTokenizer]], path: pathlib.Path
) -> pathlib.Path:
    counts = {}
    for data, tokenizers in loaded.items():
        if FASTER in tokenizers:
            tokens = reconstruct(tokenizers[FASTER], study.motions(data).chunks(HELD_OUT)).tokens
            counts[data] = code_counts(tokenizers[FASTER], tokens)
    return plot_code_use(counts, path)


def _chunks(study: Study, data: str) -> np.ndarray:
    chunks = study.motions(data).chunks(HELD_OUT)
    return chunks[:: -(-len(chunks) // CHUNKS)]
