"""Stamps of feedback: what repeats or runs back is no news, and clocks set back are followed."""

import pytest

pytest.importorskip('builtin_interfaces')

from faster_vla_ros.conversions import stamp_from_seconds
from faster_vla_ros.sensors.stamp_order import StampOrder

REPEATS, BACK = 'its stamp does not change', 'its stamp runs back'


@pytest.fixture
def refuse():
    order = StampOrder(0.5)
    return lambda stamp, now: order.refuse(stamp_from_seconds(stamp), now)


def test_stamps_that_grow_are_news_and_one_that_was_never_set_passes(refuse):
    assert [refuse(s, 100 + s) for s in (1.0, 1.01, 0.0, 0.0, 1.02)] == [''] * 5


def test_a_stamp_that_repeats_is_no_news_however_long(refuse):
    refuse(1.0, 100.0)
    assert {refuse(1.0, 100 + 0.1 * i) for i in range(50)} == {REPEATS}


def test_a_stamp_that_runs_back_is_no_news_and_the_next_newer_one_is(refuse):
    refuse(1.0, 100.0)
    assert refuse(0.9, 100.01) == BACK
    assert refuse(0.95, 100.02) == BACK
    assert refuse(1.01, 100.03) == ''


def test_two_drivers_of_which_one_lags_count_by_the_newer_one(refuse):
    found = [refuse(s, 100 + 0.01 * i) for i, s in enumerate([9.0, 1.0] * 3)]
    assert found == ['', BACK, REPEATS, BACK, REPEATS, BACK]
    found = [(refuse(9.1 + t, 101 + t), refuse(1.1 + t, 101 + t)) for t in (0.0, 0.4, 0.8, 1.2)]
    assert found == [('', BACK)] * 4


def test_two_stamps_that_take_turns_are_no_news_for_ever(refuse):
    refuse(1.0, 100.0)
    refuse(2.0, 100.1)
    found = {refuse(1.0 + i % 2, 101 + 0.1 * i) for i in range(50)}
    assert found == {BACK, REPEATS}


def test_a_driver_whose_clock_was_set_back_is_heard_when_what_it_said_before_is_stale(refuse):
    refuse(5000.0, 100.0)
    found = [refuse(10.0 + 0.1 * i, 100.1 + 0.1 * i) for i in range(8)]
    assert found == [BACK] * 5 + [''] * 3


def test_when_our_clock_was_set_back_too_it_is_heard_at_once(refuse):
    refuse(5000.0, 5000.1)
    assert refuse(10.0, 10.1) == ''
    assert refuse(9.9, 10.2) == BACK


def test_a_message_from_before_our_clock_was_set_back_keeps_out_none_of_those_after_it(refuse):
    assert [refuse(100 + s, 100.1 + s) for s in (0.0, 0.01)] == ['', '']
    assert refuse(100.02, 97.1) == ''  # it was on its way
    assert [refuse(s, s + 0.1) for s in (97.03, 97.04)] == ['', '']
    assert refuse(97.02, 97.15) == BACK


def test_only_one_message_may_run_back_and_only_soon_after_our_clock_was_set_back(refuse):
    refuse(100.0, 100.1)
    assert [refuse(100.0 + s, 97.1 + s) for s in (0.1, 0.4, 0.6)] == [''] * 3
    assert refuse(97.8, 97.8) == BACK


def test_a_small_correction_of_our_clock_is_no_jump(refuse):
    refuse(100.0, 100.1)
    assert refuse(99.97, 100.07) == BACK
