"""How fast a training runs, and how much of it is waiting for data."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import time
from typing import Protocol


class _Waiting(Protocol):
    """What counts the seconds its user waited."""

    waited: float


class Throughput:
    """Throughput since it was last asked for."""

    def __init__(self, step: int, loader: _Waiting) -> None:
        """Begin at a step; `loader.waited` is in seconds."""
        self._loader = loader
        self._last = (step, time.perf_counter(), loader.waited)

    def since(self, step: int, batch_size: int) -> dict[str, float]:
        """Return samples per second, and the share of the time spent waiting for batches."""
        now = (step, time.perf_counter(), self._loader.waited)
        steps, seconds, waited = (b - a for a, b in zip(self._last, now, strict=True))
        self._last = now
        return {'samples_per_s': steps * batch_size / seconds, 'wait_share': waited / seconds}

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave out the time of what is done meanwhile."""
        start = time.perf_counter()
        yield
        step, then, waited = self._last
        self._last = (step, then + time.perf_counter() - start, waited)
