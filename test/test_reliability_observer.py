"""The judge of docs/reliability.md sees what is wrong with a trajectory."""

import numpy as np
import pytest

from scripts.reliability.observer import LimitObserver, Limits

LIMITS = Limits(
    position=True,
    speed=np.array([1.0]),
    acceleration=np.array([5.0]),
    lower=np.array([-1.0]),
    upper=np.array([1.0]),
)
REST = np.zeros(1), np.zeros(1)


def judged(times, positions, velocities, start=REST):
    observer = LimitObserver({'arm': LIMITS}, 0.02)
    points = np.array(times), np.array(positions)[:, None], np.array(velocities)[:, None]
    observer.see_trajectory('arm', 0.0, points, start)
    return [text.split('arm: ')[1].split(' [')[0] for text in observer.violations]


def test_one_that_keeps_to_the_limits_is_fine():
    # Up to 0.5 rad/s and down again, at 5 rad/s².
    assert judged([0.1, 0.3, 0.4], [0.025, 0.125, 0.15], [0.5, 0.5, 0.0]) == []


@pytest.mark.parametrize(
    ('points', 'what'),
    [
        (([0.2, 0.4], [0.3, 0.3], [0.0, 0.0]), ['speed', 'acceleration']),
        (([0.05, 0.15, 0.2], [0.0125, 0.0625, 0.075], [0.5, 0.5, 0.0]), ['acceleration']),
        # Within the limits at every point, not between them.
        (([0.4, 0.5, 0.9], [0.1, 0.15, 0.15], [0.0, 0.0, 0.0]), ['acceleration']),
        (([1.0, 2.0, 3.0], [0.5, 1.0, 1.5], [0.5, 0.5, 0.0]), ['position']),
        (([0.1, 0.2], [0.0, 0.0], [0.0, 0.1]), ['last velocity']),
        (([0.2, 0.1], [0.0, 0.0], [0.0, 0.0]), ['times']),
        (([0.1, 0.2], [0.0, np.nan], [0.0, 0.0]), ['trajectory']),
    ],
)
def test_what_is_wrong_is_told(points, what):
    found = judged(*points)
    assert set(found) >= set(what)
    assert set(found) - set(what) <= {'acceleration'}


def test_a_start_in_motion_counts():
    moving = np.zeros(1), np.array([0.5])
    assert judged([0.1], [0.025], [0.0], moving) == []
    assert judged([0.05], [0.0125], [0.0], moving) == ['acceleration']
