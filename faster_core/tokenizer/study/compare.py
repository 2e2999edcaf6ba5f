"""Evaluating what `fit-all` left in the cache: one report over all tokenizers and data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np

from faster_core.data.motions import HELD_OUT, HELD_OUT_TASK, TRAIN
from faster_core.provenance import git_commit
from faster_core.tokenizer import metrics
from faster_core.tokenizer.evaluate import code_counts, evaluate, reconstruct
from faster_core.tokenizer.interface import ActionTokenizer
from faster_core.tokenizer.normalizer import ActionNormalizer
from faster_core.tokenizer.rvq import RvqTokenizer
from faster_core.tokenizer.study import curves
from faster_core.tokenizer.study.fit_all import Study
from faster_core.tokenizer.study.plan import Entry, FASTER

# Chunks per evaluation: enough for three digits, few enough for the whole report in minutes.
HEADLINE_CHUNKS, POINT_CHUNKS = 4000, 2000
# Codes per level and data set that are counted for the statistics of a joint model.
COUNTED_CODES = 120_000


def compare(
    study: Study, on_entry: Callable[[Entry], None] | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Evaluate all that is fitted.

    Returns:
        'datasets': set -> tokenizer -> everything `evaluate` measures (headline points, held-out
        episodes); 'held_out_tasks': the same, short, on tasks never trained on; 'curves': set ->
        tokenizer -> operating points; 'against': set -> rival -> comparison at equal tokens;
        'ablations': set -> label -> short report; 'joint': label -> one model over several sets:
        'data', 'weights', 'held_out', 'held_out_tasks' and 'strangers' (set -> short report) and
        'codes' per level; 'missing': titles of what is not fitted yet.
    """
    report: dict[str, Any] = {
        'git_sha': git_commit(),
        'datasets': {name: {} for name in study.config.data},
        'held_out_tasks': {},
        'curves': {name: {} for name in study.config.data},
        'ablations': {},
        'joint': {},
        'missing': [],
    }
    for entry in study.entries:
        if on_entry is not None:
            on_entry(entry)
        if not study.is_fitted(entry):
            report['missing'].append(entry.title)
            continue
        if entry.kind == 'joint':
            report['joint'][entry.label] = _joint(study, entry)
            continue
        for data in entry.data:
            tokenizer = study.load(entry, data)
            short = _short(study, tokenizer, data)
            ablations = report['ablations'].setdefault(data, {})
            if entry.kind == 'headline':
                report['datasets'][data][entry.name] = _headline(study, entry, tokenizer, data)
                _held_out_task(study, entry, tokenizer, data, report)
                if entry.name == FASTER:
                    ablations['headline'] = short[-1]
                    ablations['headline, greedy encoding'] = _short(
                        study, _greedy(tokenizer), data
                    )[-1]
            if entry.kind == 'ablation':
                ablations[entry.label] = short[-1]
            else:
                points = report['curves'][data].setdefault(entry.name, [])
                points += [{**s, 'label': f'{entry.label} {s["label"]}'.strip()} for s in short]
    report['against'] = {
        data: curves.compare_curves(
            {k: [_point(p) for p in points] for k, points in by_name.items()}, FASTER
        )
        for data, by_name in report['curves'].items()
        if FASTER in by_name
    }
    return report


def _headline(study: Study, entry: Entry, tokenizer: ActionTokenizer, data: str) -> dict[str, Any]:
    motions = study.motions(data)
    chunks = _thinned(motions.chunks(HELD_OUT), HEADLINE_CHUNKS)
    episodes = motions.episode_chunks(HELD_OUT)
    return {**evaluate(tokenizer, motions.embodiment, chunks, episodes), **study.cost(entry)}


def _held_out_task(
    study: Study, entry: Entry, tokenizer: ActionTokenizer, data: str, report: dict[str, Any]
) -> None:
    motions = study.motions(data)
    if HELD_OUT_TASK in motions.splits:
        chunks = _thinned(motions.chunks(HELD_OUT_TASK), POINT_CHUNKS)
        values = _reconstruction(tokenizer, chunks)
        report['held_out_tasks'].setdefault(data, {})[entry.name] = values


def _short(study: Study, tokenizer: ActionTokenizer, data: str) -> list[dict[str, Any]]:
    """Return tokens, VRR and L1; of a residual quantiser with every number of levels."""
    chunks = _thinned(study.motions(data).chunks(HELD_OUT), POINT_CHUNKS)
    if not isinstance(tokenizer, RvqTokenizer):
        return [{'label': '', **_reconstruction(tokenizer, chunks)}]
    codes = tokenizer.encode(chunks)
    rows = []
    for levels in range(1, tokenizer.config.num_levels + 1):
        values = _errors(tokenizer, chunks, tokenizer.decode(codes, num_levels=levels))
        tokens = float(levels * np.prod(tokenizer.config.latent_shape))
        rows.append({'label': f'{levels} levels', 'tokens': tokens, **values})
    return rows


def _reconstruction(tokenizer: ActionTokenizer, chunks: np.ndarray) -> dict[str, float]:
    made = reconstruct(tokenizer, chunks)
    tokens = float(np.mean([len(t) for t in made.tokens]))
    return {'tokens': tokens, **_errors(tokenizer, chunks, made.decoded)}


def _errors(
    tokenizer: ActionTokenizer, truth: np.ndarray, decoded: np.ndarray
) -> dict[str, float]:
    moving = metrics.moving_dimensions(truth)
    error = (truth - decoded)[..., moving]
    normal = error / tokenizer.normalizer.half_range[moving]
    return {
        **{f'vrr_{metrics.sigma_name(s)}': metrics.vrr(error, s, 'dim') for s in metrics.SIGMAS},
        'l1': float(np.abs(normal).mean()),
    }


def _greedy(tokenizer: ActionTokenizer) -> ActionTokenizer:
    """Return the same tokenizer, encoding level by level."""
    config = dataclasses.replace(tokenizer.config, encode_beam=1)
    return type(tokenizer)(config, tokenizer.normalizer, tokenizer.model)


def _joint(study: Study, entry: Entry) -> dict[str, Any]:
    """Return what one model does on each of its sets, and on those it was not trained on."""
    weights = dict(entry.fields['weights'])
    result: dict[str, Any] = {'data': list(entry.data), 'weights': weights, **study.cost(entry)}
    result |= {'held_out': {}, 'held_out_tasks': {}, 'strangers': {}}
    counts = []
    for data in entry.data:
        tokenizer, motions = study.load(entry, data), study.motions(data)
        held_out = motions.chunks(HELD_OUT)
        result['held_out'][data] = _short(study, tokenizer, data)[-1]
        if HELD_OUT_TASK in motions.splits:
            chunks = _thinned(motions.chunks(HELD_OUT_TASK), POINT_CHUNKS)
            result['held_out_tasks'][data] = _reconstruction(tokenizer, chunks)
        counted = _thinned(held_out, COUNTED_CODES // int(np.prod(tokenizer.config.latent_shape)))
        counts.append(code_counts(tokenizer, reconstruct(tokenizer, counted).tokens))
    for data, fields in entry.strangers.items():
        motions = study.motions(data)
        # Where its joints can be is known of any robot; how they move is what is tried here.
        everything = np.concatenate([motions.chunks(TRAIN), motions.chunks(HELD_OUT)])
        normalizer = ActionNormalizer.fit(everything, motions.embodiment)
        stranger = study.load(entry, entry.data[0]).for_robot(
            motions.embodiment, normalizer, **fields
        )
        chunks = _thinned(motions.chunks(HELD_OUT), POINT_CHUNKS)
        result['strangers'][data] = _reconstruction(stranger, chunks)
    # One codebook per level for all sets, so its uses add up.
    pooled = np.sum(counts, axis=0)
    result['codes'] = {
        'tokens_per_level': int(pooled[0].sum()),
        'levels': [metrics.code_statistics(row) for row in pooled],
    }
    return result


def _point(values: dict[str, Any]) -> curves.Point:
    return curves.Point(
        label=values['label'], tokens=values['tokens'], vrr=values['vrr_1e-3'], l1=values['l1']
    )


def _thinned(chunks: np.ndarray, count: int) -> np.ndarray:
    return chunks[:: -(-len(chunks) // count)]


def as_points(values: Sequence[dict[str, Any]]) -> list[curves.Point]:
    """Return the points of one curve of a report."""
    return [_point(v) for v in values]
