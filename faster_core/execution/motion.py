"""The set-points of all components: followed, held or brought to rest, within limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.execution.config import ComponentConfig, DispatcherConfig
from faster_core.execution.followed import Followed
from faster_core.execution.limits import PositionLimiter, VelocityLimiter
from faster_core.execution.plan import Plan
from faster_core.execution.spline import Trajectory
from faster_core.execution.trajectory import brake, follow_all


class Motion:
    """What is commanded, moved tick by tick; starts at rest where the robot is measured."""

    def __init__(
        self,
        embodiment: Embodiment,
        config: DispatcherConfig,
        measured: Mapping[str, np.ndarray],
        sampled: Collection[str] = (),
    ) -> None:
        """Take positions from `measured` (component -> [d]); velocities start at zero.

        Args:
            embodiment: the components.
            config: their limits.
            measured: positions, component -> [d].
            sampled: positions that every tick sends. Between ticks they stand still: what a late
                one moves, it moves in all the time since the last. Other positions have a
                trajectory that goes on; unless it is known that the time has passed they stay
                behind it by what a late tick leaves out, as the clock may as well have jumped
                while their controller did not.
        """
        self._sampled = frozenset(sampled)
        self._slices = embodiment.action_slices
        self._limiters = {
            c.name: _limiter(c, config.components[c.name], measured) for c in embodiment.action
        }
        self._followed = {
            c.name: Followed.standing(self._limiters[c.name].position)
            for c in embodiment.action
            if c.kind.is_position and c.name not in self._sampled
        }
        self._replaced = dict(self._followed)  # by what was made last

    def set_config(self, config: DispatcherConfig) -> None:
        """Take other limits; set-points go on from where they are."""
        for name, limiter in self._limiters.items():
            limiter.config = config.components[name]

    def restart(self, measured: Mapping[str, np.ndarray]) -> None:
        """Take these positions, at rest, as measured: the robot may have been moved."""
        for name, values in measured.items():
            self._limiters[name].stand()
            self._limiters[name].position = np.array(values, dtype=float)
            self._begin_anew(name)

    def stand(self, names: Iterable[str]) -> None:
        """Take it that these do not move by our command any more: somebody else commands."""
        for name in names:
            self._limiters[name].stand()
            self._begin_anew(name)

    def _begin_anew(self, name: str) -> None:
        if name in self._followed:
            standing = Followed.standing(self._limiters[name].position)
            self._followed[name] = self._replaced[name] = standing

    def command(self, name: str) -> np.ndarray:
        """Return what is commanded now for one component, [d]."""
        return self._limiters[name].command.copy()

    def set_point(self) -> np.ndarray:
        """Return what is commanded now, [D]."""
        return np.concatenate([limiter.command for limiter in self._limiters.values()])

    def rest(self) -> np.ndarray:
        """Return [D] where it comes to rest: positions after braking, velocities zero."""
        return np.concatenate([limiter.resting_point() for limiter in self._limiters.values()])

    def in_range(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """Return the positions [d] of a row [D], component -> within the limits."""
        return {
            name: np.clip(row[self._slices[name]], limiter.config.lower, limiter.config.upper)
            for name, limiter in self._limiters.items()
            if isinstance(limiter, PositionLimiter)
        }

    def at_rest(self, name: str) -> bool:
        """Whether a component's set-point does not move (any more)."""
        return self._limiters[name].at_rest

    def stood_for(self, name: str) -> float:
        """Return the seconds since a controller came to the end of its trajectory, or less than 0.

        Nothing is sent from then on, so it may have been moved.
        """
        return self._followed[name].stood_for

    def place(self, name: str) -> np.ndarray:
        """Return where a position component is by what was commanded, [d]."""
        if name in self._followed:
            return self._followed[name].in_seconds(0.0)[0]
        return self.command(name)

    def not_sent(self, names: Iterable[str]) -> None:
        """Take that these trajectories, made last, were not sent: the ones before go on."""
        for name in names:
            self._followed[name] = self._replaced[name]

    def go_on(self, seconds: float) -> None:
        """Take that so much time has passed for controllers that follow trajectories."""
        for followed in self._followed.values():
            followed.go_on(seconds)

    def may_begin_later(self, name: str) -> bool:
        """Whether a trajectory can begin later than now: not with bounded jerk."""
        return self._limiters[name].sampled

    def trajectories(
        self,
        names: Iterable[str],
        plan: Plan | None,
        *,
        now: float,
        ahead: float,
        lead: float,
        tick: float,
        again: bool = False,
    ) -> dict[str, Trajectory]:
        """Return how position components go on: along `plan`, or to rest without one.

        Without a plan nothing is to be done about a controller that has come to its end: it stands
        there, or has been moved since.

        A trajectory begins where the controller is on the last one, which is not where the
        set-point is: that catches up with a plan by other steps, and has lost speed already in the
        tick in which it begins to brake. (With bounded jerk it begins at the set-point, as the
        acceleration there is known.)

        Args:
            names: of the components.
            plan: what is followed.
            now: seconds on the plan's clock; the trajectories' times count from it.
            ahead: the controllers get them so many seconds later, and go on as before until then.
            lead: seconds from then until the first point, except where it brakes.
            tick: seconds between two ticks.
            again: those made last, at the same time, were not sent.
        """
        names, limiters = list(names), {}
        if again:
            self.not_sent(names)
        for name in names:
            if plan is None and self.stood_for(name) >= 0.0:
                continue
            limiter = self._limiters[name]
            if limiter.sampled:
                limiter = limiter.starting_at(*self._followed[name].in_seconds(ahead))
            limiters[name] = limiter
        made = {}
        # A set-point is known for now only: from there it begins at once, hence is sent first.
        for sampled, later in ((False, 0.0), (True, ahead)):
            some = {n: x for n, x in limiters.items() if x.sampled == sampled}
            if plan is None or not some:
                made |= {n: brake(x, lead=lead, tick=tick) for n, x in some.items()}
                continue
            ways = follow_all(
                list(some.values()),
                plan,
                [self._slices[n] for n in some],
                now=now + later,
                lead=lead,
                tick=tick,
            )
            made |= zip(some, ways, strict=True)
        for name, limiter in limiters.items():
            start = limiter.position, limiter.velocity
            begins_in = ahead if limiter.sampled else 0.0
            self._replaced[name] = before = self._followed[name]
            self._followed[name] = Followed(start, made[name], begins_in=begins_in, before=before)
            if begins_in > 0.0:
                made[name] = made[name].delayed(begins_in, *start)
        return made

    def follow(
        self,
        before: np.ndarray,
        target: np.ndarray,
        dt: float,
        *,
        late: tuple[np.ndarray, float] | None = None,
        known: bool = False,
        silence: float = 0.0,
    ) -> tuple[str, ...]:
        """Move towards a target [D] that was `before` [D] one tick of `dt` seconds ago.

        Args:
            before: the target `dt` seconds ago.
            target: the target now.
            dt: seconds to move for.
            late: if more time has passed since the last tick, the target then, and the seconds.
            known: that time has passed for controllers, too.
            silence: seconds after which speeds are no longer followed but brake, over all of
                them; 0: none.

        Returns:
            Components that a limit kept from the target.
        """
        limited = []
        for name, limiter in self._limiters.items():
            at = self._slices[name]
            if silence and isinstance(limiter, VelocityLimiter):
                limiter.settle(silence)
                held = True
            elif late is not None and name in self._sampled:
                start, passed = late
                held = limiter.step(start[at], target[at], passed, share=dt / passed)
            elif late is not None and known and name in self._followed:
                start, passed = late
                held = limiter.step(start[at], target[at], passed)
            else:
                held = limiter.step(before[at], target[at], dt)
            if held:
                limited.append(name)
        return tuple(limited)

    def settle(
        self, dt: float, passed: float = 0.0, *, known: bool = False, silence: float = 0.0
    ) -> None:
        """Brake for one tick of `dt` seconds and stay there: never back to an earlier place.

        Args:
            dt: seconds to brake for.
            passed: seconds since the last tick, if these are more.
            known: they have passed for controllers, too.
            silence: seconds for which speeds brake instead; 0: as long as everything else.
        """
        for name, limiter in self._limiters.items():
            speeds = isinstance(limiter, VelocityLimiter)
            if known and passed > dt and name in self._followed and not limiter.sampled:
                # Its controller went on until now; how it accelerates is not known.
                limiter.stand()
                limiter.position, limiter.velocity = self._followed[name].in_seconds(0.0)
                continue
            limiter.settle(silence if silence and speeds else dt)
            if passed > dt and name in self._sampled:
                limiter.slow(passed / dt)


def _limiter(
    component: Component, config: ComponentConfig, measured: Mapping[str, np.ndarray]
) -> PositionLimiter | VelocityLimiter:
    """Return what keeps a component within its limits, at rest where it is measured."""
    jerk = np.isfinite(config.max_jerk).all()
    if jerk:
        from faster_core.execution.jerk import JerkPositionLimiter, JerkVelocityLimiter
    if not component.kind.is_position:
        return JerkVelocityLimiter(config) if jerk else VelocityLimiter(config)
    kind = JerkPositionLimiter if jerk else PositionLimiter
    switches = component.kind is Kind.GRIPPER_POSITION
    return kind(config, measured[component.name], switches=switches)
