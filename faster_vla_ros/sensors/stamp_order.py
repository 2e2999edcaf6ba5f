"""Whether the stamp of a message says that it tells anything new."""

from __future__ import annotations

from builtin_interfaces.msg import Time

from faster_core.execution.dispatcher import CLOCK_TOLERANCE


class StampOrder:
    """Judges the stamps of one driver, one after the other; one that was never set (0) passes.

    A stamp must be newer than all before. Clocks that are set back are followed all the same: at
    once where it is ours too, also behind a message that was still on its way from before, else
    when nothing was taken for `timeout` and the stamps grow again.
    """

    def __init__(self, timeout: float) -> None:
        """Take the age (seconds) beyond which the newest message is stale anyway."""
        self._timeout = timeout
        self._newest = self._last = 0  # ns
        self._taken_at = self._back_until = -float('inf')

    def refuse(self, stamp: Time, now: float) -> str:
        """Return why a message that came at `now` (s, our clock) is not news; empty if it is."""
        value = stamp.sec * 10**9 + stamp.nanosec
        if not value:
            return ''
        last, self._last = self._last, value
        if value == self._newest:
            return 'its stamp does not change'
        if now < self._taken_at - CLOCK_TOLERANCE:  # ours was set back: theirs may follow, once
            self._back_until = now + self._timeout
        stale = now - self._taken_at > self._timeout
        if value < self._newest:
            if now > self._back_until and not (stale and value > last):
                return 'its stamp runs back'
            self._back_until = -float('inf')
        self._newest, self._taken_at = value, now
        return ''
