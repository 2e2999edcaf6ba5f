"""The report of an evaluation: one JSON object, or a table for people. Knows no ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import math
from typing import Any

from faster_core.evaluation.machine import describe_machine
from faster_core.evaluation.run import (
    MEAN_TRAJECTORY,
    OTHER_IMAGES,
    POLICY,
    rates,
    summarize,
    summarize_swapped,
    SWAPPED,
    ZERO_ACTION,
)
from faster_core.evaluation.statistics import percentiles
from faster_core.provenance import git_commit

CHANGED = 'changed'
_AUTO = {'engine': 'auto', 'dtype': 'auto'}
_NOT_RUN = dict.fromkeys(
    (
        'success_rate',
        'wilson',
        'mean_seconds',
        'per_instruction',
        'chunks',
        'rejected_chunks',
        'latency_ms',
        'stages_ms',
    )
)


def build_report(
    results: Mapping[str, Sequence[Any]],
    *,
    robot: str,
    seeds: Sequence[int],
    via_ros: bool,
    checkpoint_sha: str | None,
    policy_options: Mapping[str, str] | None = None,
    real_seconds: float | None = None,
    paired: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """Add up an evaluation; every key is always there, None for what was not run.

    Args:
        results: what was evaluated -> its episodes: `EpisodeResult`, or the twin through ROS,
            which also has `real_time_factor`, `first_command_ms`, `observation_age_ms` and
            `flush_ms`.
        robot: name of the embodiment.
        seeds: scenes of every instruction.
        via_ros: through the ROS graph.
        checkpoint_sha: of the policy; None if none was needed.
        policy_options: the `engine` and `dtype` that were asked for; None for the default of both.
        real_seconds: what the policy's episodes took, for episodes that need not be real time.
        paired: `records.paired` of this run and another one.
        error: why episodes are missing.
    """
    policy = results.get(POLICY) or ()
    return {
        'robot': robot,
        'episodes': len(policy),
        'seeds': list(seeds),
        'via_ros': via_ros,
        **(_NOT_RUN | (summarize(policy) if policy else {})),
        SWAPPED: _part(results, SWAPPED, summarize_swapped),
        OTHER_IMAGES: _part(results, OTHER_IMAGES, rates),
        'baselines': {who: rates(results[who]) for who in _BASELINES if results.get(who)} or None,
        CHANGED: _part(results, CHANGED, _changed),
        **(_ros_timing(policy) if via_ros else _NO_ROS_TIMING),
        'simulated_per_real_second': _simulated_rate(policy, real_seconds),
        'paired': paired,
        'error': error,
        'checkpoint_sha': checkpoint_sha,
        **(_AUTO | dict(policy_options or {})),
        'git_sha': git_commit() or None,
        'machine': describe_machine(),
    }


def to_json(report: Mapping[str, Any]) -> str:
    """Return one line of JSON; what is not a finite number becomes null."""
    return json.dumps(_finite(report), allow_nan=False)


def to_table(report: Mapping[str, Any]) -> str:
    """Return lines for people: success by instruction, then what else was measured."""
    lines = []
    if report['success_rate'] is not None:
        rows = {**report['per_instruction'], 'all instructions': report}
        lines += [_rate_line(text, row) for text, row in rows.items()]
    if swapped := report[SWAPPED]:
        lines.append(
            f'{"other instruction":<44} given task {_percent(swapped["given_rate"])}, '
            f'original task {_percent(swapped["original_rate"])} of {swapped["episodes"]}'
        )
    if images := report[OTHER_IMAGES]:
        lines.append(_rate_line('images of another scene', images))
    for who, row in (report['baselines'] or {}).items():
        lines.append(_rate_line(f'baseline {who.replace("_", " ")}', row))
    if changed := report[CHANGED]:
        lines.append(_rate_line('instruction changed in mid-motion', changed))
        lines.append(_percentile_line('plan dropped after', changed['flush_ms']))
    lines.append(_percentile_line('inference', report['latency_ms']))
    for stage, values in (report['stages_ms'] or {}).items():
        if stage != 'total_ms':
            lines.append(_percentile_line(f'  {stage.removesuffix("_ms")}', values))
    lines.append(_percentile_line('observation age', report['observation_age_ms']))
    lines.append(_percentile_line('first command less inference', report['first_command_ms']))
    if report['rtf'] is not None:
        factors = f'mean {report["rtf"]}, lowest {report["rtf_min"]}'
        lines.append(f'{"real-time factor":<44} {factors}')
    if pairs := report['paired']:
        lines.append(f'{"paired with the other file":<44} {json.dumps(pairs)}')
    if report['error']:
        lines.append(f'INCOMPLETE: {report["error"]}')
    return '\n'.join(line for line in lines if line)


_BASELINES = (ZERO_ACTION, MEAN_TRAJECTORY)
_NO_ROS_TIMING = dict.fromkeys(('rtf', 'rtf_min', 'first_command_ms', 'observation_age_ms'))


def _part(results: Mapping[str, Sequence[Any]], who: str, add_up: Any) -> dict[str, Any] | None:
    return add_up(results[who]) if results.get(who) else None


def _changed(results: Sequence[Any]) -> dict[str, Any]:
    flushes = [r.flush_ms for r in results if r.flush_ms is not None]
    return {**rates(results), 'flushes': len(flushes), 'flush_ms': percentiles(flushes)}


def _ros_timing(results: Sequence[Any]) -> dict[str, Any]:
    if not results:
        return _NO_ROS_TIMING
    factors = [r.real_time_factor for r in results]
    first = [v for r in results for v in r.first_command_ms]
    return {
        'rtf': round(sum(factors) / len(factors), 4),
        'rtf_min': round(min(factors), 4),
        'first_command_ms': {**percentiles(first), 'chunks': len(first)},
        'observation_age_ms': percentiles([v for r in results for v in r.observation_age_ms]),
    }


def _simulated_rate(results: Sequence[Any], real_seconds: float | None) -> float | None:
    if not results or not real_seconds:
        return None
    return round(sum(r.seconds for r in results) / real_seconds, 3)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _percent(rate: float) -> str:
    return f'{100 * rate:.0f} %'


def _rate_line(text: str, row: Mapping[str, Any]) -> str:
    low, high = row['wilson']
    time = '' if row['mean_seconds'] is None else f'  in {row["mean_seconds"]:.1f} s'
    return (
        f'{text:<44} {round(row["success_rate"] * row["episodes"]):4d} of {row["episodes"]:<4d} '
        f'{_percent(row["success_rate"]):>5}  [{_percent(low)}, {_percent(high)}]{time}'
    )


def _percentile_line(text: str, values: Mapping[str, float] | None) -> str:
    if not values or 'p50' not in values:
        return ''
    parts = '  '.join(f'{name} {values[name]:7.1f}' for name in ('p50', 'p95', 'p99'))
    return f'{text:<44} {parts} ms'
