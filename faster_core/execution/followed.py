"""Where a controller is on the trajectory that it was sent last."""

from __future__ import annotations

import numpy as np

from faster_core.execution.spline import at, Trajectory


class Followed:
    """A trajectory and how much of it has passed; behind its end the controller stands.

    The set-point is near it, but not on it: it moves tick by tick, and the tick in which motion is
    stopped brakes it already, while the controller went on until now.
    """

    def __init__(
        self,
        start: tuple[np.ndarray, np.ndarray],
        trajectory: Trajectory,
        *,
        begins_in: float = 0.0,
        before: Followed | None = None,
    ) -> None:
        """Take a trajectory that is about to be sent.

        Args:
            start: where the controller is then: position and velocity [d].
            trajectory: its times count from then.
            begins_in: seconds until then.
            before: what is followed until then; None: it stands at the start.
        """
        position, velocity = start
        self._before = before if begins_in > 0.0 else None
        self._path = Trajectory(
            times=np.concatenate([[0.0], trajectory.times]),
            positions=np.concatenate([position[None], trajectory.positions]),
            velocities=np.concatenate([velocity[None], trajectory.velocities]),
        )
        self._passed = -begins_in

    @classmethod
    def standing(cls, position: np.ndarray) -> Followed:
        """Return that of a controller that stands at a place [d]."""
        rest = np.zeros_like(position)
        way = Trajectory(times=np.ones(1), positions=position[None], velocities=rest[None])
        made = cls((position, rest), way)
        made._passed = 1.0
        return made

    @property
    def stood_for(self) -> float:
        """Seconds since it came to its end; negative until then."""
        return self._passed - float(self._path.times[-1])

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds
        if self._before is not None:
            self._before.go_on(seconds)
            if self._passed >= 0.0:
                self._before = None

    def in_seconds(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Return position and velocity [d] that it has in so many seconds."""
        if self._before is not None and self._passed + seconds < 0.0:
            return self._before.in_seconds(seconds)
        passed = min(max(self._passed + seconds, 0.0), self._path.times[-1])
        there = at(self._path, np.array([passed]))
        return there.positions[0], there.velocities[0]
