"""The judge of docs/reliability.md: which commands count as safe, and which do not."""

import numpy as np
import pytest

from scripts.reliability.observer import Limits
from scripts.reliability.safety import Command, first_safe

PERIOD = 0.02
TRIGGER = 3  # command at or after which it should be safe


def limits(position=False, acceleration=0.5):
    wide = np.full(1, np.inf)
    return Limits(
        position=position,
        speed=wide,
        acceleration=np.full(1, acceleration),
        lower=-wide,
        upper=wide,
    )


def judged(values, *, trigger=TRIGGER, stamps=None, **kind):
    """Return the index of the first safe command; None if there is none."""
    times = [i * PERIOD for i in range(len(values))]
    commands = [
        Command(
            sent_ns=round(t * 1e9),
            received_ns=round(t * 1e9),
            stamp=stamp,
            values=np.array([float(v)]),
        )
        for t, stamp, v in zip(times, stamps or times, values, strict=True)
    ]
    found = first_safe(commands, limits(**kind), round(trigger * PERIOD * 1e9), PERIOD)
    return None if found is None else commands.index(found)


@pytest.mark.parametrize(
    ('speeds', 'expected'),
    [
        ([0.1, 0.1, 0.1, 0.09, 0.08, 0.075, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0.0], 3),
        ([0.02, 0.02, 0.02, 0.02, 0.01, 0.0, 0.0], 4),  # one late
        ([0.02, 0.01, 0.0, 0.0, 0.0], 3),  # before the trigger does not count
        ([0.02, 0.02, 0.02, 0.01, 0.01, 0.0], 5),  # a pause in braking
        ([0.0, 0.0, 0.0, 0.0], 3),
        ([-0.02, -0.02, -0.02, -0.01, 0.0], 3),
        ([0.1, 0.1, 0.1, 0.05, 0.0, 0.0], 5),  # too hard until it stands
        ([0.01, 0.01, 0.01, -0.005, 0.0], 4),  # through zero
        ([0.02, 0.02, 0.02, 0.01, 0.0, 0.005, 0.0], 6),  # it moved again
        ([0.02, 0.02, 0.02, 0.015, 0.01], None),  # never at rest
        ([0.02, 0.02, 0.02], None),  # silence is not rest,
        ([0.02, 0.01, 0.0], 2),  # but after rest it is
        ([0.0, 0.01, 0.005], None),
    ],
)
def test_velocities(speeds, expected):
    assert judged(speeds) == expected


@pytest.mark.parametrize(
    ('places', 'expected'),
    [
        ([0.0, 0.01, 0.02, 0.02, 0.02], 3),
        ([0.0, 0.01, 0.02, 0.025, 0.027, 0.027], 3),
        ([0.0, 0.01, 0.02, 0.03, 0.03, 0.03], 4),
        ([0.0, 0.01, 0.02, 0.02, 0.015, 0.015], 5),  # back to an earlier place
        ([0.0, 0.01, 0.02, 0.02, 0.03], None),
        ([0.0, 0.02, 0.02], 2),  # held, and silent from then on
        ([0.0, 0.01, 0.02], None),
        ([0.02], None),
    ],
)
def test_positions(places, expected):
    assert judged(places, position=True, acceleration=40.0) == expected


def test_a_position_that_stops_harder_than_allowed_is_safe_only_afterwards():
    assert judged([0.0, 0.02, 0.04, 0.04, 0.04], position=True, acceleration=40.0) == 4


def test_a_clock_that_jumps_is_not_taken_for_the_time_between_commands():
    stamps = [100.0, 100.02, 100.04, 97.06, 97.08, 97.1]
    assert judged([0.02, 0.02, 0.02, 0.01, 0.0, 0.0], stamps=stamps) == 3
    stamps = [100.0, 100.02, 100.04, 105.06, 105.08, 105.1]
    assert judged([0.1, 0.1, 0.1, 0.0, 0.0, 0.0], stamps=stamps) == 4
