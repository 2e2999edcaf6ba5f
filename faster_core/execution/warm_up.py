"""Computing trajectories for nothing: the first ones of a process take twice as long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faster_core.embodiment import Embodiment
from faster_core.execution.config import DispatcherConfig
from faster_core.execution.motion import Motion
from faster_core.execution.plan import held_columns, splice, step_columns
from faster_core.execution.spline import Trajectory


def warm_up(
    embodiment: Embodiment, config: DispatcherConfig, names: Sequence[str]
) -> dict[str, Trajectory]:
    """Return the trajectories of a chunk that stands still, component -> trajectory.

    Args:
        embodiment: the robot's.
        config: its limits.
        names: components that go out as trajectories.
    """
    limits = config.components
    positions = [c.name for c in embodiment.action if c.kind.is_position]
    middle = {
        n: np.clip(np.zeros_like(limits[n].lower), limits[n].lower, limits[n].upper)
        for n in positions
    }
    motion = Motion(embodiment, config, middle, [n for n in positions if n not in names])
    row, horizon = motion.set_point(), embodiment.action_horizon
    plan = splice(
        old=None,
        anchor=(0.0, row),
        times=embodiment.step_period * np.arange(1, horizon + 1),
        values=np.tile(row, (horizon, 1)),
        rest=row,
        holding=held_columns(embodiment),
        switching=step_columns(embodiment),
        blend_steps=config.blend_steps,
        sequence_id=0,
    )
    tick = 1.0 / config.dispatch_rate
    return motion.trajectories(names, plan, now=0.0, ahead=0.0, lead=0.0, tick=tick)
