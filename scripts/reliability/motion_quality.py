"""How well a robot follows a policy of 237 ms, and how smoothly: our dispatcher against others.

    python -m scripts.reliability.motion_quality --json docs/results/reliability/motion.json

One joint, a reference motion of two sines, chunks of 32 rows at 15 Hz, every one with a random
offset of its own (10 mrad) as a policy's are, a new observation as soon as the last inference
ended. A model of joint_trajectory_controller (200 Hz; `faster_core/sim/controllers`) carries out
what is sent; the dispatcher is the real one. Numerical, no robot: what it shows is what the
messages ask for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution.config import DispatcherConfig
from faster_core.execution.dispatcher import Dispatcher
from faster_core.sim.controllers.joint_trajectory import JointTrajectoryController
from faster_core.sim.controllers.trajectory import Point
from scripts.reliability import reporting

ROBOT = Embodiment.from_text(
    """
name: one_joint
action_frequency: 15.0
action_horizon: 32
cameras: [camera]
state:
  - {component: arm, kind: joint_position, names: [joint]}
action:
  - {component: arm, kind: joint_position, names: [joint]}
tokenizer_groups: [[arm]]
"""
)
PARAMETERS = {
    'components': ['arm'],
    'dispatch_rate': 50.0,
    'arm.max_velocity': [4.0],
    'arm.max_acceleration': [60.0],
    'arm.max_start_offset': 0.5,
    'max_chunk_age': 1.0,
}
LATENCY = 0.237  # s, what the paper reports for R1Lite-WBC
OFFSET = 0.010  # rad
CYCLE = 0.005  # s, of the controller
SECONDS = 20.0
SETTLED = 2.0  # s left out at the beginning
RUNS = 10
PERIOD = ROBOT.step_period
START = 100.0
NAIVE = 'naive replay: re-timed to now, first point at 0'
ONE_STEP = 'one step of lead, positions only'
OURS = 'ours'


def reference(t: np.ndarray | float) -> np.ndarray | float:
    """Return the motion wished for (rad) at times t (s)."""
    return 0.25 * np.sin(2.2 * t) + 0.28 * np.sin(3.5 * t + 1.0)


@dataclasses.dataclass
class Robot:
    """A controller, and what has been commanded so far."""

    flavour: str

    def __post_init__(self) -> None:
        """Start where the motion does."""
        self.controller = JointTrajectoryController(
            ['joint'], self.flavour, [float(reference(START))], period=CYCLE
        )
        self.times: list[float] = []
        self.positions: list[float] = []
        self.rejected: list[str] = []

    @property
    def position(self) -> float:
        """Where it was told to be last."""
        return self.positions[-1] if self.positions else float(reference(START))

    def send(self, now: float, points: list[Point]) -> None:
        """Send a trajectory."""
        if reason := self.controller.accept(['joint'], points, 0.0, now):
            self.rejected.append(reason)

    def cycle(self, now: float) -> None:
        """Run one cycle."""
        position, _ = self.controller.update(now)
        self.times.append(now)
        self.positions.append(float(position[0]))


class Seamless(Robot):
    """A robot whose set-point is the sample of every tick: forward_command_controller."""

    def __init__(self) -> None:
        """Start where the motion does."""
        super().__init__('jazzy')
        self._value = self.position

    def command(self, value: float) -> None:
        """Take a set-point."""
        self._value = value

    def cycle(self, now: float) -> None:
        """Hold the last set-point."""
        self.times.append(now)
        self.positions.append(self._value)


Executor = Callable[[Robot, ActionChunk, float], None]


def retimed(first: float) -> Executor:
    """Return the executor that plays a chunk from its first row, `first` s from now."""

    def execute(robot: Robot, chunk: ActionChunk, now: float) -> None:
        times = first + PERIOD * np.arange(chunk.num_steps)
        robot.send(now, _positions_only(chunk.values[:, 0], times))

    return execute


def one_step_of_lead(robot: Robot, chunk: ActionChunk, now: float) -> None:
    """Drop what is due sooner than a step from now; send positions only."""
    keep = chunk.row_times >= now + PERIOD
    robot.send(now, _positions_only(chunk.values[keep, 0], chunk.row_times[keep] - now))


def _positions_only(values: np.ndarray, times: np.ndarray) -> list[Point]:
    return [
        Point(positions=[float(v)], time_from_start=float(t))
        for v, t in zip(values, times, strict=True)
    ]


class Ours:
    """The dispatcher; `tick` is called at its rate, trajectories or set-points go out."""

    def __init__(self, robot: Robot, **changes: Any) -> None:
        """Enable it at once."""
        self._robot = robot
        self._streams = isinstance(robot, Seamless)
        config = DispatcherConfig.from_parameters(PARAMETERS | changes, ROBOT)
        self.period = 1.0 / config.dispatch_rate
        self._dispatcher = Dispatcher(ROBOT, config, [] if self._streams else ['arm'])
        self._feed(START)
        if not self._dispatcher.enable(True, START).success:
            raise RuntimeError('the dispatcher does not let itself be enabled')

    def _feed(self, now: float) -> None:
        self._dispatcher.on_feedback('arm', np.array([self._robot.position]), now)

    def __call__(self, robot: Robot, chunk: ActionChunk, now: float) -> None:
        """Take a chunk."""
        self._feed(now)
        report = self._dispatcher.on_chunk(chunk, now)
        if not report.accepted:
            robot.rejected.append(f'{report.reason}: {report.detail}')
        self.tick(now)

    def tick(self, now: float) -> None:
        """Send what is to be sent now."""
        self._feed(now)
        tick = self._dispatcher.tick(now)
        if self._streams:
            if tick.commands['arm'] is not None:
                self._robot.command(float(tick.commands['arm'][0]))
            return
        for way in tick.trajectories.values():
            self._robot.send(
                now,
                [
                    Point(positions=p, velocities=v, time_from_start=float(t))
                    for t, p, v in zip(way.times, way.positions, way.velocities, strict=True)
                ],
            )


def run(robot: Robot, execute: Executor, seed: int) -> dict[str, float]:
    """Follow the motion for `SECONDS`; returns the figures of one run."""
    rng = np.random.default_rng(seed)
    # A sequence of observations as fast as inference allows; the cycles are not in step with it.
    observed = START + float(rng.uniform(0.0, CYCLE))
    arrival = observed + LATENCY
    tick_at = START
    tick = getattr(execute, 'tick', None)
    for i in range(round(SECONDS / CYCLE)):
        now = START + i * CYCLE
        if now >= arrival:
            rows = observed + PERIOD * np.arange(1, ROBOT.action_horizon + 1)
            offset = rng.normal(0.0, OFFSET)
            execute(
                robot,
                ActionChunk(
                    values=(reference(rows) + offset)[:, None],
                    stamp=observed,
                    first_step_offset=PERIOD,
                    step_period=PERIOD,
                    sequence_id=i,
                    embodiment_checksum=ROBOT.checksum,
                ),
                now,
            )
            observed, arrival = now, now + LATENCY
        elif tick is not None and now >= tick_at - CYCLE / 2:
            tick(now)
            tick_at = max(tick_at, now - CYCLE / 2) + execute.period
        robot.cycle(now)
    if robot.rejected:
        raise RuntimeError(f'rejected: {robot.rejected[0]}')
    times, positions = np.array(robot.times), np.array(robot.positions)
    settled = times >= START + SETTLED
    error = (positions - reference(times))[settled]
    speed = np.diff(positions)[settled[1:]] / CYCLE
    change = np.diff(speed)
    return {
        'rms_error_mrad': float(np.sqrt(np.mean(error**2)) * 1e3),
        'max_speed': float(np.abs(speed).max()),
        'max_speed_step': float(np.abs(change).max()),
        'rms_acceleration': float(np.sqrt(np.mean((change / CYCLE) ** 2))),
    }


def executors(flavour: str) -> dict[str, Callable[[], tuple[Robot, Executor]]]:
    """Return name -> a robot of this flavour and who drives it."""

    def ours(**changes: Any) -> tuple[Robot, Executor]:
        robot = Robot(flavour)
        return robot, Ours(robot, **changes)

    def stream() -> tuple[Robot, Executor]:
        robot = Seamless()
        return robot, Ours(robot, dispatch_rate=1.0 / CYCLE)

    return {
        NAIVE: lambda: (
            Robot(flavour),
            retimed(0.0),
        ),
        're-timed to now, first point after one step': lambda: (
            Robot(flavour),
            retimed(PERIOD),
        ),
        ONE_STEP: lambda: (Robot(flavour), one_step_of_lead),
        'ours without blending': lambda: ours(blend_steps=0),
        OURS: ours,
        'ours, set-points at 200 Hz to a forward_command_controller': stream,
    }


def measure(
    flavours: tuple[str, ...] = ('humble', 'jazzy', 'lyrical'), names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return flavour -> executor (`names`, all by default) -> figures, means of RUNS runs."""
    table: dict[str, Any] = {}
    for flavour in flavours:
        table[flavour] = {}
        for name, make in executors(flavour).items():
            if names and name not in names:
                continue
            runs = [run(*make(), seed) for seed in range(RUNS)]
            table[flavour][name] = {
                key: round(float(np.mean([r[key] for r in runs])), 3) for key in runs[0]
            }
    return table


def motion_itself() -> dict[str, float]:
    """Return the figures of the reference motion."""
    times = START + CYCLE * np.arange(round(SECONDS / CYCLE))
    speed = np.diff(reference(times)) / CYCLE
    change = np.diff(speed)
    return {
        'rms_error_mrad': 0.0,
        'max_speed': round(float(np.abs(speed).max()), 3),
        'max_speed_step': round(float(np.abs(change).max()), 3),
        'rms_acceleration': round(float(np.sqrt(np.mean((change / CYCLE) ** 2))), 3),
    }


def main() -> int:
    """Measure, print and write; 1 if ours misses a target (docs/reliability.md)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', type=pathlib.Path)
    args = parser.parse_args()
    result = {
        'reference': motion_itself(),
        'controllers': measure(),
        'runs': RUNS,
        'latency_ms': LATENCY * 1e3,
    }
    reporting.write('motion_quality', result, args.json)
    return int(not all(good(result['controllers'][f]) for f in ('humble', 'jazzy')))


def good(rows: dict[str, dict[str, float]]) -> bool:
    """Whether ours has at most 1/8 of the error and 1/3 of the acceleration of naive replay.

    And no more of either than one step of lead with positions only.
    """
    ours, (naive, lead) = (
        rows[OURS],
        (
            rows[NAIVE],
            rows[ONE_STEP],
        ),
    )
    error, force = 'rms_error_mrad', 'rms_acceleration'
    return (
        ours[error] <= naive[error] / 8
        and ours[force] <= naive[force] / 3
        and ours[error] <= lead[error]
        and ours[force] <= lead[force]
    )


if __name__ == '__main__':
    sys.exit(main())
