"""How long ago something was, be it by the clock of a simulation."""

from __future__ import annotations

import time

from rclpy.clock import ROSClock

# Wall seconds a simulated clock may fall behind. A simulation that is slower than real time makes
# nothing late; one that stands still does.
LAG = 3.0
# Seconds of the steady and of the node's clock.
Moment = tuple[float, float]


class Ages:
    """Seconds since a moment: of simulated time while that goes on, else of the steady clock."""

    def __init__(self, clock: ROSClock) -> None:
        """Take the clock of a node."""
        self._clock = clock

    def now(self) -> Moment:
        """Return this moment; a later one compares greater."""
        return time.monotonic(), self._clock.now().nanoseconds / 1e9

    def since(self, moment: Moment) -> float:
        """Return the seconds since a moment, of simulated time if the node has one.

        Once the wall seconds are more than these by `LAG`, they count, less the `LAG`.
        """
        steady, own = (new - old for new, old in zip(self.now(), moment, strict=True))
        return max(own, steady - LAG) if self._clock.ros_time_is_active else steady
