"""The judge of arms behind trajectory controllers: from when on they only brake."""

import numpy as np
import pytest

from scripts.reliability.observer import Limits
from scripts.reliability.trajectories import brakes_from, first_safe, Reference, Replacement

LIMITS = Limits(
    position=True,
    speed=np.ones(1),
    acceleration=np.full(1, 5.0),
    lower=np.full(1, -np.inf),
    upper=np.full(1, np.inf),
)
S = 10**9


def replacement(points, *, start=(0.0, 0.0), sent=0.0, late=0.001):
    """Return one of (time, position, velocity) of one joint."""
    times, positions, velocities = (np.array(column) for column in zip(*points, strict=True))
    return Replacement(
        sent_ns=round(sent * S),
        received_ns=round((sent + late) * S),
        points=(times, positions[:, None], velocities[:, None]),
        start=(np.array([start[0]]), np.array([start[1]])),
    )


def braking(v=0.5, sent=0.0, hardness=5.0):
    t = v / hardness
    return replacement([(t, v * t / 2, 0.0)], start=(0.0, v), sent=sent)


CRUISE = [(0.1, 0.05, 0.5), (0.4, 0.2, 0.5), (0.5, 0.225, 0.0)]


@pytest.mark.parametrize(
    ('sent', 'expected'),
    [
        (braking(), 0.0),
        (braking(hardness=2.0), 0.0),
        (replacement([(0.02, 0.0, 0.0)]), 0.0),  # it stands
        (replacement(CRUISE, start=(0.0, 0.5)), 0.4),
        (replacement([(0.5, 0.25, 0.5)], start=(0.0, 0.5)), np.inf),  # it does not end
        (braking(hardness=20.0), 0.025),  # too hard until it stands
        (replacement([(0.1, 0.05, 0.0)], start=(0.0, 0.5)), 0.1),  # it keeps its speed, then dead
        (replacement([(0.1, -0.02, 0.0)], start=(0.0, 0.5)), 0.1),  # back
    ],
)
def test_a_trajectory_brakes_from_then_on(sent, expected):
    assert brakes_from(sent, LIMITS, 0.001) == pytest.approx(expected, abs=0.02)


def test_one_that_brakes_is_safe_when_it_comes():
    sent = [replacement(CRUISE, start=(0.0, 0.5)), braking(sent=0.2)]
    assert first_safe(sent, LIMITS, round(0.15 * S)).received_ns == round(0.201 * S)


def test_a_plan_is_safe_from_when_it_brakes_at_its_end():
    found = first_safe([replacement(CRUISE, start=(0.0, 0.5))], LIMITS, round(0.3 * S))
    assert found.received_ns / S == pytest.approx(0.401, abs=0.01)


def test_what_moves_again_was_not_safe():
    again = replacement(CRUISE, start=(0.05, 0.0), sent=0.6)
    found = first_safe([braking(sent=0.2), again], LIMITS, round(0.1 * S))
    assert found.received_ns / S > 1.0
    assert first_safe([braking(), replacement([(0.5, 0.25, 0.5)])], LIMITS, 0) is None
    assert first_safe([], LIMITS, 0) is None


def test_a_reference_follows_from_where_it_is_and_holds_the_end():
    reference = Reference(np.zeros(1))
    reference.follow(0, (np.array([0.2]), np.array([[0.1]]), np.array([[0.5]])))
    place, speed = reference.at(round(0.2 * S) - 1)
    assert (place[0], speed[0]) == pytest.approx((0.1, 0.5), abs=1e-6)
    reference.follow(round(0.2 * S) - 1, (np.array([0.1]), np.array([[0.125]]), np.zeros((1, 1))))
    assert reference.at(round(0.25 * S))[1][0] == pytest.approx(0.25, abs=1e-3)
    assert reference.at(9 * S) == (pytest.approx([0.125]), pytest.approx([0.0]))
