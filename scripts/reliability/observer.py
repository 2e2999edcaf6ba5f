"""An independent observer of commands: limits from the robot file, blending from the definition.

It reads the two YAML files itself and imports nothing of what it watches. Positions are commanded
as set-points at times; speed and acceleration are their differences. Trajectories are cubic
Hermite splines through their points, as a controller executes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np
import yaml

from faster_core.embodiment import Component, Embodiment

POSITIONS = ('joint_position', 'gripper_position')
# Rounding of 32-bit messages and of clocks, as a share of the limit.
SLACK = 1e-3
# Set-points of float32 rows carry such errors (rad, m) into their differences.
ROUNDING = 2e-6
# Between two points a spline may exceed a limit of the path by this share.
BULGE = 0.011
# A tick later than so many periods is taken for one of so many: its speed says nothing.
LATE = 3.0
# Samples per segment of a spline.
SAMPLES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one component, arrays [d]; infinite where the file says nothing."""

    position: bool
    speed: np.ndarray
    acceleration: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def read_limits(robot_file: pathlib.Path, embodiment_file: pathlib.Path) -> dict[str, Limits]:
    """Return component -> limits, as the files say."""
    robot = yaml.safe_load(pathlib.Path(robot_file).read_text(encoding='utf-8'))
    flat = robot['/**']['action_dispatcher']['ros__parameters']
    embodiment = yaml.safe_load(pathlib.Path(embodiment_file).read_text(encoding='utf-8'))
    limits = {}
    for part in embodiment['action']:
        name, size = part['component'], len(part['names'])
        ends = np.array(flat.get(f'{name}.position_limits', [-np.inf, np.inf]), dtype=float)
        ends = np.broadcast_to(ends.reshape(-1, 2), (size, 2))
        limits[name] = Limits(
            position=part['kind'] in POSITIONS,
            speed=np.array(flat[f'{name}.max_velocity'], dtype=float),
            acceleration=np.array(
                flat.get(f'{name}.max_acceleration', [np.inf] * size), dtype=float
            ),
            lower=ends[:, 0],
            upper=ends[:, 1],
        )
    return limits


class LimitObserver:
    """Judges every command; `violations` are sentences."""

    def __init__(self, limits: Mapping[str, Limits], period: float) -> None:
        """Take the limits and the period of the commands (s)."""
        self._limits, self._period = limits, period
        # Component -> time, value and speed; the speed is unknown after silence.
        self._last: dict[str, tuple[float, np.ndarray, np.ndarray | None]] = {}
        self._quiet: dict[str, float | None] = {}
        self.violations: list[str] = []
        self.num_checked = 0
        self.num_late = 0

    def silent(self, name: str, time: float | None = None) -> None:
        """Nothing is commanded: what follows starts anew, wherever the robot is then.

        Args:
            name: component.
            time: of the tick without a command (s), if that is known: the next one starts there.
        """
        self._last.pop(name, None)
        self._quiet[name] = time

    def see(self, name: str, time: float, value: np.ndarray) -> None:
        """Judge a set-point [d] commanded at a time (s)."""
        limits = self._limits[name]
        value = np.asarray(value, dtype=float)
        self.num_checked += 1
        if not np.isfinite(value).all():
            self._tell(name, time, 'value', value, 'finite')
            return
        if limits.position:
            self._see_position(name, time, value, limits)
        else:
            self._see_speed(name, time, value, limits)

    def _see_position(self, name: str, time: float, value: np.ndarray, limits: Limits) -> None:
        last = self._last.get(name)
        if last is None:
            # A robot that was measured outside of its range is led back from there.
            self._last[name] = (time, value, None)
            return
        before, place, old_speed = last
        dt = time - before
        if dt <= 0:
            dt = self._period
        outside = ((value < limits.lower - ROUNDING) & (value < place - ROUNDING)) | (
            (value > limits.upper + ROUNDING) & (value > place + ROUNDING)
        )
        if outside.any():
            self._tell(name, time, 'position', value, f'{limits.lower} to {limits.upper}')
        speed = (value - place) / dt
        noise = ROUNDING / dt
        if (np.abs(speed) > limits.speed * (1 + SLACK) + noise).any():
            self._tell(name, time, 'speed', speed, f'at most {limits.speed}')
        if dt > LATE * self._period:
            self.num_late += 1
        else:
            # From rest, wherever that was: the first command is one tick of acceleration old.
            started = self._quiet.get(name)
            first = max(dt, self._period) if started is None else before - started
            change = (
                np.abs(speed) / (first + dt)
                if old_speed is None
                else np.abs(speed - old_speed) / dt
            )
            # At an end of the range that was made of a place outside, the range goes first.
            if (change > limits.acceleration * (1 + SLACK) + 4 * noise / dt).any():
                self._tell(name, time, 'acceleration', change, f'at most {limits.acceleration}')
        self._last[name] = (time, value, speed)

    def _see_speed(self, name: str, time: float, value: np.ndarray, limits: Limits) -> None:
        started = self._quiet.get(name)
        started = time - self._period if started is None else started
        before, _, old = self._last.get(name, (started, None, np.zeros_like(value)))
        dt = time - before
        dt = self._period if dt <= 0 else dt
        if (np.abs(value) > limits.speed * (1 + SLACK)).any():
            self._tell(name, time, 'speed', value, f'at most {limits.speed}')
        change = np.abs(value - old) / dt
        if (change > limits.acceleration * (1 + SLACK) + ROUNDING / dt).any():
            self._tell(name, time, 'acceleration', change, f'at most {limits.acceleration}')
        self._last[name] = (time, value, value)

    def see_trajectory(
        self,
        name: str,
        time: float,
        points: tuple[np.ndarray, np.ndarray, np.ndarray],
        start: tuple[np.ndarray, np.ndarray],
        doubt: float = 0.0,
    ) -> None:
        """Judge a trajectory.

        Args:
            name: component.
            time: when it was sent (s).
            points: times [K] from then, positions [K, d], velocities [K, d].
            start: position and velocity [d] of the set-point when it was sent.
            doubt: how well that moment is known (s): the way to the first point is judged with
                what this may change in it.
        """
        limits = self._limits[name]
        times, positions, velocities = points
        self.num_checked += 1
        if not all(np.isfinite(p).all() for p in points):
            self._tell(name, time, 'trajectory', times, 'finite numbers')
            return
        if not (times[0] > 0 and (np.diff(times) > 0).all()):
            self._tell(name, time, 'times', times, 'later and later, from now on')
            return
        if velocities[-1].any():
            self._tell(name, time, 'last velocity', velocities[-1], 'zero')
        knots = np.concatenate([[0.0], times])
        place, speed, change = spline(
            knots,
            np.concatenate([start[0][None], positions]),
            np.concatenate([start[1][None], velocities]),
        )
        faster, harder = doubts(start[1], limits.acceleration, knots[1], doubt, len(speed))
        # Who is too fast already brakes from there.
        fastest = np.maximum(limits.speed, np.abs(start[1]))
        if (np.abs(speed) > fastest * (1 + BULGE) + faster).any():
            self._tell(name, time, 'speed', np.abs(speed).max(axis=0), f'at most {limits.speed}')
        if (np.abs(change) > limits.acceleration * (1 + BULGE) + harder).any():
            found = np.abs(change).max(axis=0)
            self._tell(name, time, 'acceleration', found, f'at most {limits.acceleration}')
        # From a place outside the way leads back in.
        lower = np.minimum(limits.lower, start[0])
        upper = np.maximum(limits.upper, start[0])
        # What a cubic of one tick may swing beyond its points while it brakes.
        over = np.minimum(limits.acceleration * self._period**2, limits.speed * self._period) / 8
        if ((place < lower - over) | (place > upper + over)).any():
            self._tell(name, time, 'position', place[-1], f'{limits.lower} to {limits.upper}')

    def _tell(self, name: str, time: float, what: str, found: Any, expected: str) -> None:
        self.violations.append(f'{time:.3f} s {name}: {what} {found}, expected {expected}')


def spline(
    times: np.ndarray, values: np.ndarray, slopes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return samples [N, d] of a cubic Hermite spline and of its first two derivatives."""
    h = np.diff(times)[:, None, None]
    s = np.linspace(0.0, 1.0, SAMPLES)[None, :, None]
    samples = cubic(s, h, values[:-1, None], values[1:, None], slopes[:-1, None], slopes[1:, None])
    return tuple(x.reshape(-1, values.shape[1]) for x in samples)


def cubic(
    s: Any, h: Any, p: np.ndarray, q: np.ndarray, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a cubic at the share `s` of its `h` seconds, and its first two derivatives.

    It leads from `p` to `q`, with the velocities `left` and `right` there.
    """
    u, v = left * h, right * h
    place = (
        (2 * s**3 - 3 * s**2 + 1) * p
        + (s**3 - 2 * s**2 + s) * u
        + (-2 * s**3 + 3 * s**2) * q
        + (s**3 - s**2) * v
    )
    speed = (
        (6 * s**2 - 6 * s) * p
        + (3 * s**2 - 4 * s + 1) * u
        + (-6 * s**2 + 6 * s) * q
        + (3 * s**2 - 2 * s) * v
    ) / h
    change = ((12 * s - 6) * (p - q) + (6 * s - 4) * u + (6 * s - 2) * v) / h**2
    return place, speed, change


def doubts(
    velocity: np.ndarray, acceleration: np.ndarray, seconds: float, doubt: float, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a start that is not known exactly may change in a spline.

    Args:
        velocity: [d] at the start.
        acceleration: [d] the limit.
        seconds: to the first point.
        doubt: how well the moment of the start is known (s).
        number: samples of the whole spline, N.

    Returns:
        [N, d] of its first derivative and of its second; zero behind the first point.
    """
    slope = np.where(np.isfinite(acceleration), acceleration, 0.0) * doubt
    off = (np.abs(velocity) + slope / 2.0) * doubt
    first = (np.arange(number) < SAMPLES)[:, None]
    return (
        first * (1.5 * off / seconds + slope),
        first * (6.0 * off / seconds**2 + 4.0 * slope / seconds),
    )


def columns(embodiment: Embodiment, chosen: Callable[[Component], bool]) -> list[int]:
    """Return the columns [D] of some components of the action."""
    slices = embodiment.action_slices
    names = [c.name for c in embodiment.action if chosen(c)]
    return [i for n in names for i in range(slices[n].start, slices[n].stop)]


class BlendObserver:
    """The plan by its definition (docs/execution.md), to be compared at times of rows.

    row = (1 - w) old(t) + w new with w = (i + 1) / (n + 1) for the first n surviving rows.
    """

    def __init__(self, blend_steps: int, blended: Sequence[int], positions: Sequence[int]) -> None:
        """Take n, the columns that blend (grippers switch), and those that hold (positions)."""
        self._n, self._columns, self._positions = blend_steps, list(blended), list(positions)
        self._times = np.empty(0)
        self._values = np.empty((0, 0))
        self.num_compared = 0
        self.violations: list[str] = []

    def forget(self) -> None:
        """There is no plan any more."""
        self._times, self._values = np.empty(0), np.empty((0, 0))

    def splice(
        self,
        now: float,
        commanded: np.ndarray,
        rest: np.ndarray,
        times: np.ndarray,
        values: np.ndarray,
    ) -> None:
        """Take the surviving rows of an accepted chunk; `commanded` [D] is what was sent last."""
        values = np.array(values, dtype=float)
        after = rest.copy()
        if self._times.size and self._times[-1] > now + 1e-6:  # positions stay where it ends
            after[self._positions] = self._values[-1, self._positions]
        for i in range(min(self._n, len(values))):
            covered = self._times.size and times[i] <= self._times[-1] + 1e-6
            before = self._at(times[i]) if covered else after
            w = (i + 1) / (self._n + 1)
            mixed = (1 - w) * before + w * values[i]
            values[i, self._columns] = mixed[self._columns]
        keep = (self._times > now) & (self._times < times[0] - 1e-6)
        old = self._values[keep] if self._times.size else np.empty((0, values.shape[1]))
        self._times = np.concatenate([[now], self._times[keep], times])
        self._values = np.concatenate([commanded[None], old, values])

    def _at(self, t: float) -> np.ndarray:
        return np.array([np.interp(t, self._times, column) for column in self._values.T])

    def compare(self, t: float, commanded: np.ndarray, tolerance: np.ndarray) -> None:
        """Compare what is commanded [D] at time t with the plan, where columns blend."""
        if not self._times.size:
            return
        self.num_compared += 1
        off = np.abs(commanded - self._at(t))[self._columns] - tolerance[self._columns]
        if (off > 0).any():
            worst = self._columns[int(np.argmax(off))]
            self.violations.append(
                f'{t:.3f} s column {worst}: {commanded[worst]:.6f}, expected the blended plan '
                f'{self._at(t)[worst]:.6f}'
            )
