"""Every row of the failure table, again and again: how soon the robot is safe.

    python -m scripts.reliability.failures --repetitions 30 --json FILE [--rows TEXT]

Each repetition starts from full motion of every component. The time counts from the row's trigger
to the first safe command (safety.py) in the observer's DDS; the total counts from the fault. All
commands of all rows are held against the limits of the robot file beside that. Three rows have no
such moment: with 30 % of the chunks lost, with every two chunks in wrong order, and on a machine
that stands still for a moment again and again, the robot has to go on or hold. `--robot aloha`:
two arms behind trajectory controllers instead of the R1 Lite's streams (arms.py). A bare loop of
sleeps beside, at the same priority, is the floor of what the machine can do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
import contextlib
import itertools
import json
import math
import os
import pathlib
import sys
import time
from typing import Any

from faster_core.provenance import git_commit
from faster_vla_msgs.msg import DispatcherState
from scripts.reliability import reporting
from scripts.reliability.arms import ArmsBench
from scripts.reliability.bench import Bench
from scripts.reliability.processes import FIFO_HELP, Processes, take_domain, take_priority
from scripts.reliability.rows import (
    ALLOWED,
    ALLOWED_TICKS,
    ARMS_ROWS,
    dispatcher_killed,
    GUARD_ALLOWED,
    measure,
    Row,
    ROWS,
)
from scripts.reliability.witness import FOLLOWING

DOMAIN = 57
# Robot -> its bench, its rows, and those of a chunk there: 1.3 s and 1 s of motion.
ROBOTS = {'r1_lite': (Bench, ROWS, 20), 'aloha': (ArmsBench, ARMS_ROWS, 50)}
STANDS_STILL = 'dispatcher and guard stand still for 0.1 to 0.25 s, every 1 s'
GOES_ON = {
    '30 % of the chunks lost': 'loss 0.3',
    'every two chunks swapped': 'reorder',
    STANDS_STILL: '',
}


@contextlib.contextmanager
def floor(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give what will hold how far (ms) a bare loop of sleeps was off its period meanwhile."""
    found: dict[str, Any] = {}
    with Processes(args.domain) as processes:
        out = processes.folder / 'floor.json'
        module, arguments = 'scripts.reliability.sleeper', ['--out', str(out)]
        processes.start('sleeper', module, arguments=arguments, fifo=args.fifo)
        yield found
        processes.end('sleeper')
        found |= reporting.percentiles(json.loads(out.read_text(encoding='ascii')))


def measure_row(bench: Bench, row: Row, repetitions: int) -> dict[str, Any]:
    """Return the figures of a row (milliseconds)."""
    load = round(os.getloadavg()[0], 2)
    witness = bench.witness
    checked, violated = witness.num_judged, len(witness.violations)
    delays = [measure(bench, row) for _ in range(repetitions)]
    safe = [d for d in delays if math.isfinite(d.from_trigger)]
    allowed = GUARD_ALLOWED if row.guard else ALLOWED_TICKS * bench.period + ALLOWED
    judged = 'from_fault' if row.guard else 'from_trigger'
    p99 = reporting.percentiles([getattr(d, judged) for d in safe])['p99']
    unsafe = witness.violations[violated:]
    return {
        'event': row.name,
        'trigger': row.trigger,
        'repetitions': repetitions,
        'never_safe': len(delays) - len(safe),
        'from_trigger_ms': reporting.percentiles([d.from_trigger for d in safe]),
        'from_fault_ms': reporting.percentiles([d.from_fault for d in safe]),
        'allowed_ms': round(allowed * 1e3, 1),
        'judged': judged,
        'met': len(safe) == len(delays) and p99 <= allowed * 1e3 and not unsafe,
        'commands_checked': witness.num_judged - checked,
        'limit_violations': unsafe[:5],
        'load': load,
    }


def measure_without_guard(bench: Bench) -> dict[str, Any]:
    """Kill the dispatcher with nobody behind it: a latching chassis would drive on."""
    bench.set_guard(False)
    bench.drive()
    moment = dispatcher_killed(bench)
    driven = bench.witness.commands['base']
    after = [c for c in driven if c.sent_ns > moment.fault_ns]
    speed = float(driven[-1].values[0])
    bench.witness.forget()
    return {'zeros': sum(not c.values.any() for c in after), 'last_speed': round(speed, 3)}


def goes_on(bench: Bench, name: str, seconds: float) -> dict[str, Any]:
    """Go on for a while with a fault of `GOES_ON`; returns how much of it the robot moved."""
    witness, still = bench.witness, name == STANDS_STILL
    bench.drive(guard=still)
    witness.forget()
    checked, violated = witness.num_judged, len(witness.violations)
    bench.fault(GOES_ON[name])
    start = time.time_ns()
    if still:
        bench.stand_still(('action_dispatcher', 'guard'), seconds)
    else:
        bench.spin(seconds)
    end = time.time_ns()
    states = [(max(t, start), s.action) for t, s in witness.states]
    known = [*states, (end, None)]
    first = known[0][0] - start  # before the first change it followed
    moving = [b - a for (a, action), (b, _) in itertools.pairwise(known) if action in FOLLOWING]
    followed = first + sum(moving)
    sent, reports = len(witness.sent_chunks), [r for _, r in witness.reports]
    numbers = sorted(witness.sent_chunks)
    result = {
        'event': name,
        'seconds': seconds,
        'chunks_numbered': numbers[-1] - numbers[0] + 1 if numbers else 0,
        'chunks_sent': sent,
        'chunks_accepted': sum(r.accepted for r in reports),
        'rejected': sorted({r.reason for r in reports if not r.accepted}),
        'moving_share': round(followed / (end - start), 4),
        'holds': sum(s == DispatcherState.ACTION_HOLD for _, s in states),
        'stops': sum(s == DispatcherState.ACTION_STOP for _, s in states),
        'reasons': sorted({s.message for _, s in witness.states if s.action not in FOLLOWING}),
    }
    bench.fault('')
    witness.forget()
    unsafe = witness.violations[violated:]
    if still:
        bench.set_guard(False)
    return result | {
        'commands_checked': witness.num_judged - checked,
        'limit_violations': unsafe[:5],
        'met': not unsafe and not result['stops'] and result['chunks_accepted'] > 0,
    }


def run(args: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure rows, grouped by what has to run; `keep` is called after each."""
    rows: dict[str, Any] = {}
    commit = {'git_sha': git_commit()}
    kind, all_rows, num_rows = ROBOTS[args.robot]
    result: dict[str, Any] = {'robot': args.robot}
    for real_node, sim_time in ((False, False), (True, False), (False, True)):
        group = (real_node, sim_time)
        chosen = [
            r
            for r in all_rows
            if (r.real_node, r.sim_time) == group and _wanted(r.name, args.rows)
        ]
        others = []
        if group == (False, False) and kind is Bench:
            others = [n for n in GOES_ON if _wanted(n, args.rows)]
        if not chosen and not others:
            continue
        options = {'real_node': real_node, 'sim_time': sim_time, 'rows': num_rows}
        with kind(args.domain, seed=args.seed, fifo=args.fifo, **options) as bench:
            result['dispatch_rate'] = 1.0 / bench.period
            for row in chosen:
                rows[row.name] = measure_row(bench, row, args.repetitions) | commit
                found = rows[row.name]['from_trigger_ms']
                print(f'{row.name}: {found}', file=sys.stderr, flush=True)
                if row.guard:
                    result['without_guard'] = measure_without_guard(bench)
                keep(result | {'rows': list(rows.values())})
            for name in others:
                rows[name] = goes_on(bench, name, args.seconds) | commit
    return result | {'rows': list(rows.values())}


def _wanted(name: str, texts: list[str]) -> bool:
    return not texts or any(t in name for t in texts)


def merged(new: dict[str, Any], path: pathlib.Path | None) -> dict[str, Any]:
    """Return a result with what an earlier one in `path` has beyond it."""
    if path is None or not path.exists():
        return new
    old = json.loads(path.read_text(encoding='utf-8'))
    before = {'git_sha': old['git_sha']}
    rows = {r['event']: before | r for r in [*old['rows'], *new['rows']]}
    order = [*(r.name for r in ROBOTS[new['robot']][1]), *GOES_ON]
    return (
        {'without_guard': old.get('without_guard')}
        | new
        | {'rows': [rows[n] for n in order if n in rows]}
    )


def main() -> int:
    """Measure and report; 1 if a row missed its target or a command left the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repetitions', type=int, default=30)
    parser.add_argument('--robot', choices=ROBOTS, default='r1_lite')
    parser.add_argument('--seconds', type=float, default=60.0, help='of each row without a moment')
    parser.add_argument(
        '--rows', nargs='*', default=[], help='only those that contain one of this'
    )
    parser.add_argument('--fifo', type=int, default=0, help=FIFO_HELP)
    parser.add_argument('--domain', type=int, default=DOMAIN)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=pathlib.Path, help='other rows in it stay')
    args = parser.parse_args()
    take_priority(args.fifo)

    def keep(result: dict[str, Any]) -> None:
        reporting.write('failures', merged(result, args.json), args.json, show=False)

    with take_domain(args.domain), floor(args) as off:
        result = run(args, keep)
    result = merged(result | {'floor_ms': off}, args.json)
    reporting.write('failures', result, args.json)
    drives_on = not (result.get('without_guard') or {'zeros': 0})['zeros']
    return int(not (all(r['met'] for r in result['rows']) and drives_on))


if __name__ == '__main__':
    sys.exit(main())
