"""Tables of docs/reliability.md from the JSON files of the measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import json
import pathlib
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'results' / 'reliability'


def _report(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f'{name}.json').read_text(encoding='utf-8'))


def _source(name: str, report: Mapping[str, Any]) -> str:
    m = report['machine']
    where = f'{_machine(m)}, {m["scheduling"]}; load {m["load_1min"]:g} before'
    if 'stolen_percent' in m:
        where += f', {m["stolen_percent"]:g} % of the cores taken by its host'
    return f'`{report["command"]}`; {where}; commit {_commit(report["git_sha"])}. {_link(name)}'


def _machine(m: Mapping[str, Any]) -> str:
    return f'{m["cores"]} cores of an {m["cpu"]}, Python {m["python"]}'


def _link(name: str) -> str:
    return f'[{name}.json](results/reliability/{name}.json)'


def _commit(git_sha: str) -> str:
    """Return a short commit; what was not committed when it was measured stays visible."""
    commit, plus, changes = git_sha.partition('+')
    return commit[:10] + plus + changes


def _yes(met: bool) -> str:
    return 'yes' if met else '**no**'


def _percentiles(figures: Mapping[str, float]) -> str:
    """Return the cells p50, p99, p99.9 and max."""
    return ' | '.join(f'{figures[q]:.2f}' for q in ('p50', 'p99', 'p999', 'max'))


def _section(lines: list[str], text: str, name: str, report: Mapping[str, Any]) -> str:
    """Return a table, what is to be said about it, and where it came from."""
    return '\n'.join([*lines, '', text, '', _source(name, report)])


def failures(name: str = 'failures') -> str:
    """Return the failure table: from trigger and from fault to the first safe command."""
    report = _report(name)
    lines = [
        '| event | counts from | N | p50 | p99 | max | allowed | met | from fault: p50 | max |',
        '|---' * 10 + '|',
    ]
    for row in report['rows']:
        if 'from_trigger_ms' not in row:
            continue
        judged, total = row['from_trigger_ms'], row['from_fault_ms']
        trigger, allowed = row['trigger'], f'{row["allowed_ms"]:.0f}'
        if row['judged'] == 'from_fault':
            allowed += ' from the fault'
        n = f'{row["repetitions"]}'
        if row['never_safe']:
            n += f', {row["never_safe"]} never safe'
        figures = ' | '.join(f'{judged[q]:.0f}' for q in ('p50', 'p99', 'max'))
        lines.append(
            f'| {row["event"]} | {trigger} | {n} | {figures} | {allowed} | {_yes(row["met"])} | '
            f'{total["p50"]:.0f} | {total["max"]:.0f} |'
        )
    if going_on := [row for row in report['rows'] if 'moving_share' in row]:
        lines += ['', '| event | seconds | numbered | arrived | accepted | moving | holds | met |']
        lines.append('|---' * 8 + '|')
    for row in going_on:
        lines.append(
            f'| {row["event"]} | {row["seconds"]:.0f} | {row["chunks_numbered"]} | '
            f'{row["chunks_sent"]} | {row["chunks_accepted"]} | '
            f'{100 * row["moving_share"]:.1f} % | {row["holds"]} | {_yes(row["met"])} |'
        )
    checked = sum(r['commands_checked'] for r in report['rows'])
    unsafe = sum(len(r['limit_violations']) for r in report['rows'])
    without = report.get('without_guard')
    text = f'Commands held against the limits in all of it: {checked}; beyond them: {unsafe}.'
    if without:
        text += (
            f' Dispatcher killed without a guard: {without["zeros"]} zeros follow, the chassis is '
            f'left with {without["last_speed"]:g} m/s.'
        )
    if floor := report.get('floor_ms'):
        text += (
            f' A bare loop of sleeps beside was off its 10 ms by {floor["p99"]:.1f} (p99), '
            f'{floor["p999"]:.1f} (p99.9) and {floor["max"]:.1f} ms (at most).'
        )
    commits = sorted({r['git_sha'] for r in report['rows']})
    if len(commits) > 1:
        of = {c: [r['event'] for r in report['rows'] if r['git_sha'] == c] for c in commits}
        parts = [f'{_commit(c)}: {", ".join(names)}' for c, names in of.items()]
        text += f' Commits: {"; ".join(parts)}.'
    return _section(lines, text, name, report)


def _fuzzed(text: str, r: Mapping[str, Any]) -> str:
    return (
        f'| {text} | {r["chunks"]} | {100 * r["executed_share"]:.1f} % | '
        f'{r["commands_checked"]} | {r["limit_violations"]} | {r["blend_violations"]} of '
        f'{r["rows_compared_with_the_blend"]} |'
    )


def fuzz() -> str:
    """Return what random and hostile chunks came to, in process and through DDS."""
    names = {'fuzz': 'in process', 'fuzz_dds': 'through DDS'}
    lines = [
        '| | chunks | executed | commands judged | beyond a limit | off the blended plan '
        '| noticed: speed, acceleration, position, blend |',
        '|---' * 7 + '|',
    ]
    sources = []
    for name, text in names.items():
        if not (RESULTS / f'{name}.json').exists():
            continue
        r = _report(name)
        noticed = ', '.join(str(r['sabotage'][k]) for k in r['sabotage'])
        lines.append(f'{_fuzzed(text, r)} {noticed} |')
        for variant, found in r.get('variants', {}).items():
            lines.append(f'{_fuzzed(f"{text}, {variant}", found)} |')
        sources.append(f'- {text}: {_source(name, r)}')
    return '\n'.join([*lines, '', *sources])


def jitter() -> str:
    """Return the jitter of the dispatcher's tick and the floor of the machine."""
    report = _report('jitter')
    lines = [
        '| scheduling of both | beside | Hz | minutes | milliseconds | p50 | p99 | p99.9 | max '
        '| met | commit |',
        '|---' * 11 + '|',
    ]
    for r in report['runs']:
        for key, text in (('jitter_ms', 'dispatcher'), ('floor_ms', 'loop of sleeps')):
            figures = _percentiles(r[key])
            last = f'{_yes(r["met"])} | {_commit(r["git_sha"])}' if key == 'jitter_ms' else ' | '
            lines.append(
                f'| {r["scheduling"]} | {r["beside"]} | {r["rate"]:g} | {r["minutes"]:g} | {text} '
                f'| {figures} | {last} |'
            )
    allowed = report['runs'][0]['allowed_ms']
    checked = sum(r['commands_checked'] for r in report['runs'])
    beyond = [v for r in report['runs'] for v in r['limit_violations']]
    text = (
        f'Allowed: p99 {allowed["p99"]:g} ms, p99.9 {allowed["p999"]:g} ms. Of {checked} commands '
        f'{len(beyond) or "none"} beyond a limit{": " if beyond else "."}{"; ".join(beyond)}'
    )
    commands = ', '.join(
        f'`{_jitter_command(r)}` (load {r["load_before"]:g} before)' for r in report['runs']
    )
    source = f'{commands}; {_machine(report["machine"])}. {_link("jitter")}'
    return '\n'.join([*lines, '', text, '', source])


def _jitter_command(run: Mapping[str, Any]) -> str:
    """Return what measures a run again."""
    options = [f'--minutes {run["minutes"]:g}', f'--rate {run["rate"]:g}']
    policy, priority = run['scheduling'].replace(',', '').split()[:2]
    if policy == 'SCHED_FIFO':
        options.append(f'--fifo {priority}')
    if run['beside'] == 'nothing':
        options.append('--idle')
    return ' '.join(['python -m scripts.reliability.jitter', *options])


def overhead() -> str:
    """Return what the policy node adds to an inference, by the rate of the joint states."""
    lines = ['| joint states, Hz | milliseconds | p50 | p99 | p99.9 | max |', '|---' * 6 + '|']
    rows = {
        'overhead_ms': 'minus `total_ms`',
        'with_decoding_ms': 'minus the policy alone: decoding counts',
        'decoding_ms': 'decoding of three images',
    }
    sources = []
    for name in ('overhead', 'overhead_500'):
        if not (RESULTS / f'{name}.json').exists():
            continue
        r = _report(name)
        rate, allowed = f'{r.get("state_rate", 200.0):g}', r['allowed_ms']
        lines += [f'| {rate} | {text} | {_percentiles(r[key])} |' for key, text in rows.items()]
        sources.append(
            f'- {rate} Hz: {r["compared"]} chunks in {r["seconds"]:g} s, {r["cameras"]}; allowed '
            f'p50 {allowed["p50"]:g} ms, p99 {allowed["p99"]:g} ms minus `total_ms`; met: '
            f'{_yes(r["met"])}. The node took {100 * r["share_of_a_core"]:.0f} % of a core. '
            f'{_source(name, r)}'
        )
    return '\n'.join([*lines, '', *sources])


def soak() -> str:
    """Return what hours of the whole graph did to memory, numbers and plan."""
    r = _report('soak')
    lines = ['| process | MiB after warm-up | at the end | growth an hour |', '|---' * 4 + '|']
    for name, m in r['memory'].items():
        lines.append(
            f'| {name} | {m["mib_after_warm_up"]:.1f} | {m["mib_at_end"]:.1f} | '
            f'{m["percent_per_hour"]:.2f} % |'
        )
    met = r['met']
    text = (
        f'{r["minutes"]:.0f} minutes, {r["warm_up_minutes"]:g} of them warm-up; {r["episodes"]} '
        f'episodes ({r["successes"]} successful), {r["chunks"]} chunks. Missing of them at the '
        f'observer: {r["gaps_in_sequence"]}. Without a report of the dispatcher: '
        f'{len(r["lost"])} lost, {len(r["replaced"])} replaced{_replaced(r["replaced"])}. The '
        f'plan ran dry {r["plan_ran_dry"]} times. Met: memory (at most '
        f'{r["allowed_percent_per_hour"]:g} % an hour) {_yes(met["memory"])}, numbers '
        f'{_yes(met["sequence"])}, plan {_yes(met["plan"])}.'
    )
    return _section(lines, text, 'soak', r)


def _replaced(chunks: list[dict]) -> str:
    """Return how soon the next chunk came, and how many of those drop the plan."""
    if not chunks:
        return ''
    empty = sum(c['next_rows'] == 0 for c in chunks)
    latest = max(c['next_after_ms'] for c in chunks)
    return f' within {latest:.1f} ms by the next one ({empty} by an empty one)'


def motion() -> str:
    """Return how closely and smoothly a motion is followed, by executor and controller."""
    r = _report('motion')
    lines = [
        '| executor | controller | rms error, mrad | largest speed, rad/s | largest step of speed '
        'in a cycle | rms acceleration, rad/s² |',
        '|---' * 6 + '|',
        '| the motion itself | | ' + ' | '.join(f'{v:g}' for v in r['reference'].values()) + ' |',
    ]
    names = next(iter(r['controllers'].values()))
    for name in names:
        rows = {flavour: r['controllers'][flavour][name] for flavour in r['controllers']}
        if len({str(v) for v in rows.values()}) == 1:
            rows = {'': next(iter(rows.values()))}
        for flavour, v in rows.items():
            figures = ' | '.join(f'{x:.3g}' for x in v.values())
            lines.append(f'| {name} | {flavour} | {figures} |')
    text = f'Means of {r["runs"]} runs of a model; policy {r["latency_ms"]:.0f} ms.'
    return _section(lines, text, 'motion', r)


def table(name: str) -> str:
    """Return the table of a measurement, or that there is none."""
    if not (RESULTS / f'{name}.json').exists():
        return 'Not measured yet: `make reliability`.'
    return TABLES[name]()


TABLES: dict[str, Callable[[], str]] = {
    'failures': failures,
    'failures_arms': functools.partial(failures, 'failures_arms'),
    'fuzz': fuzz,
    'jitter': jitter,
    'motion': motion,
    'overhead': overhead,
    'soak': soak,
}
