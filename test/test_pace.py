"""How much simulated time has passed."""

import numpy as np
import pytest

from faster_vla_ros.pace import FASTEST, LATEST, Pace


def _after(seconds, clock, tick=0.01, pace=None, start=0.0):
    """Read both clocks from `start` on; return the pace and what it said has passed, in all."""
    pace = pace or Pace()
    passed = 0.0
    for i in range(round(seconds / tick)):
        passed += pace.read(start + i * tick, clock(start + i * tick))
    return pace, passed


def stepped(t):
    """As simulated time comes, every 10 ms."""
    return round(t / 0.01) * 0.01


def test_until_it_is_known_both_clocks_go_alike():
    assert Pace().rate == 1.0
    assert _after(0.3, lambda t: 100.0)[0].rate == 1.0


@pytest.mark.parametrize('rate', [0.0, 0.2, 1.0, 1.5])
def test_a_simulation_may_be_slower_or_stand_still(rate):
    pace, passed = _after(3.0, lambda t: 100.0 + stepped(rate * t))
    assert pace.rate == pytest.approx(rate, abs=0.03)
    assert passed == pytest.approx(rate * 3.0, abs=LATEST + 0.01)


@pytest.mark.parametrize('end', [1.75, 2.0, 3.0, 10.0])
def test_a_simulation_that_is_paused_does_not_go_on_for_long(end):
    _, passed = _after(end, lambda t: 100.0 + min(t, 1.5))
    assert 1.5 - 0.011 <= passed <= 1.5 + LATEST + 0.01


@pytest.mark.parametrize('end', [2.6, 2.75, 3.0, 4.0])
def test_a_simulation_that_goes_on_after_a_pause_is_followed_at_once(end):
    true = 1.5 + (end - 2.5)
    _, passed = _after(end, lambda t: 100.0 + min(t, 1.5) + max(t - 2.5, 0.0))
    assert true - 0.011 <= passed <= true + LATEST + 0.01


def test_a_simulation_that_becomes_slower_is_followed():
    slow = lambda t: 100.0 + min(t, 1.5) + 0.3 * max(t - 1.5, 0.0)  # noqa: E731
    for end in (1.6, 2.0, 4.0):
        assert _after(end, slow)[1] == pytest.approx(slow(end) - 100.0, abs=LATEST + 0.01)
    assert _after(4.0, slow)[0].rate == pytest.approx(0.3, abs=0.02)


def test_messages_that_come_late_leave_no_gap():
    """Now and then a tick finds the clock as it was, as it does after a long computation."""
    rng = np.random.default_rng(0)
    pace, steps, clock = Pace(), [], 0.0
    for i in range(300):
        clock = clock if rng.random() < 0.1 else 100.0 + 0.01 * i
        steps.append(pace.read(0.01 * i, clock))
    assert np.allclose(steps[60:], 0.01, atol=0.002)


@pytest.mark.parametrize('stall', [0.3, 0.6, 2.0])
def test_no_time_is_lost_when_we_stood_still(stall):
    pace, passed = _after(2.0, lambda t: 100.0 + t)
    now = 2.0 + stall
    passed += pace.read(now, 101.99)  # timers come before what was heard meanwhile
    passed += pace.read(now + 0.01, 100.0 + now + 0.01)
    assert passed == pytest.approx(now + 0.01, abs=0.03)


@pytest.mark.parametrize('jump', [-3.0, 5.0])
def test_controllers_do_not_jump_with_a_clock_that_does(jump):
    pace, first = _after(2.0, lambda t: 100.0 + 0.5 * t)
    _, second = _after(2.0, lambda t: 100.0 + jump + 0.5 * t, pace=pace, start=2.0)
    assert first + second == pytest.approx(2.0, abs=LATEST + 0.01)
    assert pace.rate == pytest.approx(0.5, abs=0.02)


def test_simulated_time_that_begins_goes_like_ours_until_it_is_known():
    pace, _ = _after(2.0, lambda t: 0.0)
    assert pace.rate == 0.0
    pace.read(2.0, 100.0)
    pace.read(2.01, 100.005)
    assert pace.rate == 1.0


def test_a_simulation_that_catches_up_is_not_taken_for_faster_than_any():
    assert _after(2.0, lambda t: 100.0 + 9.0 * t, tick=0.02)[0].rate == FASTEST
