"""How fast the robot's clock goes beside ours."""

import pytest

from faster_vla_ros.pace import FASTEST, Pace


def _after(seconds, clock, tick=0.01, pace=None, start=0.0):
    pace = pace or Pace()
    for i in range(round(seconds / tick)):
        pace.read(start + i * tick, clock(i * tick))
    return pace


def test_until_it_is_known_both_clocks_go_alike():
    assert Pace().rate == 1.0
    assert _after(0.3, lambda t: 100.0).rate == 1.0


@pytest.mark.parametrize('rate', [0.0, 0.2, 1.0, 1.5])
def test_a_simulation_may_be_slower_or_stand_still(rate):
    # In steps of 10 ms, as simulated time comes.
    pace = _after(3.0, lambda t: 100.0 + round(rate * t / 0.01) * 0.01)
    assert pace.rate == pytest.approx(rate, abs=0.03)


def test_it_follows_a_simulation_that_becomes_slower_within_its_window():
    pace = _after(3.0, lambda t: 100.0 + min(t, 1.5) + 0.5 * max(t - 1.5, 0.0))
    assert pace.rate == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize('jump', [-3.0, 5.0])
def test_a_clock_that_jumps_has_no_other_pace(jump):
    pace = _after(2.0, lambda t: 100.0 + 0.5 * t)
    _after(2.0, lambda t: 101.0 + jump + 0.5 * t, pace=pace, start=2.0)
    assert pace.rate == pytest.approx(0.5, abs=0.02)


def test_simulated_time_that_begins_goes_like_ours_until_it_is_known():
    pace = _after(2.0, lambda t: 0.0)
    assert pace.rate == 0.0
    pace.read(2.0, 100.0)
    pace.read(2.01, 100.005)
    assert pace.rate == 1.0


def test_a_simulation_that_catches_up_is_not_taken_for_faster_than_any():
    assert _after(2.0, lambda t: 100.0 + 9.0 * t, tick=0.02).rate == FASTEST
