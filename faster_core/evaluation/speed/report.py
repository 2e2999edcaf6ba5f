"""The measurement as a table and as stacked bars."""

from __future__ import annotations

import pathlib
import statistics
from typing import Any

# In the order they happen.
STAGES = ('preprocess', 'vision', 'prefill', 'decode', 'detokenize')

# Times the median from which on a bar is cut off.
OUTLIER = 5.0


def table(report: dict[str, Any]) -> str:
    """Return Markdown: a row per engine and head, then what the hardware allows."""
    lines = [
        '| engine | head | passes | total p50 | p95 | p99 | '
        + ' | '.join(STAGES)
        + ' | memory, MB |',
        '|---' * (7 + len(STAGES)) + '|',
    ]
    for engine, heads in report['engines'].items():
        for key, row in heads.items():
            total, stages = row['total_ms'], row['stages_ms']
            parts = ' | '.join(f'{_p50(stages, stage):.2f}' for stage in STAGES)
            lines.append(
                f'| {engine} | {key} | {row["passes"]} | {total["p50"]:.2f} | '
                f'{total["p95"]:.2f} | {total["p99"]:.2f} | {parts} | {row["memory_mb"]:.0f} |'
            )
    lines += [
        '',
        '| head | TFLOP | weights read, GB | least time, ms | best engine | of it |',
        '|---' * 6 + '|',
    ]
    for key, row in report['asked'].items():
        best, share = row.get('best_engine', '-'), row.get('share_of_limit', 0.0)
        lines.append(
            f'| {key} | {row["tflop"]:.4g} | {row["gbyte"]:.4g} | {row["limit_ms"]:.3g} | '
            f'{best} | {share:.0%} |'
        )
    lines += [
        '',
        f'Milliseconds, p50 of the stages. {report["n_runs"]} rounds, {report["device"]} '
        f'{report["dtype"]}, {report["threads"]} threads, torch {report["torch"]}; measured peaks '
        f'{report["peak_tflops"]:.3g} TFLOP/s and {report["bandwidth_gbs"]:.3g} GB/s.',
    ]
    return '\n'.join(lines)


def _p50(stages: dict[str, Any], stage: str) -> float:
    return stages.get(f'{stage}_ms', {}).get('p50', 0.0)


def draw(report: dict[str, Any], path: str | pathlib.Path) -> None:
    """Write stacked bars of the stages, an engine and head each."""
    from matplotlib.figure import Figure

    rows = [
        (f'{engine}  {key}', row)
        for engine, heads in report['engines'].items()
        for key, row in heads.items()
    ]
    figure = Figure(figsize=(8.0, 0.9 + 0.24 * len(rows)), layout='constrained')
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for stage in STAGES:
        widths = [_p50(row['stages_ms'], stage) for _, row in rows]
        axes.barh(range(len(rows)), widths, left=left, label=stage, height=0.75)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    totals = [row['total_ms']['p50'] for _, row in rows]
    # A head of hundreds of passes would squeeze all others: its bars end at the edge.
    edge = 1.1 * max(t for t in totals if t <= OUTLIER * statistics.median(totals))
    for place, (end, total) in enumerate(zip(left, totals, strict=True)):
        cut, where = (' →', edge) if total > edge else ('', max(end, total))
        axes.text(
            where, place, f' {total:.1f}{cut}', va='center', fontsize=7, backgroundcolor='white'
        ).set_bbox({'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5})
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel('milliseconds, p50')
    axes.set_title(f'{report["preset"]}, {report["device"]}, {report["dtype"]}', fontsize=9)
    axes.set_xlim(0, 1.12 * edge)
    figure.legend(fontsize=7, loc='outside lower center', ncols=len(STAGES))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
