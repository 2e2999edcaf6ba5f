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


class PositionLimiter:
    """Set-point of a position component; remembers where it is and how fast it moves."""

    def __init__(self, config: ComponentConfig, position: np.ndarray) -> None:
        """Start at rest at `position` [d]."""
        self._config = config
        self.position = np.array(position, dtype=float)
        self.velocity = np.zeros_like(self.position)

    def step(self, before: np.ndarray, target: np.ndarray, dt: float) -> bool:
        """Move towards a target for one tick.

        Args:
            before: [d] the target one tick ago, for its speed.
            target: [d] the target now.
            dt: seconds since the last tick, > 0.

        Returns:
            Whether a limit kept the set-point from its target.
        """
        config = self._config
        wanted = np.clip(target, config.lower, config.upper)
        target_velocity = (wanted - np.clip(before, config.lower, config.upper)) / dt
        behind = wanted - target_velocity * dt - self.position
        approach = np.clip(
            behind / dt,
            -_braking_speed(behind, config.max_acceleration, dt),
            _braking_speed(behind, config.max_acceleration, dt),
        )
        change = config.max_acceleration * dt
        velocity = target_velocity + approach
        velocity = np.clip(velocity, self.velocity - change, self.velocity + change)
        velocity = np.clip(velocity, -config.max_velocity, config.max_velocity)
        position = np.clip(self.position + velocity * dt, config.lower, config.upper)
        self.velocity = (position - self.position) / dt
        self.position = position
        slack = _ROUNDING * np.where(
            np.isfinite(config.max_velocity), config.max_velocity * dt, 1e-3
        )
        return bool((np.abs(position - target) > slack).any())

    def resting_point(self) -> np.ndarray:
        """Return [d] where it comes to rest when braked from now on: x + v |v| / 2a."""
        with np.errstate(divide='ignore', invalid='ignore'):
            way = self.velocity * np.abs(self.velocity) / (2.0 * self._config.max_acceleration)
        return np.clip(self.position + way, self._config.lower, self._config.upper)


class VelocityLimiter:
    """Set-point of a velocity component."""

    def __init__(self, config: ComponentConfig) -> None:
        """Start at rest."""
        self._config = config
        self.velocity = np.zeros_like(config.max_velocity)

    def step(self, target: np.ndarray, dt: float) -> bool:
        """Move towards a target velocity [d] for one tick of `dt` > 0 seconds.

        Returns:
            Whether a limit kept the set-point from its target.
        """
        config = self._config
        change = config.max_acceleration * dt
        velocity = np.clip(target, -config.max_velocity, config.max_velocity)
        velocity = np.clip(velocity, self.velocity - change, self.velocity + change)
        self.velocity = velocity
        return bool((np.abs(velocity - target) > _ROUNDING * config.max_velocity).any())


def _braking_speed(distance: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """Largest sampled speed from which `distance` suffices to brake (infinite without a limit).

    Solves v dt / 2 + v² / 2a = |distance|: braking in steps of a dt covers v dt / 2 more than
    the continuous v² / 2a.
    """
    finite = np.where(np.isfinite(acceleration), acceleration, 1.0)
    half = finite * dt / 2.0
    speed = np.sqrt(half**2 + 2.0 * finite * np.abs(distance)) - half
    return np.where(np.isfinite(acceleration), speed, np.inf)
