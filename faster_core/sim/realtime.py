"""The simulated robot on a real clock: physics in small slices, and what the robot does by itself.

No thread, no sleep and no clock of its own: every method takes `now`, the caller's steady clock in
seconds, so that behaviour in time is tested without waiting.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses

import numpy as np

from faster_core.errors import ConfigError
from faster_core.sim.robot import SimulatedRobot

# Length of the window the real-time factor is taken over, seconds.
FACTOR_WINDOW = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealTimeConfig:
    """How simulated time follows the clock, and the robot's own watchdogs.

    Attributes:
        slice: simulated seconds per call of the simulator's `step`.
        max_lag: simulated time further behind the clock than this is given up instead of being
            caught up in one burst; the real-time factor then falls below one.
        base_timeout: seconds after which the last base speed is forgotten. 0: never, as the
            vendor's chassis, which keeps its last target (interfaces page, 11.4).
        torso_timeout: the same for the torso's speed.
    """

    slice: float = 0.01
    max_lag: float = 0.1
    base_timeout: float = 0.0
    torso_timeout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values out of range (ConfigError)."""
        if not 0.0 < self.slice <= 0.1:
            raise ConfigError(f'slice: expected seconds in (0, 0.1], found {self.slice}')
        if self.max_lag < self.slice:
            raise ConfigError(
                f'max_lag: at least one slice ({self.slice} s), found {self.max_lag}'
            )
        for name in ('base_timeout', 'torso_timeout'):
            if getattr(self, name) < 0.0:
                raise ConfigError(f'{name}: seconds >= 0, found {getattr(self, name)}')


class RealTimeRobot:
    """A simulator that follows a clock and forgets speed commands when nobody repeats them."""

    def __init__(
        self,
        sim: SimulatedRobot,
        now: float,
        config: RealTimeConfig = RealTimeConfig(),
        before_slice: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Start the clock.

        Args:
            sim: the simulator.
            now: seconds.
            config: how it follows the clock.
            before_slice: called before every slice with the time it was due at.
        """
        self.sim, self._config = sim, config
        self.before_slice = before_slice
        self._timeouts = {'base': config.base_timeout, 'torso': config.torso_timeout}
        self._commanded_at: dict[str, float] = {}
        self._braked = False
        self.num_slices = 0
        self._history: collections.deque[tuple[float, int]]
        self.restart(now)

    def restart(self, now: float) -> None:
        """Let physics begin at `now`: what passed since the last slice is not caught up."""
        self._due = now + self._config.slice
        self._history = collections.deque([(now, self.num_slices)])

    @property
    def elapsed(self) -> float:
        """Simulated seconds since the start; episodes do not set it back."""
        return self.num_slices * self._config.slice

    def reset(self, seed: int, task: str | None = None) -> None:
        """Start an episode; commands of the last one are forgotten (errors: the simulator's)."""
        self.sim.reset(seed, task)
        self._commanded_at.clear()

    def command(self, component: str, values: np.ndarray, now: float) -> None:
        """Take a set-point in SI units (errors: `R1LiteSim.set_command`)."""
        self.sim.set_command(component, values)
        if component == 'base' and self._braked:
            self.sim.set_command('base', np.zeros(3))
        if component in self._timeouts:
            self._commanded_at[component] = now

    def brake(self, on: bool) -> None:
        """Set or release the chassis brake: with it on, base speeds are ignored."""
        self._braked = on
        if on:
            self.sim.set_command('base', np.zeros(3))

    def tick(self, now: float) -> float:
        """Run at most one slice if it is due.

        Returns:
            Seconds until the next slice is due; not positive: call again at once.
        """
        if now < self._due:
            return self._due - now
        self._forget_old_speeds(now)
        self.before_slice(self._due)
        self.sim.step(self._config.slice)
        self.num_slices += 1
        self._due += self._config.slice
        if now - self._due > self._config.max_lag:
            self._due = now
        return self._due - now

    def real_time_factor(self, now: float) -> float:
        """Return simulated over real time since the calls of the last `FACTOR_WINDOW` seconds."""
        self._history.append((now, self.num_slices))
        while len(self._history) > 2 and now - self._history[1][0] >= FACTOR_WINDOW:
            self._history.popleft()
        start, slices = self._history[0]
        if now <= start:
            return 1.0
        return (self.num_slices - slices) * self._config.slice / (now - start)

    def _forget_old_speeds(self, now: float) -> None:
        for component, timeout in self._timeouts.items():
            at = self._commanded_at.get(component)
            if timeout and at is not None and now - at > timeout:
                size = self.sim.embodiment.action_component(component).size
                self.sim.set_command(component, np.zeros(size))
                del self._commanded_at[component]
