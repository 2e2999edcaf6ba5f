"""Tables of what was measured of the tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.generated.reports import machine, read


def tokenizer_table() -> str:
    """Return VRR, L1 and tokens of every tokenizer on every data set, and who wins where."""
    report = read('tokenizers')
    sets = list(report['datasets'])
    names = list(dict.fromkeys(n for rows in report['datasets'].values() for n in rows))
    names.sort(key=lambda n: n != 'faster')
    lines = ['| | ' + ' | '.join(sets) + ' |', '|---' * (len(sets) + 1) + '|']
    for name in names:
        cells = []
        for data in sets:
            row = report['datasets'][data].get(name)
            cells.append(
                f'{row["vrr_1e-3"]:.3f}, {row["l1"]:.4f}, {row["tokens_mean"]:.0f}' if row else '–'
            )
        lines.append(f'| {f"**{name}**" if name == "faster" else name} | {" | ".join(cells)} |')
    rivals = list(dict.fromkeys(n for v in report['against'].values() for n in v))
    lines += [
        '',
        '| at equal tokens against | ' + ' | '.join(sets) + ' |',
        '|---' * (len(sets) + 1) + '|',
    ]
    for rival in rivals:
        cells = [_versus(report['against'].get(data, {}).get(rival)) for data in sets]
        lines.append(f'| {rival} | {" | ".join(cells)} |')
    chunks = {d: r['faster']['n_chunks'] for d, r in report['datasets'].items() if 'faster' in r}
    return '\n'.join(
        (
            *lines,
            '',
            'First table: VRR at 1e-3 (SI units, per value), L1 (normalised), mean tokens per '
            'chunk. Second: points of the rival where ours is better in VRR *and* L1 at the same '
            'number of tokens (interpolated along our curve); mean VRR over the tokens both '
            'cover, ours against theirs. Held-out episodes, '
            + ', '.join(f'{n:,} chunks of {d}' for d, n in chunks.items())
            + f'; {machine(report["machine"])}.',
        )
    )


def _versus(result: Mapping[str, Any] | None) -> str:
    if result is None or not result['matched']:
        return '–'
    better = [
        row['vrr'][0] > row['vrr'][1] and row['l1'][0] < row['l1'][1] for row in result['matched']
    ]
    text = f'{sum(better)} of {len(better)}'
    if result['areas'] is not None:
        ours, theirs = result['areas']
        text += f'; {ours:.3f} to {theirs:.3f}'
    return text


def comparison() -> str:
    """Return the whole report of `faster-vla tokenizer compare`."""
    from faster_core.tokenizer.study.table import tables

    return tables(read('tokenizers')).rstrip()


def tokenizer_times() -> str:
    """Return what `faster-vla tokenizer bench` measured."""
    report = read('tokenizer_bench')
    lines = ['| preset | tokens | parameters | decode p50, p99 | encode p50 |', '|---' * 5 + '|']
    for name, r in report['presets'].items():
        decode = r['decode_ms']
        lines.append(
            f'| `{name}` | {r["tokens"]} | {r["params"] / 1e6:.1f} M | {decode["p50"]:.1f}, '
            f'{decode["p99"]:.1f} ms | {r["encode_ms"]["p50"]:.1f} ms |'
        )
    lines += ['', '| quantiser | ms per step | encode, ms | error | code use | largest code |']
    lines.append('|---' * 6 + '|')
    for name, r in report['quantizer'].items():
        use = ', '.join(f'{level["code_use"]:.0%}' for level in r['levels'])
        largest = ', '.join(f'{level["largest_code"]:.1%}' for level in r['levels'])
        lines.append(
            f'| {name} | {r["step_ms"]:.1f} | {r["encode_ms"]:.0f} | {r["error"]:.3f} | {use} | '
            f'{largest} |'
        )
    threads = f'{report["threads"]} thread' + ('s' if report['threads'] > 1 else '')
    return '\n'.join((*lines, '', f'{threads}; {machine(report["machine"])}.'))
