"""Random and hostile chunks into the dispatcher; an observer judges what comes out.

    python -m scripts.reliability.fuzz --chunks 100000 --json docs/results/fuzz.json

In process and with simulated time. Chunks are messages, so the conversion is part of what is
tried. Two arms go out as trajectories, followed by a controller, and the robot is where that is;
all else goes out tick by tick. Ticks are uneven, and limits are made stricter and given back on
the way. Then the same with the arms tick by tick, too; with ticks so late that speeds brake over
the silence; with limits on jerk; and with one limit, or the blend, taken out of the dispatcher's
configuration only: the observer must notice.
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

from faster_core.embodiment import Embodiment, Kind
from faster_core.execution.config import DispatcherConfig, robot_file_parameters
from faster_core.execution.dispatcher import Dispatcher
from faster_core.execution.errors import ChunkError
from faster_core.execution.state import Action
from faster_vla_ros.conversions import chunk_from_message
from scripts.reliability import reporting
from scripts.reliability.hostile import HostileChunks, SILENCE
from scripts.reliability.observer import BlendObserver, columns, LimitObserver, read_limits
from scripts.reliability.trajectories import Reference

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROBOT = ROOT / 'config' / 'robots' / 'r1_lite.yaml'
EMBODIMENT = ROOT / 'config' / 'embodiments' / 'r1_lite.yaml'
ARMS = ('left_arm', 'right_arm')
JERK = {
    'left_arm.max_jerk': [400.0] * 6,
    'right_arm.max_jerk': [2000.0] * 6,
    'base.max_jerk': [5.0] * 3,
}
# Share of the chunks before which limits are changed, and what of them is left at least.
CHANGED, LEAST = 0.02, 0.5
# Periods between two ticks, as likely as they stand here; more than three are a silence.
UNEVEN = (1.0, 1.0, 1.0, 1.0, 0.5, 1.7, 2.9)
# Nothing but ticks is judged here: what a controller makes of a trajectory goes on in a silence.
# With limits on jerk the observer's accelerations, which are of whole ticks, want even ones.
VARIANTS = {
    'no trajectories': {'trajectories': ()},
    'late ticks': {'trajectories': (), 'periods': (*UNEVEN, 7.0)},
    'limits on jerk': {'trajectories': (), 'periods': (1.0,), 'changes': JERK},
}
SABOTAGE = {
    'speed': {'left_arm.max_velocity': [3.0] * 6},
    'acceleration': {'base.max_acceleration': [50.0] * 3},
    'position': {'left_arm.position_limits': [-9.0, 9.0]},
    'blend': {'blend_steps': 0},
}


class Fuzz:
    """A dispatcher, a robot that is where it was told to be, and two observers."""

    def __init__(
        self,
        seed: int,
        *,
        changes: Mapping[str, Any] | None = None,
        trajectories: tuple[str, ...] = ARMS,
        periods: tuple[float, ...] = UNEVEN,
    ) -> None:
        """Set everything up.

        Args:
            seed: of everything random.
            changes: of the robot file's parameters, of which only the dispatcher hears.
            trajectories: components that go out as trajectories.
            periods: between two ticks, one as likely as another.
        """
        self._periods = periods
        self.rng = np.random.default_rng(seed)
        self.embodiment = Embodiment.load(EMBODIMENT)
        parameters = robot_file_parameters(ROBOT)
        self.blend_steps = parameters['blend_steps']
        self._parameters = parameters | dict(changes or {})
        config = DispatcherConfig.from_parameters(self._parameters, self.embodiment)
        self.dispatcher = Dispatcher(self.embodiment, config, trajectories)
        self.period = 1.0 / config.dispatch_rate
        limits = read_limits(ROBOT, EMBODIMENT)
        self.limits = LimitObserver(limits, self.period)
        self.slices = self.embodiment.action_slices
        # Compared at rows: what only a limit keeps from the plan says so (LIMIT) and is left out.
        self.blend = BlendObserver(
            self.blend_steps,
            columns(self.embodiment, lambda c: c.kind is not Kind.GRIPPER_POSITION),
            columns(self.embodiment, lambda c: c.kind.is_position),
        )
        self.now = 1000.0
        self.measured = {
            n: np.clip(np.zeros_like(v.lower), v.lower + 0.2 * (v.upper - v.lower), v.upper)
            for n, v in limits.items()
            if v.position
        }
        # What a controller that gets the trajectories does, which is where the robot is.
        self.followed = {n: Reference(self.measured[n]) for n in trajectories}
        self.followed_ns = 0
        self.outcomes: collections.Counter = collections.Counter()
        self.sent: collections.Counter = collections.Counter()
        self.executed = self.num_changes = 0
        self.pure = False  # nothing was limited since the last splice
        self.source = HostileChunks(self.rng, self.embodiment, limits, ARMS)

    def run(self, chunks: int) -> None:
        """Send so many chunks, a few ticks after each."""
        for _ in range(chunks):
            if self.rng.random() < CHANGED:
                self._change_limits()
            self._keep_enabled()
            kind = self.source.draw()
            self.sent[kind] += 1
            self._prepare(kind)
            self._send(kind)
            for _ in range(int(self.rng.integers(1, 4))):
                self._tick()

    def _change_limits(self) -> None:
        """Make some limits stricter, as a parameter may be set; all others are as configured."""
        stricter = {
            name: (np.array(self._parameters[name]) * self.rng.uniform(LEAST, 1.0)).tolist()
            for component in self.slices
            for name in (f'{component}.max_velocity', f'{component}.max_acceleration')
            if name in self._parameters and self.rng.random() < 0.3
        }
        self.num_changes += 1
        self.dispatcher.set_config(
            DispatcherConfig.from_parameters(self._parameters | stricter, self.embodiment)
        )

    def _keep_enabled(self) -> None:
        self._measure()
        answer = self.dispatcher.enable(True, self.now)
        if not answer.success:
            self.dispatcher.reset(self.now)
            answer = self.dispatcher.enable(True, self.now)

    def _prepare(self, kind: str) -> None:
        """Bring about what a kind is of, beside its message."""
        if kind == 'stopped':
            self.dispatcher.stop(self.now)
            self.blend.forget()
        elif kind == 'disabled':
            self.dispatcher.enable(False, self.now)
            self.blend.forget()
        elif kind == 'old':
            end = self.now + SILENCE
            while self.now < end:
                self._tick()

    def _measure(self) -> None:
        for name, values in self.measured.items():
            self.dispatcher.on_feedback(name, values, self.now)

    def _send(self, kind: str) -> None:
        message = self.source.message(kind, self.now, self.measured)
        try:
            chunk = chunk_from_message(message, self.embodiment, frame_id='base_link')
        except ChunkError as error:
            report = self.dispatcher.refuse(
                error,
                sequence_id=message.sequence_id,
                num_rows=message.num_steps,
                now=self.now,
            )
            self.outcomes[report.reason] += 1
            return
        report = self.dispatcher.on_chunk(chunk, self.now)
        self.outcomes[report.reason or 'accepted'] += 1
        if not report.accepted:
            return
        if not chunk.num_steps:
            self.blend.forget()
            return
        self.executed += 1
        rows = slice(report.rows_dropped, None)
        anchor = self.dispatcher.plan.times[0]
        commanded = self.dispatcher.plan.values[0]
        rest = self.dispatcher._motion.rest()
        self.blend.splice(anchor, commanded, rest, chunk.row_times[rows], chunk.values[rows])
        self.pure = True

    # --- ticks --------------------------------------------------------------------------------

    def _tick(self) -> None:
        late = float(self.rng.choice(self._periods))
        self.now += late * self.period
        self.followed_ns += round(late * self.period * 1e9)
        for name, followed in self.followed.items():
            self.measured[name] = followed.at(self.followed_ns)[0]
        self._measure()
        passed = late * self.period
        tick = self.dispatcher.tick(self.now, passed, passed=passed)
        if tick.state.action is not Action.FOLLOW:
            self.pure = False
        if tick.state.action not in (Action.FOLLOW, Action.LIMIT):
            self.blend.forget()
        row = np.zeros(self.embodiment.action_dim)
        for name, values in tick.commands.items():
            if values is None:
                self.limits.silent(name, self.now)
                continue
            row[self.slices[name]] = values
            if name in self.followed:
                continue
            self.limits.see(name, self.now, values)
            if name in self.measured:
                self.measured[name] = values.copy()
        for name, way in tick.trajectories.items():
            points = (way.times, way.positions, way.velocities)
            followed = self.followed[name]
            self.limits.see_trajectory(name, self.now, points, followed.at(self.followed_ns))
            followed.follow(self.followed_ns, points)
        if self.pure:
            self.blend.compare(self.now, row, np.full(len(row), 2e-3))

    def report(self) -> dict[str, Any]:
        """Return the figures."""
        total = sum(self.sent.values())
        return {
            'chunks': total,
            'sent': dict(self.sent),
            'outcomes': dict(self.outcomes.most_common()),
            'changes_of_limits': self.num_changes,
            'executed_share': round(self.executed / total, 4),
            'commands_checked': self.limits.num_checked,
            'rows_compared_with_the_blend': self.blend.num_compared,
            'limit_violations': len(self.limits.violations),
            'blend_violations': len(self.blend.violations),
            'first_violations': (self.limits.violations + self.blend.violations)[:5],
        }


def main() -> int:
    """Run, print the figures; 1 if something was violated (or not noticed)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--chunks', type=int, default=100_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--variant-chunks', type=int, default=10_000, help='of each variant')
    parser.add_argument('--sabotage-chunks', type=int, default=3000)
    parser.add_argument('--json', type=pathlib.Path)
    args = parser.parse_args()
    start, machine = time.perf_counter(), reporting.machine()
    fuzz = Fuzz(args.seed)
    fuzz.run(args.chunks)
    result = fuzz.report()
    result |= {'seconds': round(time.perf_counter() - start, 1), 'machine': machine}
    result['variants'] = {}
    for name, options in VARIANTS.items():
        variant = Fuzz(args.seed, **options)
        variant.run(args.variant_chunks)
        result['variants'][name] = variant.report()
    result['sabotage'] = {}
    for name, changes in SABOTAGE.items():
        spoilt = Fuzz(args.seed, changes=changes)
        spoilt.run(args.sabotage_chunks)
        found = spoilt.report()
        result['sabotage'][name] = found['limit_violations'] + found['blend_violations']
    reporting.write('fuzz', result, args.json)
    reports = (result, *result['variants'].values())
    violated = sum(r['limit_violations'] + r['blend_violations'] for r in reports)
    return int(bool(violated) or not all(result['sabotage'].values()))


if __name__ == '__main__':
    sys.exit(main())
