"""Velocity and acceleration limits per dimension, tick by tick.

A set-point that cannot follow its target at once catches up without overshooting it: its speed
beyond the target's own is bounded by what can still be braked away (time-optimal tracking of one
axis, sampled).
"""

from __future__ import annotations

import copy

import numpy as np

from faster_core.execution.config import ComponentConfig

# Differences below this share of a limit's step are rounding, not limiting.
_ROUNDING = 1e-3
# Two times closer than this are one (seconds).
SAME_TIME = 1e-3
# Points of a trajectory are this far apart (s) at least.
APART = 1e-6
# Nobody brakes for what is farther away (rad or m).
_FAR = 1e6
# Slower than this (rad/s or m/s) is standing still.
STANDING = 1e-6


class PositionLimiter:
    """Set-point of a position component; remembers where it is and how fast it moves.

    Attributes:
        sampled: it moves at one speed from tick to tick, so `velocity` was had halfway; else at
            the end.
        config, position, velocity: now; rad or m, and per second, [d].
    """

    sampled = True

    def __init__(
        self, config: ComponentConfig, position: np.ndarray, *, switches: bool = False
    ) -> None:
        """Start at rest at `position` [d]; `switches`: ramps from row to row are expected."""
        self.config = config
        self._switches = switches
        self.position = np.array(position, dtype=float)
        self.velocity = np.zeros_like(self.position)

    @property
    def command(self) -> np.ndarray:
        """What is commanded, [d]."""
        return self.position

    @property
    def at_rest(self) -> bool:
        """Whether the set-point stands still."""
        return not self.velocity.any()

    @property
    def outside(self) -> np.ndarray:
        """Whether the set-point is outside of its range, [d]."""
        return (self.position < self.config.lower) | (self.position > self.config.upper)

    def stand(self) -> None:
        """Take it that nothing moves: somebody else commands."""
        self.velocity = np.zeros_like(self.position)

    def starting_at(self, position: np.ndarray, velocity: np.ndarray) -> PositionLimiter:
        """Return one like this that is at another place and speed, [d]."""
        other = copy.copy(self)
        other.position = position
        other.velocity = np.where(np.abs(velocity) < STANDING, 0.0, velocity)
        return other

    def step(
        self, before: np.ndarray, target: np.ndarray, dt: float, *, share: float = 1.0
    ) -> bool:
        """Move towards a target for one tick.

        Args:
            before: [d] the target one tick ago, for its speed.
            target: [d] the target now.
            dt: seconds since the last tick, > 0.
            share: of `dt`; it moves no farther than in so much of it at full speed.

        Returns:
            Whether a limit kept the set-point from its target.
        """
        config = self.config
        start = _clip(before, config.lower, config.upper)
        goal = _clip(target, config.lower, config.upper)
        behind = start - self.position
        bound = _braking_speed(behind, config.max_acceleration, dt)
        velocity = (goal - start) / dt + _clip(behind / dt, -bound, bound)
        # Before the end of the range it brakes, unless it is outside and has to come back.
        down, up = _stopping_speed(np.array(self._room()), config.max_acceleration, dt)
        velocity = _clip(velocity, -down, up)
        change = config.max_acceleration * dt
        velocity = _clip(velocity, self.velocity - change, self.velocity + change)
        # A limit on speed that was lowered on the way is reached by braking.
        most = np.maximum(config.max_velocity, np.abs(self.velocity) - change) * share
        velocity = _clip(velocity, -most, most)
        self._move(velocity, dt)
        slack = _ROUNDING * config.max_velocity * dt
        reached = goal if self._switches else self.position
        return bool((np.abs(reached - target) > slack).any())

    def settle(self, dt: float) -> None:
        """Brake for one tick of `dt` > 0 seconds.

        No target is aimed at: with ticks of uneven length it would be overshot and returned to,
        and a set-point outside of its range would be led back by a robot that should stand.
        """
        self._move(_slower(self.velocity, self.config.max_acceleration * dt), dt)

    def slow(self, factor: float) -> None:
        """Take it that the last step took `factor` >= 1 times as long: the same way, slower."""
        self.velocity = self.velocity / factor

    def way_to_rest(
        self, lead: float, soonest: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return times [K], positions [K, d] and velocities [K, d] of braking from now on.

        Every dimension ends at x + v |v| / 2a after |v| / a seconds; or a little later, braking as
        much more gently, where it has room for that: not sooner than `soonest`, and together with
        another one that ends up to `SAME_TIME` later.

        Args:
            lead: seconds to the one point of what stands, or almost does.
            soonest: seconds.
        """
        stops = np.abs(self.velocity) / self.config.max_acceleration
        speed = np.where(stops > 0.0, np.abs(self.velocity), 0.0)
        own, times = np.maximum(stops, APART), []
        for i in np.argsort(-stops):
            others = min(times, default=lead)
            if stops[i] < SAME_TIME and stops[i] <= others / 3.0:
                break
            ahead = others - stops[i] if times else np.inf
            if ahead <= APART:  # it has come to rest by then
                continue
            wished = max(others if ahead <= SAME_TIME else stops[i], soonest)
            if self._has_room(wished / 2.0)[i]:
                own[i] = next((t for t in times if abs(t - wished) <= APART), wished)
            times.append(own[i])
        # What is left hardly moves: a cubic to rest at the next point keeps its acceleration.
        others, left = min(times, default=lead), own < SAME_TIME
        point = max(3.0 * stops[left].max(initial=0.0), soonest)
        if point < others - APART and not self._has_room(others / 3.0)[left].all():
            times.append(point)
        knots = np.unique(times) if times else np.array([lead])
        t, sign = knots[:, None], np.sign(self.velocity)
        rest = speed * np.maximum(1.0 - t / own, 0.0)
        ways = sign * (speed + rest) / 2.0 * np.minimum(t, own)
        ends, near = self.position + ways, self.config.max_acceleration * soonest**2 / 8.0
        inside = self._in_range(ends)
        # As far beyond as a cubic between two ticks may have swung: it would stop dead otherwise.
        ends = np.where(np.abs(ends - inside) <= near, ends, inside)
        return knots, ends, sign * rest

    def _has_room(self, t: float) -> np.ndarray:
        """Return [d] whether it stays in its range at its speed for `t` seconds."""
        end = self.position + self.velocity * t
        return self._in_range(end) == end

    def _in_range(self, place: np.ndarray) -> np.ndarray:
        """Return a place in the range; a start outside of it is not jumped back from."""
        lower, upper, x = self.config.lower, self.config.upper, self.position
        return _clip(place, np.minimum(lower, x), np.maximum(upper, x))

    def resting_point(self) -> np.ndarray:
        """Return [d] where it comes to rest when braked from now on: x + v |v| / 2a."""
        way = self.velocity * np.abs(self.velocity) / (2.0 * self.config.max_acceleration)
        return self.position + way

    def _room(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ways to both ends of the range [d]; none on for what is outside already.

        Endless for what is outside and comes back.
        """
        config, x = self.config, self.position
        below, above = x < config.lower, x > config.upper
        to_lower = np.where(below, 0.0, np.where(above, np.inf, x - config.lower))
        to_upper = np.where(above, 0.0, np.where(below, np.inf, config.upper - x))
        return to_lower, to_upper

    def _move(self, velocity: np.ndarray, dt: float) -> None:
        """Move at `velocity` [d] for `dt` seconds, not out of the range.

        A start outside of it (measured there) is led back at the limited speed instead of jumping
        in.
        """
        lower, upper = self.config.lower, self.config.upper
        position = self.position + velocity * dt
        was_inside = (self.position >= lower) & (self.position <= upper)
        position = np.where(was_inside, _clip(position, lower, upper), position)
        self.velocity = (position - self.position) / dt
        self.velocity[np.abs(self.velocity) < STANDING] = 0.0
        self.position = position


class VelocityLimiter:
    """Set-point of a velocity component."""

    def __init__(self, config: ComponentConfig) -> None:
        """Start at rest."""
        self.config = config
        self.velocity = np.zeros_like(config.max_velocity)

    @property
    def command(self) -> np.ndarray:
        """What is commanded, [d]."""
        return self.velocity

    @property
    def at_rest(self) -> bool:
        """Whether zero is commanded."""
        return not self.velocity.any()

    def stand(self) -> None:
        """Take it that nothing moves: somebody else commands."""
        self.velocity = np.zeros_like(self.velocity)

    def step(self, before: np.ndarray, target: np.ndarray, dt: float) -> bool:
        """Move towards a target velocity [d] for one tick of `dt` > 0 seconds.

        Args:
            before: not needed: a velocity has no place to return to.
            target: [d] the target now.
            dt: seconds since the last tick, > 0.

        Returns:
            Whether a limit kept the set-point from its target.
        """
        del before
        config = self.config
        change = config.max_acceleration * dt
        velocity = _clip(target, -config.max_velocity, config.max_velocity)
        self.velocity = _clip(velocity, self.velocity - change, self.velocity + change)
        return bool((np.abs(self.velocity - target) > _ROUNDING * config.max_velocity).any())

    def settle(self, dt: float) -> None:
        """Brake for one tick of `dt` > 0 seconds."""
        self.velocity = _slower(self.velocity, self.config.max_acceleration * dt)

    def resting_point(self) -> np.ndarray:
        """Return zero velocity, [d]."""
        return np.zeros_like(self.velocity)


def _clip(values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return what `np.clip` does in a fifth of its time: paths take hundreds of these."""
    return np.minimum(np.maximum(values, lower), upper)


def _slower(velocity: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return a velocity nearer to zero by at most `change`, exactly zero when that suffices."""
    slower = velocity - _clip(velocity, -change, change)
    return np.where(np.abs(slower) < STANDING, 0.0, slower)


def _stopping_speed(distance: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """Largest speed for a tick of `dt` after which `distance` >= 0 suffices to brake.

    v dt + v² / 2a = distance. That holds whatever the lengths of the ticks that follow: speeds
    that fall from tick to tick cover less than braking without ticks does.
    """
    finite = np.where(np.isfinite(acceleration), acceleration, 1.0)
    step = finite * dt
    speed = np.sqrt(step**2 + 2.0 * finite * np.minimum(distance, _FAR)) - step
    return np.where(np.isfinite(acceleration), speed, np.inf)


def _braking_speed(distance: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """Largest sampled speed from which `distance` suffices to brake, in ticks of `dt`.

    Braking from v in n ticks covers dt (v + (v - a dt) + ...) = n v dt - a dt² n (n - 1) / 2; n is
    the least number of ticks that can cover the distance, a dt² n (n + 1) / 2 >= |distance|.
    """
    finite = np.where(np.isfinite(acceleration), acceleration, 1.0)
    distance = np.abs(distance)
    n = np.maximum(1.0, np.ceil(np.sqrt(0.25 + 2.0 * distance / (finite * dt**2)) - 0.5))
    speed = distance / (n * dt) + finite * dt * (n - 1.0) / 2.0
    return np.where(np.isfinite(acceleration), speed, np.inf)
