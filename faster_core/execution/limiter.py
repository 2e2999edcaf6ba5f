"""Velocity and acceleration limits between two ticks."""

from __future__ import annotations

import numpy as np

from faster_core.embodiment import Component
from faster_core.execution.config import ComponentConfig


def limit(
    target: np.ndarray,
    reference: np.ndarray,
    dt: float,
    component: Component,
    config: ComponentConfig,
) -> tuple[np.ndarray, bool]:
    """Move from the last set-point towards a target as fast as is allowed.

    Args:
        target: [d] wanted.
        reference: [d] commanded last.
        dt: seconds since then.
        component: gives the kind.
        config: limits.

    Returns:
        the new set-point [d], and whether a limit changed the target noticeably.
    """
    wanted = target
    if component.kind.is_position:
        if config.position_limits:
            low, high = np.array(config.position_limits).T
            target = np.clip(target, low, high)
        most = np.array(config.max_velocity) * dt
    else:
        speed = np.array(config.max_velocity)
        target = np.clip(target, -speed, speed)
        acceleration = np.array(config.max_acceleration or np.inf)
        most = acceleration * dt
    step = np.clip(target - reference, -most, most)
    result = reference + step
    return result, bool(np.abs(result - wanted).max() > 1e-3)
