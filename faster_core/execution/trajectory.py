"""A plan as points with velocities, for controllers that interpolate by themselves.

A trajectory goes out once per plan, never per tick: joint_trajectory_controller does not replace
one seamlessly (docs/execution.md). Its points lie on the path that the limits let the set-point
take, and the controller's cubic between them keeps the limits of range, speed and acceleration
too. The last velocity is zero, so whoever hears nothing more comes to rest.

A set-point moves from tick to tick at one speed, which it has halfway between them. From one such
middle to the next a parabola leads exactly: the quadratic B-spline over the ticks, whose
acceleration is the change of speed from tick to tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import copy
import dataclasses

import numpy as np

from faster_core.execution.limits import APART, PositionLimiter, SAME_TIME
from faster_core.execution.plan import Plan
from faster_core.execution.spline import at, peak_acceleration, peak_speed, Trajectory

# The path is followed in steps of this share of a row's period, or of the tick if it is longer.
_STEPS_PER_ROW = 4
# ... and, where rows are that far apart, of not less than this (s) as long as that suffices.
_FIRST_STEP = 0.02
# Shares of the limit of acceleration for the first steps of a path, tried for each dimension: a
# sampled set-point takes on a speed at once, a cubic from where it is has to get there. 0: it
# brakes to rest and goes on from there, as it must where just that leads to the end of its range.
_SHARES, _NUM_FIRST = (1.0, 0.35, 0.1, 0.0), 2
# With bounded jerk, where the acceleration changes within a step too: shares for the whole path.
_JERK_SHARES = (1.0, 0.75, 0.55)
# Steps (s) are never shorter: a path takes time to compute, and nothing else is done meanwhile.
_LEAST_STEP = 0.005
# Steps after which a path that does not come to rest is given up.
_MOST_STEPS = 100_000
# So near to the end of a range (rad or m) is at it.
_FINE = 1e-5
# Excess over a limit that counts as rounding.
_ROUNDING = 1e-2


def follow(
    limiter: PositionLimiter,
    plan: Plan,
    columns: slice,
    *,
    now: float,
    lead: float,
    tick: float,
) -> Trajectory:
    """Return the rest of a plan as a trajectory of one component: see `follow_all`."""
    return follow_all([limiter], plan, [columns], now=now, lead=lead, tick=tick)[0]


def follow_all(
    limiters: Sequence[PositionLimiter],
    plan: Plan,
    columns: Sequence[slice],
    *,
    now: float,
    lead: float,
    tick: float,
) -> list[Trajectory]:
    """Return the rest of a plan as trajectories within the limits, ending at rest.

    Their points are the rows, or those of the path if the cubic between rows would exceed a limit.
    Where none is found within them, as where it begins moving outwards beyond a range that was
    narrowed, it is the one that exceeds them least.

    Args:
        limiters: where components are and how fast they move; left as they are. All of one kind:
            they are computed together, which takes hardly longer than one.
        plan: what is followed.
        columns: of each component in the plan.
        now: seconds on the plan's clock.
        lead: the first point is at least so many seconds from now, except where rows alone
            would exceed a limit, and where it brakes.
        tick: seconds between two ticks.
    """
    later = plan.times[plan.times >= now + lead] - now
    if not later.size:
        return [brake(limiter, lead=lead, tick=tick) for limiter in limiters]
    period = float(np.median(np.diff(plan.times)))
    wide = max(tick, period / _STEPS_PER_ROW, min(period, _FIRST_STEP))
    shares = _SHARES if limiters[0].sampled else _JERK_SHARES
    joined = _joined(limiters)
    all_columns = np.concatenate([np.arange(len(plan.values[0]))[c] for c in columns])
    many, many_shares = _repeated(joined, len(shares)), np.repeat(shares, joined.position.size)
    near = _near(many, tick)
    ends = np.cumsum([limiter.position.size for limiter in limiters])
    parts = [slice(end - x.position.size, end) for x, end in zip(limiters, ends, strict=True)]
    found: dict[int, Trajectory] = {}
    least, nearly = [np.inf] * len(limiters), [None] * len(limiters)
    steps = [max(step, _LEAST_STEP) for step in (wide, tick, tick / 2.0)]
    for step in dict.fromkeys(steps):
        paths = _paths(many, many_shares, plan, all_columns, now, step)
        for choice in _choices(many, many_shares, paths, later, lead):
            points, excess = _best(many, len(shares), choice, near)
            for k, part in enumerate(parts):
                if k in found:
                    continue
                if excess[part].max() <= 1.0 + _ROUNDING:
                    found[k] = _part(points, part)
                elif excess[part].max() < least[k]:
                    least[k], nearly[k] = excess[part].max(), _part(points, part)
            if len(found) == len(limiters):
                break
        # Where it begins outside, what exceeds a limit is the start, which no other step mends.
        if all(k in found or x.outside.any() for k, x in enumerate(limiters)):
            break
    return [
        found[k] if k in found else dataclasses.replace(nearly[k], within_limits=False)
        for k in range(len(limiters))
    ]


def _part(points: Trajectory, part: slice) -> Trajectory:
    """Return some dimensions of a trajectory, up to where they stand."""
    positions, velocities = points.positions[:, part], points.velocities[:, part]
    moving = velocities.any(axis=1) | (positions != positions[-1]).any(axis=1)
    end = int(np.flatnonzero(moving)[-1]) + 2 if moving.any() else 1
    return Trajectory(
        times=points.times[:end], positions=positions[:end], velocities=velocities[:end]
    )


def brake(limiter: PositionLimiter, *, lead: float, tick: float) -> Trajectory:
    """Return how a component comes to rest; what stands gets one point, `lead` seconds away.

    Args:
        limiter: where the set-point is and how fast it moves.
        lead: seconds.
        tick: seconds between two ticks; the first point does not come sooner if it need not.
    """
    times, positions, velocities = limiter.way_to_rest(lead, tick)
    made = Trajectory(times=times, positions=positions, velocities=velocities)
    kept = _excess(limiter, made, _near(limiter, tick)).max() <= 1.0 + _ROUNDING
    return made if kept else dataclasses.replace(made, within_limits=False)


def _near(limiter: PositionLimiter, tick: float) -> np.ndarray:
    """Return [d] how far a path goes between its ticks, and may out of the range."""
    config = limiter.config
    way = np.minimum(config.max_acceleration * tick, config.max_velocity) * tick / 8.0
    return np.maximum(way, _FINE)


def _joined(limiters: Sequence[PositionLimiter]) -> PositionLimiter:
    """Return one limiter of the dimensions of all, one after the other."""
    many = copy.copy(limiters[0])
    many.config = copy.copy(many.config)
    for owner, parts in ((many, limiters), (many.config, [x.config for x in limiters])):
        for name, value in vars(owner).items():
            if isinstance(value, np.ndarray):
                joined = np.concatenate([getattr(part, name) for part in parts])
                object.__setattr__(owner, name, joined)
    return many


def _repeated(limiter: PositionLimiter, count: int) -> PositionLimiter:
    """Return a limiter of `count` times the dimensions, the same ones again and again."""
    return _joined([limiter] * count)


def _paths(
    limiter: PositionLimiter,
    shares: np.ndarray,
    plan: Plan,
    columns: np.ndarray,
    now: float,
    step: float,
) -> Trajectory:
    """Return where the limits let set-points go, step by step, and on until they rest.

    Args:
        limiter: of all paths at once, [S d].
        shares: [S d] of the acceleration in the first steps, or in all with bounded jerk.
        plan: what is followed.
        columns: [d] in the plan.
        now: seconds on the plan's clock.
        step: seconds, about.
    """
    ghost, full, brakes = copy.copy(limiter), limiter.config, shares == 0.0
    gentle = dataclasses.replace(
        full, max_acceleration=full.max_acceleration * np.where(brakes, 1.0, shares)
    )
    count = max(1, round((plan.end - now) / step + 0.499))
    step = (plan.end - now) / count
    targets = np.array([plan.sample(now + step * k)[columns] for k in range(count + 1)])
    targets = np.tile(targets, len(shares) // targets.shape[1])
    age, num_gentle = (step / 2.0, _NUM_FIRST) if limiter.sampled else (0.0, _MOST_STEPS)
    # At the first knot it stands or brakes, whatever it does then.
    rest_at = np.where(brakes, np.maximum(_stops(limiter), APART), 0.0)
    points, before = [], 0.0
    for k in range(_MOST_STEPS):
        end = step * (k + 1)
        ghost.config = gentle if k < num_gentle else full
        if k < count:
            ghost.step(targets[k], targets[k + 1], step)
        elif ghost.at_rest:
            break
        else:
            ghost.settle(step)
        position, velocity = ghost.position - age * ghost.velocity, ghost.velocity
        if (braking := rest_at > before).any():
            position, velocity = np.where(
                braking, _braked(limiter, end - age), (position, velocity)
            )
            there = (ghost.position, ghost.velocity)
            ghost.position, ghost.velocity = np.where(braking, _braked(limiter, end), there)
        before = end - age
        points.append((before, position, velocity))
    points.append((points[-1][0] + step, ghost.position, np.zeros_like(ghost.position)))
    times, positions, velocities = map(np.array, zip(*points, strict=True))
    return Trajectory(times=times, positions=positions, velocities=velocities)


def _with_stops(limiter: PositionLimiter, brakes: np.ndarray, path: Trajectory) -> Trajectory:
    """Return a path with further points where those dimensions that brake ([d] bool) stand."""
    stops = np.where(brakes, _stops(limiter), 0.0)
    # A cubic to rest at the first knot keeps the acceleration of what stops long before it.
    extra = np.unique(stops[stops > path.times[0] / 3.0])
    extra = extra[np.diff(extra, append=np.inf) > APART]
    extra = extra[np.abs(extra[:, None] - path.times).min(axis=1) > APART]
    there = at(path, extra)
    braked = np.array([_braked(limiter, t) for t in extra]).reshape(-1, 2, len(stops))
    # Until the first knot at which it stands.
    last = path.times[np.searchsorted(path.times, stops)]
    own = brakes & (extra[:, None] <= last)
    positions = np.where(own, braked[:, 0], there.positions)
    velocities = np.where(own, braked[:, 1], there.velocities)
    order = np.argsort(np.concatenate([path.times, extra]))
    return Trajectory(
        times=np.concatenate([path.times, extra])[order],
        positions=np.concatenate([path.positions, positions])[order],
        velocities=np.concatenate([path.velocities, velocities])[order],
    )


def _stops(limiter: PositionLimiter) -> np.ndarray:
    """Return [d] seconds that braking takes."""
    return np.abs(limiter.velocity) / limiter.config.max_acceleration


def _braked(limiter: PositionLimiter, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Return place and speed [d] after braking for `t` seconds."""
    speed, most = np.abs(limiter.velocity), limiter.config.max_acceleration
    left = np.maximum(speed - most * t, 0.0)
    way = np.sign(limiter.velocity) * (speed + left) / 2.0 * np.minimum(t, speed / most)
    return limiter.position + way, np.sign(limiter.velocity) * left


def _choices(
    limiter: PositionLimiter,
    shares: np.ndarray,
    paths: Trajectory,
    rows: np.ndarray,
    lead: float,
) -> Iterator[Trajectory]:
    """Yield paths by fewer points, or by more.

    The rows and on to rest; the knots, of which the first comes sooner and sooner; the knots and
    where those that brake stand.

    Args:
        limiter: of all paths.
        shares: as in `_paths`.
        paths: to rest.
        rows: [R] seconds from now, R >= 1.
        lead: seconds to the first point, if that can be.
    """
    knots = paths.times
    rows = rows[rows > knots[0]]
    if rows.size:
        yield at(paths, np.concatenate([rows, knots[knots > rows[-1] + SAME_TIME]]))
    latest = min(int(np.searchsorted(knots, lead)), len(knots) - 1)
    for first in dict.fromkeys((latest, latest // 2, min(latest, 1), 0)):
        yield at(paths, knots[first:])
    if (brakes := shares == 0.0).any():
        yield _with_stops(limiter, brakes, paths)


def _best(
    limiter: PositionLimiter, count: int, points: Trajectory, near: np.ndarray
) -> tuple[Trajectory, np.ndarray]:
    """Return points [K, d] of `count` paths, every dimension of the first that suits, and excess.

    The excess, [d], is the largest share of a limit that is taken, of the best path if none suits.
    """
    excess = _excess(limiter, points, near).reshape(count, -1)
    suits = excess <= 1.0 + _ROUNDING
    which = np.where(suits.any(axis=0), suits.argmax(axis=0), excess.argmin(axis=0))
    each = np.arange(excess.shape[1])
    chosen = which * len(each) + each
    points = Trajectory(
        times=points.times,
        positions=points.positions[:, chosen],
        velocities=points.velocities[:, chosen],
    )
    return points, excess[which, each]


def _excess(limiter: PositionLimiter, points: Trajectory, near: np.ndarray) -> np.ndarray:
    """Return [d] the largest share of a limit the cubic takes, `near` being that of the range."""
    config, place = limiter.config, limiter.position
    times = np.concatenate([[0.0], points.times])
    values = np.concatenate([place[None], points.positions])
    slopes = np.concatenate([limiter.velocity[None], points.velocities])
    # A cubic stays in the hull of its Bézier points; a start outside of the range leads back in.
    third = np.diff(times)[:, None] / 3.0
    hull = np.concatenate(
        [values, values[:-1] + slopes[:-1] * third, values[1:] - slopes[1:] * third]
    )
    below = np.minimum(config.lower, place) - hull
    above = hull - np.maximum(config.upper, place)
    # It may start faster than a limit that was lowered meanwhile.
    fastest = np.maximum(config.max_velocity, np.abs(limiter.velocity))
    speed = peak_speed(times, values, slopes) / fastest
    acceleration = peak_acceleration(times, values, slopes) / config.max_acceleration
    outside = np.maximum(below, above).max(axis=0) / near
    return np.maximum.reduce([outside, speed.max(axis=0), acceleration.max(axis=0)])
