"""The chunks of fuzz.py through DDS to a dispatcher process; an observer on the wire judges.

    python -m scripts.reliability.fuzz_dds --chunks 5000 --json FILE

The observer knows the robot file, the definition of blending and what went over the wire with the
times it was sent at; nothing is taken from the dispatcher itself. The robot is where it was told
to be.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Mapping
import pathlib
import sys
import time
from typing import Any

import numpy as np

from faster_core.embodiment import Kind
from faster_vla_msgs.msg import ActionChunk, DispatcherState
from faster_vla_ros.conversions import chunk_from_message
from scripts.reliability import reporting
from scripts.reliability.bench import Bench
from scripts.reliability.fuzz import SABOTAGE
from scripts.reliability.hostile import HostileChunks, SILENCE
from scripts.reliability.observer import BlendObserver, columns
from scripts.reliability.processes import FIFO_HELP, take_domain, take_priority
from scripts.reliability.safety import Command

DOMAIN = 57
ARMS = ('left_arm', 'right_arm')
# Ticks after a chunk, uniformly drawn.
TICKS = (1.0, 3.0)
# A loaded machine's robot may be silent for a while; the limits are those of the file.
LENIENT = {'feedback_timeout': 2.0, 'estop.enable': False, 'estop.timeout': 0.0}
# Where the robot begins: so far from the lower end of its range, as a share of it.
NEAR_END = 0.03
# How far a set-point may be off the plan (rad, m, m/s): the first chunk's plan begins somewhere
# between its arrival and the report on it.
EXACT = 2e-3


class BlendJudge:
    """Holds ticks against the blended plan, from what went over the wire, in the order sent."""

    def __init__(self, bench: Bench, blend_steps: int) -> None:
        """Take the bench whose record is read."""
        e, self._bench = bench.embodiment, bench
        self._slices, self._dim = e.action_slices, e.action_dim
        self.observer = BlendObserver(
            blend_steps,
            columns(e, lambda c: c.kind is not Kind.GRIPPER_POSITION),
            columns(e, lambda c: c.kind.is_position),
        )
        self._positions = {c.name for c in e.action if c.kind.is_position}
        start = np.zeros(self._dim)
        for name, place in bench.robot.place.items():
            start[self._slices[name]] = place
        # The two newest ticks: stamp, commands.
        self._ticks = collections.deque([(0.0, start), (bench.period, start)], maxlen=2)
        self._action = DispatcherState.ACTION_NONE
        self._pure = False  # nothing was limited since the last splice

    def judge(self, chunks: Mapping[int, ActionChunk]) -> None:
        """Judge everything since `Witness.forget`; chunks by number."""
        witness = self._bench.witness
        ticks = self._rows()
        starts = [t for t, _, _ in ticks]
        states = iter([*witness.states, (sys.maxsize, None)])
        reports = iter([*witness.reports, (sys.maxsize, None)])
        told, state = next(states)
        said, report = next(reports)
        for i, (sent, stamp, row) in enumerate(ticks):
            until = starts[i + 1] if i + 1 < len(starts) else sys.maxsize
            while said < sent:
                if report.accepted:
                    self._splice(chunks[report.sequence_id], report.num_rows_dropped, said)
                said, report = next(reports)
            while told < until:  # a state follows the commands of its tick
                self._action = state.action
                told, state = next(states)
            self._see(stamp, row)

    def _rows(self) -> list[tuple[int, float, np.ndarray]]:
        """Return complete ticks: when sent (ns), stamp (s), commands [D]."""
        parts: dict[float, dict[str, Command]] = collections.defaultdict(dict)
        for name, found in self._bench.witness.commands.items():
            for command in found:
                parts[command.stamp][name] = command
        ticks = []
        for stamp, by_name in sorted(parts.items()):
            if len(by_name) < len(self._slices):
                continue
            row = np.zeros(self._dim)
            for name, command in by_name.items():
                row[self._slices[name]] = command.values
            ticks.append((min(c.sent_ns for c in by_name.values()), stamp, row))
        return sorted(ticks, key=lambda t: t[0])

    def _splice(self, message: ActionChunk, dropped: int, at_ns: int) -> None:
        if not message.num_steps:
            self.observer.forget()
            return
        (before, old), (anchor, commanded) = self._ticks
        speed = (commanded - old) / (anchor - before)
        if self._action in (DispatcherState.ACTION_NONE, DispatcherState.ACTION_STOP):
            # The first chunk since it was enabled: from rest, from now on.
            # A base that is still braking goes on from the speed commanded last.
            anchor, speed = at_ns * 1e-9, np.zeros(self._dim)
        chunk = chunk_from_message(message, self._bench.embodiment)
        rows = slice(dropped, None)
        rest = self._rest(commanded, speed)
        self.observer.splice(anchor, commanded, rest, chunk.row_times[rows], chunk.values[rows])
        self._pure = True

    def _rest(self, place: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """Return [D] where it would come to rest."""
        rest = np.zeros(self._dim)
        for name, at in self._slices.items():
            if name in self._positions:
                brake = 2 * self._bench.limits[name].acceleration
                rest[at] = place[at] + speed[at] * np.abs(speed[at]) / brake
        return rest

    def _see(self, stamp: float, row: np.ndarray) -> None:
        following = self._action == DispatcherState.ACTION_FOLLOW
        self._pure = self._pure and following
        if self._pure:
            self.observer.compare(stamp, row, np.full(self._dim, EXACT))
        elif self._action != DispatcherState.ACTION_LIMIT and not following:
            self.observer.forget()
        self._ticks.append((stamp, row))


def prepare(bench: Bench, kind: str) -> None:
    """Bring about what a kind is of, beside its message."""
    if kind == 'stopped':
        bench.stop()
    elif kind == 'disabled':
        bench.disable()
    elif kind == 'old':
        bench.spin(SILENCE)


def run(domain: int, chunks: int, seed: int, sabotage: str = '', fifo: int = 0) -> dict[str, Any]:
    """Send chunks to a dispatcher process; returns the figures.

    Args:
        domain: ROS domain.
        chunks: how many.
        seed: of everything random.
        sabotage: key of `SABOTAGE`: one limit, or the blend, is off in the dispatcher only.
        fifo: real-time priority of the dispatcher.
    """
    changes = LENIENT | SABOTAGE.get(sabotage, {})
    with Bench(domain, changes=changes, seed=seed, fifo=fifo) as bench:
        witness = bench.witness
        for name, place in bench.robot.place.items():  # near an end of the range
            lower, upper = bench.limits[name].lower, bench.limits[name].upper
            bench.robot.place[name] = np.clip(place, lower, lower + NEAR_END * (upper - lower))
        source = HostileChunks(bench.rng, bench.embodiment, bench.limits, ARMS)
        blend = BlendJudge(bench, bench.file_parameters['blend_steps'])
        bench.start_dispatcher()
        bench.until(bench.connected, 'discovery')
        kinds: collections.Counter[str] = collections.Counter()
        outcomes: collections.Counter[str] = collections.Counter()
        executed = answered = 0
        start = time.perf_counter()
        sent: dict[int, ActionChunk] = {}

        def judge() -> None:
            nonlocal executed, answered
            bench.spin(0.05)
            for _, report in witness.reports:
                outcomes[report.reason or 'accepted'] += 1
                executed += report.accepted and report.num_rows > 0
            answered += len(witness.reports)
            blend.judge(sent)
            witness.forget()

        for i in range(chunks):
            if not witness.state.enabled:
                bench.enable()
            kind = source.draw()
            kinds[kind] += 1
            prepare(bench, kind)
            message = source.message(kind, bench.robot.now(), bench.robot.place)
            sent[message.sequence_id] = message
            bench.chunks.publish(message)
            bench.spin(bench.rng.uniform(*TICKS) * bench.period)
            if i % 500 == 499:
                judge()
        judge()
        process = bench.processes['action_dispatcher']
        alive = process.poll() is None
        status = bench.processes.end('action_dispatcher')
        return {
            'chunks': chunks,
            'seconds': round(time.perf_counter() - start, 1),
            'sent': dict(kinds),
            'outcomes': dict(outcomes.most_common()),
            'without_report': chunks - answered,
            'executed_share': round(executed / chunks, 4),
            'commands_checked': witness.num_judged,
            'rows_compared_with_the_blend': blend.observer.num_compared,
            'limit_violations': len(witness.violations),
            'blend_violations': len(blend.observer.violations),
            'first_violations': (witness.violations + blend.observer.violations)[:5],
            'tracebacks': bench.processes.log('action_dispatcher').count('Traceback'),
            'process': 'ran to the end' if alive and status == 0 else f'ended with {status}',
        }


def main() -> int:
    """Run, print the figures; 1 if something was violated (or not noticed)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--chunks', type=int, default=5000)
    parser.add_argument('--sabotage-chunks', type=int, default=400)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--fifo', type=int, default=0, help=FIFO_HELP)
    parser.add_argument('--domain', type=int, default=DOMAIN)
    parser.add_argument('--json', type=pathlib.Path)
    args = parser.parse_args()
    take_priority(args.fifo)
    with take_domain(args.domain):
        result = run(args.domain, args.chunks, args.seed, fifo=args.fifo)
        result['sabotage'] = {}
        for name in SABOTAGE:
            found = run(args.domain, args.sabotage_chunks, args.seed, name, args.fifo)
            result['sabotage'][name] = found['limit_violations'] + found['blend_violations']
    reporting.write('fuzz_dds', result, args.json)
    bad = result['limit_violations'] + result['blend_violations'] + result['tracebacks']
    bad += result['process'] != 'ran to the end'
    return int(bool(bad) or result['executed_share'] < 0.3 or not all(result['sabotage'].values()))


if __name__ == '__main__':
    sys.exit(main())
