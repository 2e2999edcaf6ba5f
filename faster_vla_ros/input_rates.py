"""When and how often every input of the policy gave something usable."""

from __future__ import annotations

import collections

from rclpy.clock import ROSClock

from faster_vla_ros.ages import Ages, Moment


class InputRates:
    """Counts by input, not by topic: one of several sources on a topic may be silent alone."""

    def __init__(self, clock: ROSClock) -> None:
        """Measure nothing yet, by the clock of a node."""
        self._clock, self._ages = clock, Ages(clock)
        self._newest: dict[str, Moment] = {}
        self._counts: collections.Counter[str] = collections.Counter()
        self._looked: dict[str, tuple[int, float]] = {}

    def now(self) -> Moment:
        """Return this moment, for `age`."""
        return self._ages.now()

    def took(self, name: str) -> None:
        """Note a usable message of an input."""
        self._newest[name] = self._ages.now()
        self._counts[name] += 1

    def ever_seen(self, name: str) -> bool:
        """Whether a usable message ever came."""
        return name in self._newest

    def age(self, name: str, not_before: Moment | None = None) -> float | None:
        """Return the seconds since the newest usable message, or since a moment after it.

        None if there is neither.
        """
        moments = [m for m in (self._newest.get(name), not_before) if m is not None]
        return self._ages.since(max(moments)) if moments else None

    def rate(self, name: str) -> float | None:
        """Return usable messages per second since the call before; None at the first.

        By the node's clock, so that a simulation slower than real time keeps its rates.
        """
        now, number = self._clock.now().nanoseconds / 1e9, self._counts[name]
        before, then = self._looked.get(name, (0, now))
        self._looked[name] = number, now
        return (number - before) / (now - then) if now > then else None
