"""Hours of the whole graph in simulation: memory, sequence numbers, coverage of the plan.

    python -m scripts.reliability.soak --minutes 120 --json FILE

Robot, dispatcher and policy node run as `faster-vla up` runs them, with the shipped checkpoint,
one episode after the other. Between episodes the dispatcher is disabled and the plan dropped, as
everywhere; within them the plan may not run dry.

The dispatcher's queue holds one chunk, the newest (`qos.CHUNK`): a chunk that the next one follows
within a tick may be replaced before it was taken, and then there is no report on it. The empty
chunk that drops the plan at the end of an episode comes like that. A chunk without a report that
had the queue for itself longer is lost.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
import itertools
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile

from faster_core.execution.config import robot_file_parameters
from faster_core.sim.tasks import TASKS
from faster_vla_msgs.msg import ActionChunk, ChunkReport, DispatcherState
from faster_vla_ros.episodes import EpisodeRunner, RosJob, wait_ready
from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.observer import Observer
from faster_vla_ros.session import isolated_environment, Session
from faster_vla_ros.supervisor import Supervisor
from scripts.reliability import reporting
from scripts.reliability.bench import ROBOT
from scripts.reliability.processes import take_domain

DOMAIN = 57
ALLOWED = 1.0  # per cent of memory an hour
LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SAMPLE = 5.0  # s between two looks at the memory
LAST = 1.0  # s for the last reports
# What the dispatcher says when it has followed a plan to its end.
DRY = 'the plan is used up'


class Watch:
    """Counts what must not happen, and looks at the memory of processes."""

    def __init__(self, session: Session, pids: dict[str, int]) -> None:
        """Subscribe; `pids` by name."""
        self._pids, self.started = pids, time.monotonic()
        self.memory: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self._looked = 0.0
        self.sent: dict[int, tuple[int, int]] = {}  # number: ns when it was sent, rows
        self.reported: set[int] = set()
        self.dry = 0
        self.dry_at: list[float] = []
        self._dry = False
        listen = session.node.create_subscription
        listen(ActionChunk, '/policy_node/action_chunk', self._take_chunk, 50)
        listen(ChunkReport, '/action_dispatcher/chunk_report', self._take_report, 50)
        listen(DispatcherState, '/action_dispatcher/state', self._take_state, LATCHED)

    def _take_chunk(self, message: ActionChunk, info: Mapping[str, int]) -> None:
        self.sent[message.sequence_id] = (info['source_timestamp'], message.num_steps)

    def _take_report(self, message: ChunkReport) -> None:
        self.reported.add(message.sequence_id)

    def _take_state(self, message: DispatcherState) -> None:
        dry = message.enabled and message.message == DRY
        if dry and not self._dry:
            self.dry += 1
            self.dry_at.append(round(time.monotonic() - self.started, 1))
        self._dry = dry

    def look(self) -> None:
        """Note the resident memory (MiB) of every process, now and then."""
        now = time.monotonic()
        if now - self._looked < SAMPLE:
            return
        self._looked = now
        for name, pid in self._pids.items():
            pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
            mib = pages * os.sysconf('SC_PAGE_SIZE') / 2**20
            self.memory[name].append((now - self.started, mib))


def numbers(
    sent: Mapping[int, tuple[int, int]], reported: Collection[int], tick: float
) -> dict[str, Any]:
    """Return which chunks are missing, here and among the reports of the dispatcher.

    Args:
        sent: chunks that arrived here, by number: (ns when it was sent, rows).
        reported: numbers of the chunks that the dispatcher told about.
        tick: s; a chunk that another one follows within it may be replaced by that one.

    Returns:
        `gaps_in_sequence`: how many numbers between the first and the last did not arrive here.
        `replaced` and `lost`: the chunks that have no report, each with its rows, those of the
        next one and the ms until that was sent.
    """
    replaced, lost = [], []
    for number in sorted(sent.keys() - set(reported)):
        at, rows = sent[number]
        after, next_rows = sent.get(number + 1, (None, None))
        ms = None if after is None else round((after - at) / 1e6, 2)
        found = {'number': number, 'rows': rows, 'next_rows': next_rows, 'next_after_ms': ms}
        (lost if ms is None or ms > tick * 1e3 else replaced).append(found)
    gaps = max(sent) - min(sent) + 1 - len(sent) if sent else 0
    return {'gaps_in_sequence': gaps, 'replaced': replaced, 'lost': lost}


def growth(samples: list[tuple[float, float]], warm_up: float) -> dict[str, Any]:
    """Return what memory does after the warm-up (s): least squares, per cent an hour."""
    kept = np.array([s for s in samples if s[0] >= warm_up])
    if len(kept) < 3:
        return {'percent_per_hour': None}
    slope, start = np.polyfit(kept[:, 0] - kept[0, 0], kept[:, 1], 1)
    return {
        'mib_after_warm_up': round(float(kept[:5, 1].mean()), 1),
        'mib_at_end': round(float(kept[-5:, 1].mean()), 1),
        'percent_per_hour': round(float(slope / start * 3600 * 100), 2),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run episodes for the time; returns the figures."""
    machine = reporting.machine()
    graph = r1lite_wbc(auto_enable='false')
    dispatcher = robot_file_parameters(ROBOT, 'action_dispatcher')
    episodes = successes = rejected = 0
    with (
        Supervisor(
            graph, environment=isolated_environment(args.domain), sink=lambda *_: None
        ) as supervisor,
        Session(domain=args.domain, name='soak', localhost=True) as session,
    ):
        observer = Observer(session)
        wait_ready(session, graph, supervisor)
        watch = Watch(session, {n.name: supervisor.pid(n.name) for n in graph.nodes})

        def check() -> None:
            supervisor.check()
            watch.look()

        runner = EpisodeRunner(session, observer, time_limit=args.episode, check=check)
        jobs = itertools.cycle(sorted(TASKS))
        end = watch.started + args.minutes * 60
        while time.monotonic() < end:
            result = runner.run(RosJob(seed=args.seed + episodes, task=next(jobs)))
            episodes += 1
            successes += result.success
            rejected += len(result.rejected)
            if episodes % 20 == 0:
                print(
                    f'{episodes} episodes, {len(watch.sent)} chunks', file=sys.stderr, flush=True
                )
        minutes = (time.monotonic() - watch.started) / 60
        session.spin(LAST)  # what is still under way
    memory = {n: growth(s, args.warm_up * 60) for n, s in watch.memory.items()}
    chunks = numbers(watch.sent, watch.reported, 1 / dispatcher['dispatch_rate'])
    rates = [m['percent_per_hour'] for m in memory.values()]
    return {
        'minutes': round(minutes, 1),
        'warm_up_minutes': args.warm_up,
        'episodes': episodes,
        'successes': successes,
        'chunks': len(watch.sent),
        'chunks_rejected': rejected,
        **chunks,
        'plan_ran_dry': watch.dry,
        'plan_ran_dry_at_s': watch.dry_at[:20],
        'memory': memory,
        'memory_mib_per_minute': {
            n: [round(m, 1) for _, m in s[:: round(60 / SAMPLE)]] for n, s in watch.memory.items()
        },
        'allowed_percent_per_hour': ALLOWED,
        'met': {
            'memory': all(r is not None and r <= ALLOWED for r in rates),
            'sequence': chunks['gaps_in_sequence'] == 0 and not chunks['lost'],
            'plan': watch.dry == 0,
        },
        'machine': machine,
    }


def main() -> int:
    """Run and report; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=120.0)
    parser.add_argument('--warm-up', type=float, default=10.0, help='minutes')
    parser.add_argument('--episode', type=float, default=15.0, help='s an episode may take')
    parser.add_argument('--seed', type=int, default=0, help='scene of the first episode')
    parser.add_argument('--domain', type=int, default=DOMAIN)
    parser.add_argument('--json', type=pathlib.Path)
    args = parser.parse_args()
    with take_domain(args.domain):
        result = run(args)
    reporting.write('soak', result, args.json)
    return int(not all(result['met'].values()))


if __name__ == '__main__':
    sys.exit(main())
