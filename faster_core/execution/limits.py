"""Velocity and acceleration limits per dimension, tick by tick.

A set-point that cannot follow its target at once catches up without overshooting it: its speed
beyond the target's own is bounded by what can still be braked away (time-optimal tracking of one
axis, sampled).
"""

from __future__ import annotations

import numpy as np

from faster_core.execution.config import ComponentConfig

# Differences below this share of a limit's step are rounding, not limiting.
_ROUNDING = 1e-3
# Slower than this (rad/s or m/s) is standing still.
_STANDING = 1e-6


class PositionLimiter:
    """Set-point of a position component; remembers where it is and how fast it moves."""

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

    def step(self, before: np.ndarray, target: np.ndarray, dt: float) -> bool:
        """Move towards a target for one tick.

        Args:
            before: [d] the target one tick ago, for its speed.
            target: [d] the target now.
            dt: seconds since the last tick, > 0.

        Returns:
            Whether a limit kept the set-point from its target.
        """
        config = self.config
        start = np.clip(before, config.lower, config.upper)
        goal = np.clip(target, config.lower, config.upper)
        behind = start - self.position
        bound = _braking_speed(behind, config.max_acceleration, dt)
        velocity = (goal - start) / dt + np.clip(behind / dt, -bound, bound)
        change = config.max_acceleration * dt
        velocity = np.clip(velocity, self.velocity - change, self.velocity + change)
        velocity = np.clip(velocity, -config.max_velocity, config.max_velocity)
        position = self.position + velocity * dt
        # Nobody brakes for a range whose end is reached exactly; a start outside of it (measured
        # there) is led back at the limited speed instead of jumping in.
        inside = np.clip(position, config.lower, config.upper)
        was_inside = (self.position >= config.lower) & (self.position <= config.upper)
        position = np.where(was_inside, inside, position)
        self.velocity = (position - self.position) / dt
        self.velocity[np.abs(self.velocity) < _STANDING] = 0.0
        self.position = position
        slack = _ROUNDING * config.max_velocity * dt
        reached = goal if self._switches else position
        return bool((np.abs(reached - target) > slack).any())

    def resting_point(self) -> np.ndarray:
        """Return [d] where it comes to rest when braked from now on: x + v |v| / 2a."""
        way = self.velocity * np.abs(self.velocity) / (2.0 * self.config.max_acceleration)
        return self.position + way


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
        velocity = np.clip(target, -config.max_velocity, config.max_velocity)
        self.velocity = np.clip(velocity, self.velocity - change, self.velocity + change)
        return bool((np.abs(self.velocity - target) > _ROUNDING * config.max_velocity).any())

    def resting_point(self) -> np.ndarray:
        """Return zero velocity, [d]."""
        return np.zeros_like(self.velocity)


def _braking_speed(distance: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """Largest sampled speed from which `distance` suffices to brake (infinite without a limit).

    Solves v dt / 2 + v² / 2a = |distance|: braking in steps of a dt covers v dt / 2 more than
    the continuous v² / 2a.
    """
    finite = np.where(np.isfinite(acceleration), acceleration, 1.0)
    half = finite * dt / 2.0
    speed = np.sqrt(half**2 + 2.0 * finite * np.abs(distance)) - half
    return np.where(np.isfinite(acceleration), speed, np.inf)
