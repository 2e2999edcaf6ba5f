"""How fast the robot's clock goes: that of a simulation may be slower, or stand still."""

from __future__ import annotations

import collections

# Seconds that are looked back over: simulated time comes in steps of up to some ten milliseconds.
WINDOW = 1.0
# A clock that is off by more than this (s) from one reading to the next has jumped.
JUMP = 0.5
# A simulation that catches up is hardly faster than this.
FASTEST = 2.0


class Pace:
    """Seconds of the robot's clock per second, from readings of both clocks side by side."""

    def __init__(self) -> None:
        """Take it that both go alike until it is known better."""
        self.rate = 1.0
        self._readings: collections.deque[tuple[float, float]] = collections.deque()

    def read(self, steady: float, clock: float) -> None:
        """Take what both clocks say now, in seconds."""
        if self._readings:
            before, then = self._readings[-1]
            if clock < then or clock - then > steady - before + JUMP:
                self._readings.clear()
                self.rate = 1.0  # simulated time stands at zero before it begins
        self._readings.append((steady, clock))
        while steady - self._readings[0][0] > WINDOW and len(self._readings) > 2:
            self._readings.popleft()
        first, begin = self._readings[0]
        if steady - first >= WINDOW / 2.0:
            self.rate = min((clock - begin) / (steady - first), FASTEST)
