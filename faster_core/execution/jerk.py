"""Set-points with bounded jerk too; Ruckig finds the way (Berscheid and Kröger, RSS 2021).

Every tick asks anew for the fastest way from the present set-point to the target and goes along
it for that tick. Needs the package `ruckig` (extra `jerk`).
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib

import numpy as np
import ruckig

from faster_core.execution.config import ComponentConfig
from faster_core.execution.limits import APART, PositionLimiter, STANDING, VelocityLimiter

# A target that moves as fast as the limit leaves the solver no speed to catch up with; this does.
_SHARE = 0.999
# At the limits of arithmetic, mostly after a limit was lowered; the way would take hours.
_UNSOLVED = (ruckig.RuckigError, ValueError)
# Position, velocity and acceleration, each [d].
_State = tuple[Sequence[float], Sequence[float], Sequence[float]]


class JerkPositionLimiter(PositionLimiter):
    """A `PositionLimiter` that also bounds how fast the acceleration changes."""

    sampled = False

    def __init__(
        self, config: ComponentConfig, position: np.ndarray, *, switches: bool = False
    ) -> None:
        """Start at rest at `position` [d]; `switches`: ramps from row to row are expected."""
        super().__init__(config, position, switches=switches)
        self.acceleration = np.zeros_like(self.position)

    @property
    def at_rest(self) -> bool:
        """Whether the set-point stands still and stays there."""
        return not self.velocity.any() and not self.acceleration.any()

    def stand(self) -> None:
        """Take it that nothing moves."""
        super().stand()
        self.acceleration = np.zeros_like(self.position)

    def step(
        self, before: np.ndarray, target: np.ndarray, dt: float, *, share: float = 1.0
    ) -> bool:
        """Move towards a target for one tick (see `PositionLimiter.step`).

        After a share of a tick it goes on evenly, at the speed that its way was over the tick.
        """
        config = self.config
        start = np.clip(before, config.lower, config.upper)
        goal = np.clip(target, config.lower, config.upper)
        state = self._ahead(start, goal, dt)
        if share < 1.0:
            most = config.max_velocity * dt * share
            way = np.clip(np.array(state[0]) - self.position, -most, most)
            state = (self.position + way, way / dt, np.zeros_like(way))
            if not self._can_stop(state):
                state = self._ahead(goal - (goal - start) * share, goal, dt * share)
                state = (state[0], np.array(state[1]) * share, np.array(state[2]) * share**2)
        self._go(state, dt)
        slack = 1e-3 * config.max_velocity * dt
        reached = goal if self._switches else self.position
        return bool((np.abs(reached - target) > slack).any())

    def _ahead(self, start: np.ndarray, goal: np.ndarray, dt: float) -> _State:
        """Return the state in `dt` on the way to a target that moves from start to goal in it."""
        most = self.config.max_velocity
        speed = np.clip((goal - start) / dt, -most, most) * _SHARE
        with contextlib.suppress(*_UNSOLVED):
            state = self._beside(start, speed, dt)
            if self._can_stop(state):
                return state
        with contextlib.suppress(*_UNSOLVED):
            # It would swing through the end of the range: rather arrive at rest.
            return self._to(goal, dt)
        return self._braking().at_time(dt)

    def slow(self, factor: float) -> None:
        """Take it that the last step took `factor` >= 1 times as long."""
        super().slow(factor)
        self.acceleration = self.acceleration / factor**2

    def settle(self, dt: float) -> None:
        """Brake for one tick of `dt` > 0 seconds."""
        self._go(self._braking().at_time(dt), dt)

    def resting_point(self) -> np.ndarray:
        """Return [d] where it comes to rest when braked from now on."""
        way = self._braking()
        return self._in_range(np.array(way.at_time(way.duration)[0]))

    def way_to_rest(
        self, lead: float, soonest: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return times [K], positions [K, d] and velocities [K, d] of braking from now on.

        Between the points, where the jerk of a dimension changes, the way is a cubic.
        """
        way = self._braking()
        if way.duration <= soonest:
            rest = self.resting_point()
            return np.array([max(lead, way.duration)]), rest[None], np.zeros_like(rest)[None]
        changes = [way.duration]
        for profile in way.profiles[0]:
            first = profile.brake.duration
            changes += [first, *(first + np.cumsum(profile.t))]
        times = np.unique(changes)
        times = times[(times > APART) & (np.diff(times, append=np.inf) > APART)]
        states = [way.at_time(min(t, way.duration)) for t in times]
        positions = np.array([self._in_range(np.array(s[0])) for s in states])
        velocities = np.array([s[1] for s in states])
        velocities[-1] = 0.0
        return times, positions, velocities

    def _beside(self, place: np.ndarray, speed: np.ndarray, dt: float) -> _State:
        """Return the state in `dt` on the way to a target that moves from `place` at `speed`.

        Seen from the target: there it stands at zero, and the speed limits are shifted.
        """
        question = self._question(ruckig.ControlInterface.Position)
        question.current_position = (self.position - place).tolist()
        question.current_velocity = (self.velocity - speed).tolist()
        question.max_velocity = (self.config.max_velocity - speed).tolist()
        question.min_velocity = (-self.config.max_velocity - speed).tolist()
        position, velocity, acceleration = map(np.array, _solved(question).at_time(dt))
        return position + place + speed * dt, velocity + speed, acceleration

    def _to(self, place: np.ndarray, dt: float) -> _State:
        """Return the state in `dt` on the way to rest at `place`."""
        question = self._question(ruckig.ControlInterface.Position)
        question.target_position = place.tolist()
        return _solved(question).at_time(dt)

    def _can_stop(self, state: _State) -> bool:
        """Whether a state leaves room to brake before the ends of the range."""
        config, inside = self.config, self._is_inside(self.position)
        question = self._question(ruckig.ControlInterface.Velocity)
        position, velocity, acceleration = map(np.array, state)
        question.current_position = position.tolist()
        question.current_velocity = velocity.tolist()
        question.current_acceleration = acceleration.tolist()
        try:
            extrema = _solved(question).position_extrema
        except _UNSOLVED:
            return False
        least, most = (np.array([getattr(e, end) for e in extrema]) for end in ('min', 'max'))
        stops = (least >= config.lower - 1e-9) & (most <= config.upper + 1e-9)
        return bool((stops | ~inside).all())

    def _is_inside(self, position: np.ndarray) -> np.ndarray:
        return (position >= self.config.lower) & (position <= self.config.upper)

    def _braking(self) -> ruckig.Trajectory:
        return _solved(self._question(ruckig.ControlInterface.Velocity))

    def _question(self, interface: ruckig.ControlInterface) -> ruckig.InputParameter:
        question = _question(self.config, interface)
        question.current_position = self.position.tolist()
        question.current_velocity = self.velocity.tolist()
        question.current_acceleration = self.acceleration.tolist()
        return question

    def _go(self, state: _State, dt: float) -> None:
        position, velocity, acceleration = map(np.array, state)
        kept = self._in_range(position)
        # The range goes before everything else.
        stuck = kept != position
        self.position = kept
        self.velocity = np.where(stuck | (np.abs(velocity) < STANDING), 0.0, velocity)
        still = stuck | ((self.velocity == 0.0) & (np.abs(acceleration) < STANDING / dt))
        self.acceleration = np.where(still, 0.0, acceleration)


class JerkVelocityLimiter(VelocityLimiter):
    """A `VelocityLimiter` that also bounds how fast the acceleration changes."""

    def __init__(self, config: ComponentConfig) -> None:
        """Start at rest."""
        super().__init__(config)
        self.acceleration = np.zeros_like(self.velocity)

    @property
    def at_rest(self) -> bool:
        """Whether zero is commanded and stays so."""
        return not self.velocity.any() and not self.acceleration.any()

    def stand(self) -> None:
        """Take it that nothing moves."""
        super().stand()
        self.acceleration = np.zeros_like(self.velocity)

    def step(self, before: np.ndarray, target: np.ndarray, dt: float) -> bool:
        """Move towards a target velocity for one tick (see `VelocityLimiter.step`)."""
        del before
        most = self.config.max_velocity
        self._go(np.clip(target, -most, most), dt)
        return bool((np.abs(self.velocity - target) > 1e-3 * most).any())

    def settle(self, dt: float) -> None:
        """Brake for one tick of `dt` > 0 seconds."""
        self._go(np.zeros_like(self.velocity), dt)

    def _go(self, speed: np.ndarray, dt: float) -> None:
        question = _question(self.config, ruckig.ControlInterface.Velocity)
        question.current_velocity = self.velocity.tolist()
        question.current_acceleration = self.acceleration.tolist()
        question.target_velocity = speed.tolist()
        _, velocity, acceleration = map(np.array, _solved(question).at_time(dt))
        still = (np.abs(velocity) < STANDING) & (np.abs(acceleration) < STANDING / dt)
        self.velocity = np.where(still, 0.0, velocity)
        self.acceleration = np.where(still, 0.0, acceleration)


def _question(
    config: ComponentConfig, interface: ruckig.ControlInterface
) -> ruckig.InputParameter:
    question = ruckig.InputParameter(len(config.max_velocity))
    question.control_interface = interface
    question.synchronization = ruckig.Synchronization.No
    question.max_velocity = config.max_velocity.tolist()
    question.max_acceleration = config.max_acceleration.tolist()
    question.max_jerk = config.max_jerk.tolist()
    return question


def _solved(question: ruckig.InputParameter) -> ruckig.Trajectory:
    way = ruckig.Trajectory(question.degrees_of_freedom)
    # Raises RuckigError for input that no motion fits; the dispatcher's process then ends safely.
    ruckig.Ruckig(question.degrees_of_freedom).calculate(question, way)
    return way
