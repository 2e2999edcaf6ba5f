"""`message_filters`, or the two classes of it that are used here.

The fallback keeps the real interface; it matches by the stamp nearest to that of the first filter.
"""

from __future__ import annotations

try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter
except ImportError:
    import collections
    from collections.abc import Callable, Sequence
    from typing import Any

    class SimpleFilter:
        """Passes messages on to its callbacks."""

        def __init__(self) -> None:
            """Start without callbacks."""
            self._callbacks: list[tuple[Callable, tuple]] = []

        def registerCallback(self, callback: Callable, *args: Any) -> None:
            """Call `callback(*message, *args)` for everything that comes."""
            self._callbacks.append((callback, args))

        def signalMessage(self, *messages: Any) -> None:
            """Pass messages on."""
            for callback, args in self._callbacks:
                callback(*messages, *args)

    class ApproximateTimeSynchronizer(SimpleFilter):
        """Emits one message per filter whose stamps all lie within `slop` of the first one's."""

        def __init__(self, fs: Sequence[SimpleFilter], queue_size: int, slop: float) -> None:
            """Take filters, messages remembered per filter and the tolerance in seconds."""
            super().__init__()
            self._slop = round(slop * 1e9)
            self._queues = [collections.OrderedDict() for _ in fs]
            self._size = queue_size
            for queue, source in zip(self._queues, fs, strict=True):
                source.registerCallback(self._add, queue)

        def _add(self, message: Any, queue: collections.OrderedDict) -> None:
            stamp = message.header.stamp
            queue[stamp.sec * 1_000_000_000 + stamp.nanosec] = message
            while len(queue) > self._size:
                queue.popitem(last=False)
            self._match()

        def _match(self) -> None:
            first, *others = self._queues
            for reference in sorted(first, reverse=True):
                chosen = [reference]
                for queue in others:
                    nearest = min(queue, key=lambda s: abs(s - reference), default=None)
                    if nearest is None or abs(nearest - reference) > self._slop:
                        break
                    chosen.append(nearest)
                if len(chosen) < len(self._queues):
                    continue
                messages = [q[s] for q, s in zip(self._queues, chosen, strict=True)]
                for queue, stamp in zip(self._queues, chosen, strict=True):
                    for old in [s for s in queue if s <= stamp]:
                        del queue[old]
                self.signalMessage(*messages)
                return


__all__ = ['ApproximateTimeSynchronizer', 'SimpleFilter']
