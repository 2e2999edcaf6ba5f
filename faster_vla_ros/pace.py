"""How much simulated time has passed: it comes late, in steps, slower than ours, or not."""

from __future__ import annotations

import collections

# Seconds that are looked back over to tell how fast the clock goes.
WINDOW = 1.0
# A clock that went on by this much (s) more than ours since it last changed has jumped.
JUMP = 0.5
# A message of the clock is late by so much (s) at most: it waits while we compute.
LATEST = 0.03
# A simulation that catches up is hardly faster than this.
FASTEST = 2.0


class Pace:
    """Simulated seconds, estimated between the messages of the clock.

    The estimate is never behind the clock and at most `LATEST` ahead of it, except for a clock
    that jumps: time goes on evenly then, as it does for the controllers.

    Attributes:
        rate: seconds of the clock per second.
    """

    def __init__(self) -> None:
        """Take it that both go alike until it is known better."""
        self.rate = 1.0
        self._readings: collections.deque[tuple[float, float]] = collections.deque()
        self._changed = (0.0, 0.0)  # when the clock said something new last, and what
        self._ahead = 0.0  # of the clock, by our estimate

    def read(self, steady: float, clock: float) -> float:
        """Take what both clocks say now; return the seconds that passed since the last time."""
        if not self._readings:
            self._begin(steady, clock)
            return 0.0
        before, then = self._readings[-1]
        passed = self.rate * (steady - before)
        since, told = self._changed
        if clock < then or clock - told > steady - since + JUMP:
            self._begin(steady, clock)
            return passed
        if clock > then:
            self._changed = steady, clock
        ahead = min(max(then + self._ahead + passed - clock, 0.0), LATEST)
        passed, self._ahead = clock + ahead - then - self._ahead, ahead
        self._readings.append((steady, clock))
        while steady - self._readings[0][0] > WINDOW and len(self._readings) > 2:
            self._readings.popleft()
        first, begin = self._readings[0]
        if steady - first >= WINDOW / 2.0:
            self.rate = min((clock - begin) / (steady - first), FASTEST)
        return max(passed, 0.0)

    def _begin(self, steady: float, clock: float) -> None:
        self._readings.clear()
        self._readings.append((steady, clock))
        self._changed, self._ahead = (steady, clock), 0.0
        if self.rate == 0.0:  # it stands at zero before it begins
            self.rate = 1.0
