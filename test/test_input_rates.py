"""Ages and rates of inputs by wall time and by that of a simulation, without nodes."""

import types

import pytest

pytest.importorskip('rclpy')

from faster_vla_ros.ages import Ages, LAG
from faster_vla_ros.input_rates import InputRates

pytestmark = pytest.mark.ros


class Clocks:
    """Both clocks of a node, moved by hand."""

    def __init__(self, monkeypatch, simulated=True):
        self.wall, self.own, self.ros_time_is_active = 1000.0, 50.0, simulated
        time = types.SimpleNamespace(monotonic=lambda: self.wall)
        monkeypatch.setattr('faster_vla_ros.ages.time', time)

    def now(self):
        return types.SimpleNamespace(nanoseconds=round(self.own * 1e9))

    def go(self, wall, own):
        self.wall, self.own = self.wall + wall, self.own + own


@pytest.mark.parametrize(
    ('simulated', 'wall', 'own', 'expected'),
    [
        (True, 1.0, 0.25, 0.25),  # slower than real time
        (True, 0.25, 1.0, 1.0),  # faster
        (True, LAG, 0.0, 0.0),  # paused for a moment
        (True, LAG + 2.0, 0.0, 2.0),  # or for good
        (True, 1.0, -40.0, 1.0 - LAG),  # started anew
        (False, 1.0, 5.0, 1.0),  # the system's clock was set
        (False, 1.0, -5.0, 1.0),
    ],
)
def test_age_is_simulated_time_while_that_goes_on(monkeypatch, simulated, wall, own, expected):
    clocks = Clocks(monkeypatch, simulated)
    ages = Ages(clocks)
    moment = ages.now()
    clocks.go(wall, own)
    assert ages.since(moment) == pytest.approx(expected)


def test_age_of_an_input_counts_from_its_newest_message_or_from_a_later_moment(monkeypatch):
    clocks = Clocks(monkeypatch)
    rates = InputRates(clocks)
    assert rates.age('arm') is None
    start = rates.now()
    clocks.go(1.0, 1.0)
    assert rates.age('arm', not_before=start) == pytest.approx(1.0)
    rates.took('arm')
    clocks.go(0.5, 0.5)
    assert rates.age('arm') == rates.age('arm', not_before=start) == pytest.approx(0.5)
    clocks.go(1.0, -40.0)
    later = rates.now()
    clocks.go(0.2, 0.2)
    assert rates.age('arm', not_before=later) == pytest.approx(0.2)


def test_rate_is_that_of_one_input_since_it_was_looked_at_in_the_time_of_the_node(monkeypatch):
    clocks = Clocks(monkeypatch)
    rates = InputRates(clocks)
    assert rates.rate('arm') is None
    for _ in range(10):
        rates.took('arm')
        clocks.go(1.0, 0.1)
    assert rates.rate('arm') == pytest.approx(10.0)
    assert rates.rate('arm') is None  # the clock stands
    clocks.go(1.0, 1.0)
    assert (rates.rate('arm'), rates.rate('hand')) == (0.0, None)
