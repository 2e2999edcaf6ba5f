"""The ring buffer against a plain list that keeps everything."""

import bisect

import numpy as np
import pytest

from faster_vla_ros.sensors.ring import StampedRing


def fill(ring, count, step=0.01):
    """Append rows whose values are their number; return stamps and rows."""
    stamps = [1.0 + k * step for k in range(count)]
    rows = [np.full(2, float(k)) for k in range(count)]
    for stamp, row in zip(stamps, rows, strict=True):
        ring.append(stamp, row)
    return stamps, rows


@pytest.mark.parametrize('capacity', [1, 2, 3, 8])
@pytest.mark.parametrize('count', [1, 2, 3, 7, 8, 9, 16, 17, 50])
def test_the_newest_rows_are_kept_in_order(capacity, count):
    ring = StampedRing(capacity, 2)
    stamps, rows = fill(ring, count)
    kept = min(capacity, count)
    assert len(ring) == kept
    assert ring.newest == stamps[-1]
    for index in (*range(kept), *range(-kept, 0)):
        stamp, row = ring[index]
        assert stamp == stamps[-kept:][index]
        np.testing.assert_array_equal(row, rows[-kept:][index])
    for index in (kept, -kept - 1):
        with pytest.raises(IndexError, match=f'row {index} of {kept}'):
            ring[index]


@pytest.mark.parametrize('count', [1, 5, 8, 13, 24])
def test_neighbours_are_those_a_search_of_a_list_finds(count):
    ring = StampedRing(8, 2)
    kept = fill(ring, count)[0][-8:]
    for stamp in [*kept, *np.linspace(0.9, 1.4, 101)]:
        after = bisect.bisect_left(kept, stamp)
        if after == len(kept):
            expected = (after - 1, after - 1)
        elif after == 0 or kept[after] == stamp:
            expected = (after, after)
        else:
            expected = (after - 1, after)
        assert ring.around(stamp) == expected


def test_row_is_a_copy_both_ways():
    ring, row = StampedRing(4, 2), np.zeros(2)
    ring.append(1.0, row)
    row[:] = 5.0
    ring[0][1][:] = 7.0
    np.testing.assert_array_equal(ring[0][1], [0.0, 0.0])


@pytest.mark.parametrize('stamp', [1.0, 0.5, float('nan')])
def test_stamp_that_does_not_follow_is_a_mistake_of_the_caller(stamp):
    ring = StampedRing(4, 1)
    ring.append(1.0, np.zeros(1))
    with pytest.raises(ValueError, match=r'does not follow 1\.0'):
        ring.append(stamp, np.zeros(1))


def test_empty_and_cleared_rings_have_no_rows():
    ring = StampedRing(4, 2)
    for _ in range(2):
        assert not ring
        assert ring.newest == float('-inf')
        with pytest.raises(IndexError, match='no rows'):
            ring.around(1.0)
        fill(ring, 3)
        ring.clear()
    ring.append(0.5, np.ones(2))  # earlier than what was forgotten
    assert len(ring) == 1
