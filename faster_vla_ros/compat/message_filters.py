"""`message_filters`, or the two classes of it that are used here.

The fallback follows the rule of the original (ros2/message_filters, `src/message_filters/
__init__.py`), so that the same stamps give the same sets on every machine. It differs in this:
it has neither `Subscriber` nor `Cache`, a message without a header raises AttributeError (the
original drops it with a warning, or takes the current time with `allow_headerless`), and it
stays usable after a callback raised (the original keeps its lock, and the next message hangs).
"""

from __future__ import annotations

try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter
except ImportError:
    from collections.abc import Callable, Sequence
    import itertools
    import threading
    from typing import Any

    class SimpleFilter:
        """Passes messages on to its callbacks."""

        def __init__(self) -> None:
            """Start without callbacks."""
            self.callbacks: dict[int, tuple[Callable, tuple]] = {}

        def registerCallback(self, callback: Callable, *args: Any) -> int:
            """Call `callback(*messages, *args)` for everything that comes.

            Returns:
                Number of the connection, from 0.
            """
            connection = len(self.callbacks)
            self.callbacks[connection] = (callback, args)
            return connection

        def signalMessage(self, *messages: Any) -> None:
            """Pass messages on."""
            for callback, args in self.callbacks.values():
                callback(*messages, *args)

    class ApproximateTimeSynchronizer(SimpleFilter):
        """Emits one message per filter, in the order of the filters.

        Every filter has a queue by stamp; a stamp that comes again replaces the message, and a
        full queue loses its smallest stamp. A message that comes is tried with all stamps of the
        other queues at most `slop` away, those nearest to it first and the last queue varying
        fastest. The first combination whose latest and earliest stamp are less than `slop` apart
        is emitted, and its messages are forgotten; older ones stay. One set at most per message.
        """

        def __init__(self, fs: Sequence[SimpleFilter], queue_size: int, slop: float) -> None:
            """Take filters, messages remembered per filter and the tolerance in seconds."""
            super().__init__()
            self.queue_size, self.slop = queue_size, int(slop * 1e9)
            self.queues: list[dict[int, Any]] = [{} for _ in fs]
            self.lock = threading.Lock()
            for index, source in enumerate(fs):
                source.registerCallback(self.add, self.queues[index], index)

        def add(self, message: Any, queue: dict[int, Any], index: int) -> None:
            """Take a message of a filter."""
            stamp = message.header.stamp
            now = stamp.sec * 1_000_000_000 + stamp.nanosec
            with self.lock:
                queue[now] = message
                while len(queue) > self.queue_size:
                    del queue[min(queue)]
                # A message that was too old for its full queue is gone already.
                if now in queue and (stamps := self._match(now, index)):
                    pairs = list(zip(self.queues, stamps, strict=True))
                    try:
                        self.signalMessage(*(q[s] for q, s in pairs))
                    finally:
                        for q, s in pairs:
                            del q[s]

        def _match(self, now: int, index: int) -> tuple[int, ...] | None:
            """Return one stamp per queue, that of queue `index` being `now`; None without set."""
            near = [
                [now]
                if i == index
                else sorted(
                    (s for s in queue if abs(s - now) <= self.slop), key=lambda s: abs(s - now)
                )
                for i, queue in enumerate(self.queues)
            ]
            sets = itertools.product(*near)
            return next((s for s in sets if max(s) - min(s) < self.slop), None)


__all__ = ['ApproximateTimeSynchronizer', 'SimpleFilter']
