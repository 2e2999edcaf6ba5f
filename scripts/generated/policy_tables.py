"""Tables of what was measured of the policy: success, times, engines, learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.generated.reports import machine, read, ROOT


def success_table() -> str:
    """Return success per instruction, without ROS and through it, from the two reports."""
    offline, ros = read('eval'), read('eval_ros')
    lines = ['| instruction | without ROS | through ROS |', '|---|---|---|']
    rows = {**offline['per_instruction'], '**all**': offline}
    other = {**ros['per_instruction'], '**all**': ros}
    lines += [
        f'| {text} | {_rate(row)} | {_rate(other.get(text))} |' for text, row in rows.items()
    ]
    pairs = ros['paired']
    return '\n'.join(
        (
            *lines,
            '',
            f'Seeds {_seeds(offline)} without ROS and {_seeds(ros)} through it, 95 % Wilson '
            f'intervals; {machine(offline["machine"])}. Paired: {pairs["pairs"]} episodes, '
            f'difference {100 * pairs["difference"]:+.1f} points through ROS.',
        )
    )


def control_table() -> str:
    """Return what the policy does with another instruction, without sight, and the baselines."""
    if not (ROOT / 'docs' / 'results' / 'controls.json').exists():
        return 'Not measured for this checkpoint yet.'
    controls, changed = read('controls'), read('eval_ros')['changed']
    swapped = controls['swapped']
    lines = [
        '| control | episodes | success |',
        '|---|---|---|',
        f'| same scenes, another instruction: the given task | {swapped["episodes"]} | '
        f'{_percent(swapped["given_rate"])} |',
        f"| … the scene's original task | {swapped['episodes']} | "
        f'{_percent(swapped["original_rate"])} |',
        _control('images of another scene', controls['other_images']),
        _control('zero action', controls['baselines']['zero_action']),
        _control('mean trajectory of the instruction', controls['baselines']['mean_trajectory']),
    ]
    if changed:
        lines.append(_control('instruction changed after 1.5 s of motion, through ROS', changed))
    return '\n'.join(lines)


def latency_table() -> str:
    """Return milliseconds by stage, alone and in the running graph, and what the wire showed."""
    alone, ros = read('bench'), read('eval_ros')
    lines = ['| milliseconds | p50 | p95 | p99 |', '|---|---|---|---|']
    lines.append(_percentiles('**policy alone**', alone['latency_ms']))
    for stage, values in alone['stages_ms'].items():
        if stage != 'total_ms':
            lines.append(_percentiles(stage.removesuffix('_ms'), values))
    lines.append(_percentiles('**inside the running graph**', ros['latency_ms']))
    for stage, values in ros['stages_ms'].items():
        if stage != 'total_ms':
            lines.append(_percentiles(stage.removesuffix('_ms'), values))
    lines.append(_percentiles('first command less inference', ros['first_command_ms']))
    return '\n'.join(
        (
            *lines,
            '',
            f'Batch 1, {alone["cameras"]} cameras, {alone["tokens"]} tokens in {alone["blocks"]} '
            f'blocks, {alone["dtype"]}, {alone["threads"]} threads alone and 1 in the graph; '
            f'{machine(alone["machine"])}. Graph: {ros["chunks"]} chunks, real-time factor '
            f'{ros["rtf"]:.3f} on average and {ros["rtf_min"]:.3f} in the worst episode.',
        )
    )


def overfit_table() -> str:
    """Return how well every backbone family learnt 64 chunks by heart."""
    report = read('overfit')
    rows = [
        f'| {name} | {r["accuracy"]:.2%} | {r["steps"]} | {r["seconds"]:.0f} |'
        for name, r in report['families'].items()
    ]
    head = ['| family | codes right | steps | seconds |', '|---|---|---|---|']
    return '\n'.join([*head, *rows, '', f'{machine(report["machine"])}.'])


def speed_table() -> str:
    """Return the table of `faster-vla bench policy` on the shipped policy."""
    from faster_core.evaluation.speed.measure import MANY_PASSES, MANY_PASSES_EVERY
    from faster_core.evaluation.speed.report import table

    report = read('bench_policy')
    return (
        f'{table(report)} `faster-vla bench policy --iterations {report["n_runs"]} --json` (heads '
        f'of more than {MANY_PASSES} passes in every {MANY_PASSES_EVERY}th round), '
        f'{machine(report["machine"])}, commit {report["git_sha"][:10]}.'
    )


def engine_agreement() -> str:
    """Return whether engines give the oracle's codes."""
    report = read('engines')
    rows = [
        f'| {name} | {row["same"]:,} | {row["close"]} | {row["wrong"]} | {row["error"]:.1e} |'
        for name, row in report['engines'].items()
    ]
    return '\n'.join(
        [
            f'Greedy codes of {report["observations"]:,} recorded observations (`faster-vla bench '
            'agreement --episodes DEMOS --iterations 1000`), all of an observation the same as '
            f"`eager`'s, or different where its two best logits are closer than "
            f'{report["margin"]:g}, or elsewhere; and the largest difference of a value:',
            '',
            '| engine | same | close | wrong | difference |',
            '|---|---|---|---|---|',
            *rows,
        ]
    )


def remote_table() -> str:
    """Return what `faster-vla bench-remote` measured."""
    report = read('remote')
    lines = ['| milliseconds | request | p50 | p95 | p99 | less decoding: p50 | p95 | p99 |']
    lines.append('|---' * 8 + '|')
    for row in report['rows']:
        cells = [
            f'{row[key][q]:.1f}'
            for key in ('overhead_ms', 'overhead_less_decode_ms')
            for q in ('p50', 'p95', 'p99')
        ]
        name = f'{row["width"]} x {row["height"]}, {row["images"]}'
        lines.append(f'| {name} | {row["request_kb"]:.0f} kB | {" | ".join(cells)} |')
    first = report['rows'][0]
    return '\n'.join(
        (
            *lines,
            '',
            f'{first["iterations"]} calls each, {first["cameras"]} cameras, one client, the '
            f'shipped checkpoint ({first["predict_ms"]["p50"]:.0f} ms an inference); '
            f'{machine(report["machine"])}.',
        )
    )


def _seeds(report: Mapping[str, Any]) -> str:
    return f'{report["seeds"][0]}–{report["seeds"][-1]}'


def _control(text: str, row: Mapping[str, Any]) -> str:
    return f'| {text} | {row["episodes"]} | {_percent(row["success_rate"])} |'


def _rate(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return '–'
    low, high = (_percent(v) for v in row['wilson'])
    done = round(row['success_rate'] * row['episodes'])
    return f'{done} of {row["episodes"]} ({low}–{high})'


def _percentiles(text: str, values: Mapping[str, float]) -> str:
    return f'| {text} | ' + ' | '.join(f'{values[q]:.1f}' for q in ('p50', 'p95', 'p99')) + ' |'


def _percent(rate: float) -> str:
    return f'{100 * rate:.0f} %'
