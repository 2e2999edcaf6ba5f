"""Random and hostile chunks into the dispatcher; an observer judges what comes out.

    python -m scripts.reliability.fuzz --chunks 100000 --json docs/results/fuzz.json

In process and with simulated time. Chunks are messages, so the conversion is part of what is
tried. Two arms go out as trajectories beside the ticks, so both are judged. `--sabotage` removes
one limit, or the blend, from the dispatcher's configuration only: the observer must notice.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment, Kind
from faster_core.execution.config import DispatcherConfig, robot_file_parameters
from faster_core.execution.dispatcher import Dispatcher
from faster_core.execution.errors import ChunkError
from faster_core.execution.state import Action
from faster_vla_ros.conversions import chunk_from_message, chunk_to_message
from scripts.reliability.observer import BlendObserver, LimitObserver, read_limits

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROBOT = ROOT / 'config' / 'robots' / 'r1_lite.yaml'
EMBODIMENT = ROOT / 'config' / 'embodiments' / 'r1_lite.yaml'
TRAJECTORIES = ('left_arm', 'right_arm')
SABOTAGE = {
    'speed': {'left_arm.max_velocity': [3.0] * 6},
    'acceleration': {'base.max_acceleration': [50.0] * 3},
    'position': {'left_arm.position_limits': [-9.0, 9.0]},
    'blend': {'blend_steps': 0},
}
# Shares of what is sent; the first two are chunks a policy might send.
KINDS = (
    ('smooth', 0.40),
    ('wild', 0.15),
    ('late', 0.08),
    ('not_finite', 0.05),
    ('huge', 0.05),
    ('far', 0.05),
    ('shape', 0.05),
    ('names', 0.04),
    ('frame', 0.02),
    ('checksum', 0.02),
    ('timing', 0.05),
    ('order', 0.03),
    ('empty', 0.01),
)


class Fuzz:
    """A dispatcher, a robot that is where it was told to be, and two observers."""

    def __init__(self, seed: int, sabotage: str = '') -> None:
        """Set everything up; `sabotage` is a key of SABOTAGE."""
        self.rng = np.random.default_rng(seed)
        self.embodiment = Embodiment.load(EMBODIMENT)
        parameters = robot_file_parameters(ROBOT)
        self.blend_steps = parameters['blend_steps']
        config = DispatcherConfig.from_parameters(
            parameters | SABOTAGE.get(sabotage, {}), self.embodiment
        )
        self.dispatcher = Dispatcher(self.embodiment, config, TRAJECTORIES)
        self.period = 1.0 / config.dispatch_rate
        limits = read_limits(ROBOT, EMBODIMENT)
        self.limits = LimitObserver(limits, self.period)
        slices = self.embodiment.action_slices
        self.slices = slices
        # Compared at rows: what only a limit keeps from the plan says so (LIMIT) and is left out.
        self.blend = BlendObserver(
            self.blend_steps,
            [
                i
                for c in self.embodiment.action
                if c.kind is not Kind.GRIPPER_POSITION
                for i in range(slices[c.name].start, slices[c.name].stop)
            ],
        )
        self.now = 1000.0
        self.measured = {
            n: np.clip(np.zeros_like(v.lower), v.lower + 0.2 * (v.upper - v.lower), v.upper)
            for n, v in limits.items()
            if v.position
        }
        self.commanded: np.ndarray | None = None
        self.speed = {n: np.zeros_like(limits[n].lower) for n in TRAJECTORIES}
        self.sequence_id = 0
        self.outcomes: collections.Counter = collections.Counter()
        self.sent: collections.Counter = collections.Counter()
        self.executed = 0
        self.pure = False  # nothing was limited since the last splice
        self.position_limits = limits

    def run(self, chunks: int) -> None:
        """Send so many chunks, a few ticks after each."""
        names, shares = zip(*KINDS, strict=True)
        for _ in range(chunks):
            self._keep_enabled()
            kind = str(self.rng.choice(names, p=np.array(shares) / sum(shares)))
            self.sent[kind] += 1
            self._send(kind)
            for _ in range(int(self.rng.integers(1, 4))):
                self._tick()
            if self.rng.random() < 0.002:
                self.dispatcher.stop(self.now)
                self.blend.forget()

    def _keep_enabled(self) -> None:
        self._measure()
        if not self.dispatcher.enable(True, self.now).success:
            self.dispatcher.reset(self.now)
            self.dispatcher.enable(True, self.now)

    def _measure(self) -> None:
        for name, values in self.measured.items():
            self.dispatcher.on_feedback(name, values, self.now)

    # --- chunks -------------------------------------------------------------------------------

    def _send(self, kind: str) -> None:
        message = self._message(kind)
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
        before = self._rest()
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
        rest = commanded.copy() if before is None else before
        self.blend.splice(anchor, commanded, rest, chunk.row_times[rows], chunk.values[rows])
        self.pure = True

    def _rest(self) -> np.ndarray | None:
        motion = self.dispatcher._motion
        return None if motion is None else motion.rest()

    def _message(self, kind: str) -> Any:
        e, rng = self.embodiment, self.rng
        self.sequence_id += 1
        age = float(rng.uniform(0.0, 0.3))
        if kind == 'late':
            age = float(rng.uniform(0.3, 4.0))
        fields = {
            'values': self._rows(kind),
            'stamp': self.now - age,
            'first_step_offset': e.step_period,
            'step_period': e.step_period,
            'sequence_id': self.sequence_id,
            'embodiment_checksum': e.checksum,
        }
        if kind == 'empty':
            fields['values'] = np.zeros((0, e.action_dim), np.float32)
        if kind == 'checksum':
            fields['embodiment_checksum'] = str(rng.choice(['', 'x' * 64, e.checksum[:-1]]))
        if kind == 'order':
            fields['stamp'] = self.now - 0.9
        if kind == 'timing':
            which = rng.choice(['stamp', 'first_step_offset', 'step_period'])
            fields[str(which)] = float(
                rng.choice([0.0, 1e-9, 2.0e6, -1.0, self.now + 5.0, e.step_period * 2])
            )
        message = chunk_to_message(ActionChunk(**fields), e)
        self._spoil(kind, message)
        return message

    def _rows(self, kind: str) -> np.ndarray:
        """Return rows [H, D] that start where the robot is and go somewhere."""
        e, rng = self.embodiment, self.rng
        horizon = (
            int(rng.integers(1, e.action_horizon + 1)) if kind == 'wild' else (e.action_horizon)
        )
        values = np.zeros((horizon, e.action_dim), np.float32)
        t = np.arange(1, horizon + 1) * e.step_period
        for c in e.action:
            limit, at = self.position_limits[c.name], self.slices[c.name]
            pace = {'smooth': 0.5, 'wild': 1.05}.get(kind, 0.5) * limit.speed
            if not limit.position:
                wave = np.sin(rng.uniform(0.5, 3.0) * t + rng.uniform(0, 6))[:, None]
                values[:, at] = wave * pace * rng.uniform(-1, 1, c.size)
                continue
            place = self.measured[c.name]
            if c.kind is Kind.GRIPPER_POSITION:
                values[:, at] = rng.uniform(limit.lower, limit.upper)
                continue
            if kind == 'smooth':
                omega = rng.uniform(0.5, 3.0, c.size)
                phase = rng.uniform(0, 2 * np.pi, c.size)
                wave = np.sin(omega * t[:, None] + phase) - np.sin(phase)
                way = place + wave * pace / omega * rng.uniform(-1, 1, c.size)
            else:
                steps = rng.uniform(-1, 1, (horizon, c.size)) * pace * e.step_period
                way = place + np.cumsum(steps, axis=0)
            reach = 0.05 if kind == 'wild' else 0.0
            width = limit.upper - limit.lower
            values[:, at] = np.clip(way, limit.lower - reach * width, limit.upper + reach * width)
        if kind == 'huge':
            values[rng.integers(horizon), rng.integers(e.action_dim)] = rng.choice(
                [1e3, -1e6, 3e38, -3e38]
            )
        if kind == 'far':
            at = self.slices[str(rng.choice(TRAJECTORIES))]
            values[:, at] += rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 2.0)
        return values

    def _spoil(self, kind: str, message: Any) -> None:
        """Break a message in a way no array can express."""
        rng = self.rng
        if not message.components:
            return
        part = message.components[int(rng.integers(len(message.components)))]
        if kind == 'not_finite':
            data = np.array(part.data, np.float32)
            data[rng.integers(data.size)] = rng.choice([np.nan, np.inf, -np.inf])
            part.data = data.tolist()
        elif kind == 'shape':
            choice = rng.integers(4)
            if choice == 0:
                part.data = list(part.data)[: int(rng.integers(len(part.data)))]
            elif choice == 1:
                message.num_steps = int(rng.choice([1, 31, 33, 2**31, 2**32 - 1]))
            elif choice == 2:
                message.components = message.components[:-1]
            else:
                message.components = [*message.components, copy.deepcopy(part)]
        elif kind == 'names':
            if rng.random() < 0.5:
                part.names = list(part.names)[::-1] + ['x']
            else:
                part.name = str(rng.choice(['', 'left_leg', part.name.upper()]))
        elif kind == 'frame':
            part.frame_id = str(rng.choice(['odom', 'map', 'x' * 500]))
            part.kind = int(rng.integers(0, 255))

    # --- ticks --------------------------------------------------------------------------------

    def _tick(self) -> None:
        late = float(self.rng.choice([1.0, 1.0, 1.0, 1.0, 0.5, 1.7, 2.9]))
        self.now += late * self.period
        self._measure()
        tick = self.dispatcher.tick(self.now)
        if tick.state.action is not Action.FOLLOW:
            self.pure = False
        if tick.state.action not in (Action.FOLLOW, Action.LIMIT):
            self.blend.forget()
        row = np.zeros(self.embodiment.action_dim)
        for name, values in tick.commands.items():
            if values is None:
                self.limits.silent(name)
                if name in self.speed:
                    self.speed[name] = np.zeros_like(self.speed[name])
                continue
            self.limits.see(name, self.now, values)
            row[self.slices[name]] = values
            if name in self.measured:
                if name in self.speed:
                    self.speed[name] = (values - self.measured[name]) / (late * self.period)
                self.measured[name] = values.copy()
        for name, way in tick.trajectories.items():
            self.limits.see_trajectory(
                name,
                self.now,
                (way.times, way.positions, way.velocities),
                (self.measured[name], self.speed[name]),
            )
        if self.pure:
            self.blend.compare(self.now, row, np.full(len(row), 2e-3))

    def report(self) -> dict[str, Any]:
        """Return the figures."""
        total = sum(self.sent.values())
        return {
            'chunks': total,
            'sent': dict(self.sent),
            'outcomes': dict(self.outcomes.most_common()),
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
    parser.add_argument('--sabotage-chunks', type=int, default=3000)
    parser.add_argument('--json', type=pathlib.Path)
    args = parser.parse_args()
    start = time.perf_counter()
    fuzz = Fuzz(args.seed)
    fuzz.run(args.chunks)
    result = fuzz.report() | {'seconds': round(time.perf_counter() - start, 1)}
    result['sabotage'] = {}
    for name in SABOTAGE:
        spoilt = Fuzz(args.seed, name)
        spoilt.run(args.sabotage_chunks)
        found = spoilt.report()
        result['sabotage'][name] = found['limit_violations'] + found['blend_violations']
    result |= {
        'machine': platform.machine(),
        'python': platform.python_version(),
        'git_sha': _git_sha(),
        'command': f'python -m scripts.reliability.fuzz --chunks {args.chunks} --seed {args.seed}',
    }
    text = json.dumps(result, indent=1)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + '\n', encoding='utf-8')
    print(text)
    violated = result['limit_violations'] + result['blend_violations']
    return int(bool(violated) or not all(result['sabotage'].values()))


def _git_sha() -> str:
    command = ['git', 'rev-parse', '--short', 'HEAD']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == '__main__':
    sys.exit(main())
