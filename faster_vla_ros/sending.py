"""How long after a tick its trajectories are sent, hence how far ahead of it they begin.

A controller that got a trajectory after its beginning would make up for that at once, in whatever
time is left to the next point.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection
import time

from builtin_interfaces.msg import Time

from faster_core.execution.dispatcher import Dispatcher
from faster_core.execution.state import Action, Tick
from faster_vla_ros.outputs.wire import Wire

# Seconds from a tick's time until the trajectories of a plan are sent: at first (at least), and at
# most. What comes later all the same is put off.
FIRST, LONGEST = 0.02, 0.1
# Likewise until those of a stop are, as a rule and at most.
STOP, LONGEST_STOP = 0.005, 0.02
# The longest of so many is taken, and so much more.
NUM_SENDINGS, MARGIN = 20, 1.2


class Sending:
    """Sends what ticks command, and tells the dispatcher how long that takes."""

    def __init__(self, wire: Wire, dispatcher: Dispatcher, warm_up: Callable[[], object]) -> None:
        """Measure what a first plan takes.

        Args:
            wire: the outputs.
            dispatcher: whose ticks are sent.
            warm_up: computes the trajectories of a plan.
        """
        self._wire, self._dispatcher = wire, dispatcher
        warm_up()
        begun = time.perf_counter()
        warm_up()
        sending = min(max(FIRST, 2.0 * (time.perf_counter() - begun)), LONGEST)
        dispatcher.sending_time, dispatcher.stopping_time = sending, STOP
        self._sendings = collections.deque([sending / MARGIN], maxlen=NUM_SENDINGS)

    def send(self, tick: Tick, stamp: Time, passed: Callable[[], float]) -> list[str]:
        """Send what a tick commands; returns the trajectories that the next tick makes anew.

        Args:
            tick: the dispatcher's newest.
            stamp: of the messages.
            passed: returns the seconds since the tick's time.
        """
        begun, follows = 0.0, tick.state.action in (Action.FOLLOW, Action.LIMIT)
        usual, longest = (
            (self._dispatcher.sending_time, LONGEST) if follows else (STOP, LONGEST_STOP)
        )

        def put_off(tick: Tick, names: Collection[str], late: float) -> Tick:
            nonlocal begun
            ahead, begun = min(max(usual, MARGIN * (late - begun)), longest), late
            return self._dispatcher.put_off(tick, names, late + ahead)

        late = self._wire.send(tick, stamp, passed, put_off)
        if late:
            self._dispatcher.not_sent(late)
        elif tick.trajectories and follows:
            self._sendings.append(passed() - begun)
            self._dispatcher.sending_time = min(MARGIN * max(self._sendings), LONGEST)
        return late
