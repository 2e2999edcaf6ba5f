"""What a controller follows: points with velocities, and the cubic Hermite spline through them."""

from __future__ import annotations

import dataclasses

import numpy as np

# A point sooner than this (s) is no use: what a controller is off would be made up at once.
_SOON = 0.005


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Positions to be passed at times counted from now.

    Attributes:
        times: [K] seconds from now, strictly increasing, all later than now; K >= 1.
        positions: [K, d] rad or m.
        velocities: [K, d] rad/s or m/s; the last ones are zero.
        within_limits: whether the cubic through them is, from where the set-point is.
    """

    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray
    within_limits: bool = True

    def after(self, seconds: float) -> Trajectory:
        """Return what is left of it so many seconds later; its last point stays in any case."""
        left = self.times - seconds
        left[-1] = max(left[-1], _SOON)
        keep = left >= _SOON
        return dataclasses.replace(
            self,
            times=left[keep],
            positions=self.positions[keep],
            velocities=self.velocities[keep],
        )

    def delayed(self, seconds: float, position: np.ndarray, velocity: np.ndarray) -> Trajectory:
        """Return it so many seconds later, with where it begins [d] as its first point."""
        return dataclasses.replace(
            self,
            times=np.concatenate([[seconds], self.times + seconds]),
            positions=np.concatenate([position[None], self.positions]),
            velocities=np.concatenate([velocity[None], self.velocities]),
        )


def at(path: Trajectory, times: np.ndarray) -> Trajectory:
    """Return a path at `times` [K] within it."""
    i = np.clip(np.searchsorted(path.times, times, side='right') - 1, 0, len(path.times) - 2)
    h = (path.times[i + 1] - path.times[i])[:, None]
    s = (times - path.times[i])[:, None] / h
    start, left, right = path.positions[i], path.velocities[i], path.velocities[i + 1]
    secant = (path.positions[i + 1] - start) / h
    b, c = 3.0 * secant - 2.0 * left - right, left + right - 2.0 * secant
    at_end = (times >= path.times[-1])[:, None]  # exactly there, and at rest
    return Trajectory(
        times=times,
        positions=np.where(at_end, path.positions[-1], start + h * s * (left + s * (b + s * c))),
        velocities=np.where(at_end, path.velocities[-1], left + s * (2.0 * b + 3.0 * s * c)),
    )


def peak_speed(times: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return [K - 1, d], the largest speed of the cubic Hermite spline in every segment.

    Its derivative is a parabola: largest at an end or at its vertex.
    """
    h = np.diff(times)[:, None]
    secant, left, right = np.diff(values, axis=0) / h, slopes[:-1], slopes[1:]
    # v(s) = left + s b + s² c on s in [0, 1].
    b, c = 6.0 * secant - 4.0 * left - 2.0 * right, 3.0 * (left + right - 2.0 * secant)
    with np.errstate(divide='ignore', invalid='ignore'):
        s = np.where(np.abs(c) > 1e-12, -b / (2.0 * c), 0.0)
    s = np.clip(s, 0.0, 1.0)
    vertex = left + s * b + s**2 * c
    return np.maximum.reduce([np.abs(left), np.abs(right), np.abs(vertex)])


def peak_acceleration(times: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return [K - 1, d], the largest acceleration of the cubic in every segment, at one end."""
    h = np.diff(times)[:, None]
    secant, left, right = np.diff(values, axis=0) / h, slopes[:-1], slopes[1:]
    first = 6.0 * secant - 4.0 * left - 2.0 * right
    last = 2.0 * left + 4.0 * right - 6.0 * secant
    return np.maximum(np.abs(first), np.abs(last)) / h
