"""A trajectory as joint_trajectory_controller samples it (`trajectory.cpp`).

Times are integer nanoseconds here, as in rclcpp: sums of floats at today's dates would decide by
rounding whether a sample lies before or after a point.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

NANO = 1_000_000_000


def nanoseconds(seconds: float) -> int:
    """Return seconds as integer nanoseconds."""
    return round(seconds * NANO)


@dataclasses.dataclass(frozen=True)
class Point:
    """One `trajectory_msgs/JointTrajectoryPoint`; an empty field of the message is None.

    Attributes:
        positions: [J] rad or m; None only to show that it is refused.
        velocities: [J] per second, or None.
        accelerations: [J] per second squared, or None.
        time_from_start: seconds.
        effort: [J] or None; a position controller refuses it.
    """

    positions: Sequence[float] | None
    velocities: Sequence[float] | None = None
    accelerations: Sequence[float] | None = None
    time_from_start: float = 0.0
    effort: Sequence[float] | None = None


@dataclasses.dataclass
class State:
    """Joint state or set-point in the controller's joint order; arrays [J] or None."""

    positions: np.ndarray
    velocities: np.ndarray | None = None
    accelerations: np.ndarray | None = None

    def copy(self) -> State:
        """Return a copy that shares nothing."""
        return State(*(None if v is None else v.copy() for v in dataclasses.astuple(self)))


@dataclasses.dataclass
class Knot:
    """A point of an accepted trajectory: its state and its time from the start, nanoseconds."""

    state: State
    time: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a trajectory says at one time.

    Attributes:
        state: with all three fields.
        segment_start: index of the point the segment starts at (0 before the first point too).
        at_end: whether the last point has been passed.
    """

    state: State
    segment_start: int
    at_end: bool


class Trajectory:
    """Points of one message and the state from which its first point is approached."""

    def __init__(self, knots: list[Knot], stamp: int) -> None:
        """Take points in the controller's joint order; `stamp` 0: start at the first sample."""
        self.knots, self.start = knots, stamp
        self.sampled = False
        self._from = 0
        self._times: list[int] = []

    def set_point_before(self, now: int, state: State) -> None:
        """Say where the motion to the first point begins."""
        self._time_before, self._before = now, state.copy()
        first, before = self.knots[0].state, self._before
        # Else the lead-in would be of another degree than the rest of the trajectory.
        if before.velocities is None and first.velocities is not None:
            before.velocities = np.zeros_like(first.velocities)
        if before.accelerations is None and first.accelerations is not None:
            before.accelerations = np.zeros_like(first.accelerations)

    def sample(self, now: int, *, keep_index: bool = True) -> Sample | None:
        """Sample at `now`; None before the point the motion begins at.

        Args:
            now: nanoseconds.
            keep_index: whether the next search may begin at the segment found here.
        """
        if not self.sampled:
            if self.start == 0:
                self.start = now
            self._times = [self.start + k.time for k in self.knots]
            self.sampled = True
        if now < self._time_before:
            return None
        times = self._times
        if now < times[0]:
            state = interpolate(
                self._time_before, self._before, times[0], self.knots[0].state, now
            )
            return Sample(state, 0, False)
        for i in range(self._from, len(self.knots) - 1):
            if times[i] <= now < times[i + 1]:
                if keep_index:
                    self._from = i
                a, b = self.knots[i].state, self.knots[i + 1].state
                return Sample(interpolate(times[i], a, times[i + 1], b, now), i, False)
        last = len(self.knots) - 1
        if keep_index:
            self._from = last
        state = self.knots[last].state.copy()
        zero = np.zeros_like(state.positions)
        state.velocities = zero.copy() if state.velocities is None else state.velocities
        state.accelerations = zero if state.accelerations is None else state.accelerations
        return Sample(state, last, True)


def interpolate(time_a: int, a: State, time_b: int, b: State, now: int) -> State:
    """Interpolate as `Trajectory::interpolate_between_points`: linear, cubic or quintic.

    The degree follows from what both ends carry; outside [time_a, time_b] the nearer end is
    returned by the linear rule.
    """
    so_far, span = (now - time_a) / NANO, (time_b - time_a) / NANO
    cubic = a.velocities is not None and b.velocities is not None
    quintic = a.accelerations is not None and b.accelerations is not None
    if not 0.0 <= so_far <= span:
        so_far, cubic, quintic = min(max(so_far, 0.0), span), False, False
    if not cubic:
        # Accelerations without velocities at both ends: upstream interpolates nothing at all.
        if quintic:
            return State(*(np.zeros_like(a.positions) for _ in range(3)))
        coefficients = [a.positions, _divided(b.positions - a.positions, span)]
    elif not quintic:
        coefficients = _cubic(a, b, span)
    else:
        coefficients = _quintic(a, b, span)
    return State(*(_polynomial(coefficients, so_far, order) for order in range(3)))


def _divided(value: np.ndarray, by: float) -> np.ndarray:
    return value / by if by else np.zeros_like(value)


def _cubic(a: State, b: State, span: float) -> list[np.ndarray]:
    step, va, vb = b.positions - a.positions, a.velocities * span, b.velocities * span
    return [
        a.positions,
        a.velocities,
        _divided(3 * step - 2 * va - vb, span**2),
        _divided(-2 * step + va + vb, span**3),
    ]


def _quintic(a: State, b: State, span: float) -> list[np.ndarray]:
    step, va, vb = b.positions - a.positions, a.velocities * span, b.velocities * span
    aa, ab = a.accelerations * span**2, b.accelerations * span**2
    return [
        a.positions,
        a.velocities,
        0.5 * a.accelerations,
        _divided(20 * step - 3 * aa + ab - 12 * va - 8 * vb, 2 * span**3),
        _divided(-30 * step + 3 * aa - 2 * ab + 16 * va + 14 * vb, 2 * span**4),
        _divided(12 * step - aa + ab - 6 * va - 6 * vb, 2 * span**5),
    ]


def _polynomial(coefficients: list[np.ndarray], t: float, order: int) -> np.ndarray:
    """Value of the derivative of that order at t."""
    result = np.zeros_like(coefficients[0])
    for _ in range(order):
        coefficients = [k * c for k, c in enumerate(coefficients)][1:]
    for c in reversed(coefficients):
        result = result * t + c
    return result
