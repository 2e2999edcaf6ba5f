"""The table of docs/matrix.md, from docs/results/matrix.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cells import COLUMNS, ROWS, TITLES

BEGIN, END = '<!-- matrix: begin -->', '<!-- matrix: end -->'


def merged(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return results of all cells, new ones in place of old ones, in the order of the table."""
    by_cell = {(r['python'], r['column']): r for r in [*old, *new]}
    order = {(row, column): i for i, (row, column) in enumerate(_places())}
    return [by_cell[place] for place in sorted(set(by_cell) & set(order), key=order.get)]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a row per Python and the commits tested, from the results of all cells."""
    by_cell = {(r['python'], r['column']): r for r in results}
    lines = ['| Python | ' + ' | '.join(TITLES[c] for c in COLUMNS) + ' |', '|---' * 4 + '|']
    for row in ROWS:
        texts = [line(by_cell[row, column]) for column in COLUMNS]
        lines.append('| ' + ' | '.join([row, *texts]) + ' |')
    tested = sorted({r['commit'][:10] for r in results if r.get('commit')})
    lines += ['', f'Commit {", ".join(tested)}.' if tested else 'Nothing was run.']
    return '\n'.join(lines)


def filled(page: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return a page with the table between its marks.

    Raises:
        ValueError: the page does not have the two marks, in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f'expected {BEGIN} and {END} in the page, found not both')
    return f'{before}{BEGIN}\n{table(results)}\n{END}{after}'


def _places() -> list[tuple[str, str]]:
    return [(row, column) for row in ROWS for column in COLUMNS]


def line(result: Mapping[str, Any]) -> str:
    """Return what stands in one place of the table."""
    if result['status'] == 'not run':
        return f'not run: {result["why"]}'
    if 'passed' not in result:
        return f'**failed**: {result["why"]}'
    counts = f'{result["passed"]} passed, {result["skipped"]} skipped'
    if result['status'] == 'failed':
        counts = f'**{result["failed"]} failed**, {counts}; {result["why"]}'
    if result['column'] != 'none':
        counts += f', {"with" if result["torch"] else "no"} torch'
        counts += '' if result['whole'] else ', conversions and dispatcher only'
    return f'{counts}, {result["seconds"]:.0f} s'
