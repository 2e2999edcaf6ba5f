"""A ring buffer of stamped rows: insertion in constant time, look-up by binary search."""

from __future__ import annotations

import numpy as np


class StampedRing:
    """The newest rows of a stream whose stamps grow.

    Every row is written twice, `capacity` apart, so that the rows kept are always one contiguous
    piece of the arrays and `searchsorted` works on a view of it.
    """

    def __init__(self, capacity: int, width: int) -> None:
        """Allocate everything at once: `capacity` rows of `width` values."""
        self._capacity, self._end, self._count = capacity, capacity, 0
        self._stamps = np.empty(2 * capacity)
        self._rows = np.empty((2 * capacity, width))

    def __len__(self) -> int:
        """Return how many rows are kept, at most the capacity."""
        return self._count

    def __getitem__(self, index: int) -> tuple[float, np.ndarray]:
        """Return stamp (s) and a copy of the row [width]; 0 is the oldest, -1 the newest."""
        if not -self._count <= index < self._count:
            raise IndexError(f'row {index} of {self._count}')
        i = self._end + index if index < 0 else self._end - self._count + index
        return float(self._stamps[i]), self._rows[i].copy()

    @property
    def newest(self) -> float:
        """Stamp of the newest row (s); minus infinity without rows."""
        return float(self._stamps[self._end - 1]) if self._count else float('-inf')

    def clear(self) -> None:
        """Forget all rows."""
        self._count = 0

    def append(self, stamp: float, row: np.ndarray) -> None:
        """Take a row [width], later than all before it; a full ring forgets its oldest.

        Raises:
            ValueError: the stamp is not later, which the caller has to prevent.
        """
        if self._count and not stamp > self._stamps[self._end - 1]:
            raise ValueError(f'stamp {stamp} does not follow {self.newest}')
        end = self._end if self._end < 2 * self._capacity else self._capacity
        for i in (end, end - self._capacity):
            self._stamps[i] = stamp
            self._rows[i] = row
        self._end = end + 1
        self._count = min(self._count + 1, self._capacity)

    def around(self, stamp: float) -> tuple[int, int]:
        """Return the indices of the last row not after a stamp and of the first not before it.

        They are equal where the stamp is met. Before the first or after the last row both are
        that row: nothing lies on the other side. IndexError without rows.
        """
        if not self._count:
            raise IndexError('the ring has no rows')
        kept = self._stamps[self._end - self._count : self._end]
        after = int(np.searchsorted(kept, stamp))
        if after == self._count:
            return after - 1, after - 1
        if after == 0 or kept[after] == stamp:
            return after, after
        return after - 1, after
