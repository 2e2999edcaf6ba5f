"""A plan as points with velocities, for controllers that interpolate by themselves.

A trajectory goes out once per plan, never per tick: joint_trajectory_controller does not replace
one seamlessly (interfaces.md 12.3). Its points lie on the path that the limits let the set-point
take, and between them the controller's cubic neither leaves the range nor, beyond rounding, the
speed limit. The last velocity is zero, so whoever hears nothing more comes to rest.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from faster_core.execution.limits import PositionLimiter
from faster_core.execution.plan import Plan

# The path is followed in steps of this share of a row's period, or of the tick if it is longer.
_STEPS_PER_ROW = 4
# Excess of speed that counts as rounding.
_ROUNDING = 1e-3
# Within [0, 3] secants a cubic's end slopes keep it between its end points (Fritsch and Carlson,
# SIAM J. Numer. Anal. 17, 1980).
_MONOTONE = 3.0
# A cubic whose secant is s exceeds it by 7/18 d if it begins with s - d and ends with s - d/2: the
# worst there is, where d is what the limits let the speed change in a step. By more than half of
# itself it never does, its end slopes having the sign of s.
_BULGE, _MOST = 7.0 / 18.0, 1.0 / 3.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Positions to be passed at times counted from now.

    Attributes:
        times: [K] seconds from now, strictly increasing, all later than now; K >= 1.
        positions: [K, d] rad or m.
        velocities: [K, d] rad/s or m/s; the last ones are zero.
    """

    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray


def follow(
    limiter: PositionLimiter,
    plan: Plan,
    columns: slice,
    *,
    now: float,
    lead: float,
    tick: float,
) -> Trajectory:
    """Return the rest of a plan as a trajectory within the limits, ending at rest.

    Args:
        limiter: where the set-point is and how fast it moves; left as it is.
        plan: what is followed.
        columns: of the component in the plan.
        now: seconds on the plan's clock.
        lead: the first point is at least so many seconds from now, except where rows alone
            would exceed a limit, and where it brakes.
        tick: seconds between two steps of the path, at least.
    """
    later = plan.times[plan.times >= now + lead]
    if not later.size:
        return brake(limiter, lead=lead)
    step = max(tick, float(np.median(np.diff(plan.times))) / _STEPS_PER_ROW)
    rows = later - now
    points = _points(limiter, _path(limiter, plan, columns, now, step), rows)
    if _too_coarse(limiter, points):
        # Between rows alone the cubic would exceed a limit: more points, less speed.
        slower = _with_reserve(limiter, step)
        path = _path(slower, plan, columns, now, step)
        points = _points(slower, path, path.times[1:])
    return points


def brake(limiter: PositionLimiter, *, lead: float) -> Trajectory:
    """Return how a component comes to rest; what stands gets one point, `lead` seconds away."""
    times, positions, velocities = limiter.way_to_rest(lead)
    return Trajectory(times=times, positions=positions, velocities=velocities)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Path:
    """Where the limits let the set-point go.

    Attributes:
        times: [N] seconds from now, the first 0, the last the end of the plan.
        positions: [N, d].
        speed: [d] at the end.
        rest: how it comes to rest from there, times from the end; None if it is at rest.
    """

    times: np.ndarray
    positions: np.ndarray
    speed: np.ndarray
    rest: Trajectory | None


def _path(limiter: PositionLimiter, plan: Plan, columns: slice, now: float, step: float) -> _Path:
    ghost = copy.copy(limiter)
    end = plan.end - now
    times = np.append(np.arange(0.0, end - 1e-9, step), end)
    targets = [plan.sample(now + t)[columns] for t in times]
    positions = [ghost.position]
    for k in range(1, len(times)):
        ghost.step(targets[k - 1], targets[k], times[k] - times[k - 1])
        positions.append(ghost.position)
    return _Path(
        times=times,
        positions=np.array(positions),
        speed=ghost.velocity,
        rest=None if ghost.at_rest else brake(ghost, lead=step),
    )


def _points(limiter: PositionLimiter, path: _Path, times: np.ndarray) -> Trajectory:
    """Return points of a path at `times` [K] up to its end, and on to rest."""
    positions = np.stack([np.interp(times, path.times, p) for p in path.positions.T], axis=1)
    knots = np.concatenate([[0.0], times])
    velocities = _slopes(limiter, knots, np.concatenate([limiter.position[None], positions]))
    velocities = np.concatenate([velocities, path.speed[None]])
    if path.rest is not None:
        times = np.concatenate([times, path.times[-1] + path.rest.times])
        positions = np.concatenate([positions, path.rest.positions])
        velocities = np.concatenate([velocities, path.rest.velocities])
    return Trajectory(times=times, positions=positions, velocities=velocities)


def _slopes(limiter: PositionLimiter, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return [K - 2, d] of the inner points: central differences, zero at a turn."""
    secants = np.diff(values, axis=0) / np.diff(times)[:, None]
    before, after = secants[:-1], secants[1:]
    wide = (values[2:] - values[:-2]) / (times[2:] - times[:-2])[:, None]
    least = np.minimum(np.abs(before), np.abs(after))
    bound = np.minimum(_MONOTONE * least, limiter.config.max_velocity)
    return np.where(before * after > 0, np.clip(wide, -bound, bound), 0.0)


def _too_coarse(limiter: PositionLimiter, points: Trajectory) -> bool:
    """Return whether the cubic exceeds the speed limit, or swings out at its beginning."""
    times = np.concatenate([[0.0], points.times])
    values = np.concatenate([limiter.position[None], points.positions])
    slopes = np.concatenate([limiter.velocity[None], points.velocities])
    if (peak_speed(times, values, slopes) > _limit(limiter)).any():
        return True
    secant, slope = (values[1] - values[0]) / times[1], limiter.velocity
    return bool(((slope * secant < 0) | (np.abs(slope) > _MONOTONE * np.abs(secant))).any())


def _limit(limiter: PositionLimiter) -> np.ndarray:
    return limiter.config.max_velocity * (1.0 + _ROUNDING)


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


def _with_reserve(limiter: PositionLimiter, step: float) -> PositionLimiter:
    """Return a copy whose speed leaves room for how far a cubic bulges between its points."""
    config = limiter.config
    reserve = np.minimum(_BULGE * config.max_acceleration * step, _MOST * config.max_velocity)
    slower = copy.copy(limiter)
    slower.config = dataclasses.replace(config, max_velocity=config.max_velocity - reserve)
    return slower
