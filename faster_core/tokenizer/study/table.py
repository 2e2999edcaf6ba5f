"""The report of `compare` as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faster_core.tokenizer.study.plan import FASTER, NAMES

_COLUMNS = (
    ('VRR 1e-3', 'vrr_1e-3', '{:.3f}'),
    ('5e-3', 'vrr_5e-3', '{:.3f}'),
    ('1e-2', 'vrr_1e-2', '{:.3f}'),
    ('L1', 'l1', '{:.4f}'),
    ('tokens', 'tokens_mean', '{:.1f}'),
    ('kbit/s', 'bits_per_s', '{:.2f}'),
    ('code use', 'code_use', '{:.0%}'),
    ('entropy', 'entropy', '{:.2f}'),
    ('random strings that decode', 'decodable', '{:.0%}'),
    ('beyond range', 'clipped', '{:.2%}'),
    ('border jump', 'border_jump', '{:.2f}'),
    ('parameters', 'params', '{:,}'),
    ('decode p50, ms', 'decode_ms', '{:.2f}'),
    ('fit, s', 'seconds', '{:.0f}'),
)


def tables(report: Mapping[str, Any]) -> str:
    """Return a table per data set, then the comparisons at equal numbers of tokens."""
    parts = []
    for data, rows in report['datasets'].items():
        parts += [f'### {data}', '', _headlines(rows), '']
        parts += [*_levels(rows), *_held_out_tasks(report.get('held_out_tasks', {}).get(data))]
        if versus := report.get('against', {}).get(data):
            parts += [_against(versus), '']
        if ablations := report['ablations'].get(data):
            parts += [_ablations(ablations), '']
    if report.get('joint'):
        parts += ['### one model over several data sets', '', _joint(report['joint'])]
    if report.get('missing'):
        parts += ['', f'Not fitted: {", ".join(report["missing"])}.']
    return '\n'.join(parts).rstrip() + '\n'


def _joint(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ['| model | trained on | evaluated on | tokens | VRR 1e-3 | L1 |', '|---' * 6 + '|']
    for label, row in rows.items():
        for kind, title in (
            ('held_out', 'held-out episodes'),
            ('held_out_tasks', 'held-out tasks'),
            ('strangers', 'a robot not trained on'),
        ):
            lines += [
                f'| {label} | {_shares(row)} | {data}, {title} | {r["tokens"]:.0f} | '
                f'{r["vrr_1e-3"]:.3f} | {r["l1"]:.4f} |'
                for data, r in row[kind].items()
            ]
    lines += ['', '| model | level | tokens | code use | entropy | largest code |']
    lines.append('|---' * 6 + '|')
    for label, row in rows.items():
        lines += [
            f'| {label} | {level} | {row["codes"]["tokens_per_level"]:,} | {s["code_use"]:.1%} | '
            f'{s["entropy"]:.3f} | {s["largest_code"]:.2%} |'
            for level, s in enumerate(row['codes']['levels'], 1)
        ]
    return '\n'.join(lines)


def _shares(row: Mapping[str, Any]) -> str:
    """Return what a model was trained on, with the shares of a batch unless they are equal."""
    weights = row.get('weights', {})
    return ', '.join(
        f'{name} {weights.get(name, 1):g}' if weights else name for name in row['data']
    )


def _headlines(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        '| tokenizer | ' + ' | '.join(title for title, _, _ in _COLUMNS) + ' |',
        '|---' * (len(_COLUMNS) + 1) + '|',
    ]
    for name in NAMES:
        if name in rows:
            cells = [_cell(rows[name].get(key), key, form) for _, key, form in _COLUMNS]
            title = f'**{name}**' if name == FASTER else name
            lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _levels(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if FASTER not in rows:
        return []
    row = rows[FASTER]
    errors = ', '.join(f'{e:.4f}' for e in row['l1_by_levels'])
    codes = '; '.join(
        f'{s["code_use"]:.1%}, {s["entropy"]:.3f}, {s["largest_code"]:.1%}' for s in row['levels']
    )
    return [
        f'{FASTER}, L1 with 1, 2, ... levels: {errors}. Code use, entropy, largest code of every '
        f'level: {codes}.',
        '',
    ]


def _held_out_tasks(rows: Mapping[str, Mapping[str, float]] | None) -> list[str]:
    if not rows:
        return []
    cells = ', '.join(f'{n} {r["vrr_1e-3"]:.3f} ({r["l1"]:.4f})' for n, r in rows.items())
    return [f'On tasks that nothing was fitted on, VRR 1e-3 (L1): {cells}.', '']


def _cell(value: Any, key: str, form: str) -> str:
    if value is None:
        return '–'
    if isinstance(value, Mapping):
        value = value['p50']
    return form.format(value / 1000 if key == 'bits_per_s' else value)


def _against(versus: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        '| at the tokens of | tokens | VRR 1e-3 ours, theirs | L1 ours, theirs | better in both |',
        '|---|---|---|---|---|',
    ]
    for name, result in versus.items():
        for row in result['matched']:
            (vrr, other), (l1, their_l1) = row['vrr'], row['l1']
            better = 'yes' if vrr > other and l1 < their_l1 else '**no**'
            lines.append(
                f'| {name} {row["label"]} | {row["tokens"]:.1f} | {vrr:.3f}, {other:.3f} | '
                f'{l1:.4f}, {their_l1:.4f} | {better} |'
            )
        if result['areas'] is not None:
            ours, theirs = result['areas']
            better = 'yes' if ours > theirs else '**no**'
            lines.append(
                f'| {name}, mean over the curve | | {ours:.3f}, {theirs:.3f} | | {better} |'
            )
    return '\n'.join(lines)


def _ablations(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ['| ablation | tokens | VRR 1e-3 | L1 |', '|---|---|---|---|']
    lines += [
        f'| {label} | {r["tokens"]:.0f} | {r["vrr_1e-3"]:.3f} | {r["l1"]:.4f} |'
        for label, r in rows.items()
    ]
    return '\n'.join(lines)
