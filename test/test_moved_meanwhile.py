"""Controllers that gave a trajectory up, or stand at its end and were moved since."""

from execution_helpers import config, PERIOD, Rail, rows, TICK
import numpy as np
import pytest

from faster_core.execution.state import Action


class Moved(Rail):
    """Knows where the controller is by what it was sent."""

    def place(self):
        return self.dispatcher._motion.place('arm')


def to(target, speed=0.3):
    """Return rows on which j1 goes to a place [rad] at a speed."""
    way = np.minimum(speed * PERIOD * np.arange(1, 9), target)
    return rows(arm=np.stack([way, np.zeros(8)], axis=1))


TURNS = {
    'stop': lambda d, now: d.stop(now),
    'disable': lambda d, now: d.enable(False, now),
    'disarm': lambda d, now: d.disarm('why', now),
    'yield': lambda d, now: d.yield_to('who', now),
    'limits': lambda d, now: d.set_config(config(max_chunk_age=0.5)),
    'clock': lambda d, now: d.tick(now - 50.0),
}


@pytest.mark.parametrize('turn', [*TURNS, 'no rows'])
def test_what_was_moved_after_its_trajectory_has_ended_is_not_sent_back(turn):
    rig = Moved()
    assert rig.send(to(0.2)).accepted
    assert rig.run(1.6)[0].trajectories
    assert rig.place() == pytest.approx([0.2, 0.0])
    rig.measured['arm'] = np.array([-0.5, 0.3])  # another controller, or a hand
    rig.tick()
    if turn == 'no rows':
        assert rig.send(np.zeros((0, 5))).accepted
    else:
        TURNS[turn](rig.dispatcher, rig.now)
    if turn == 'clock':
        rig.now -= 50.0
    assert not any(t.trajectories for t in rig.run(0.3))


def test_a_stop_while_its_trajectory_is_followed_brakes():
    rig = Moved()
    rig.send(to(0.2))
    rig.run(0.3)
    rig.dispatcher.stop(rig.now)
    assert 'arm' in rig.tick().trajectories


@pytest.mark.parametrize(('found', 'begins'), [([-0.2, 0.0], -0.2), ([0.1, 0.0], 0.2)])
def test_the_next_chunk_begins_where_it_was_moved_to_or_at_the_end_if_it_is_found_near(
    found, begins
):
    rig = Moved()
    rig.send(to(0.2))
    rig.run(1.2)
    rig.measured['arm'] = np.array(found)
    rig.tick()
    assert rig.send(rows(arm=np.tile(found, (8, 1)))).accepted
    assert rig.place()[0] == pytest.approx(begins, abs=1e-6)


@pytest.mark.parametrize('pause', [0.1, 1.2])
def test_after_an_enable_it_goes_on_from_the_end_only_while_feedback_may_lag(pause):
    rig = Moved(stop_pub_timeout=5.0)
    rig.send(to(0.2))
    rig.run(1.0 + pause)
    lag = np.array([0.15, 0.0])
    rig.measured['arm'] = lag
    rig.dispatcher.enable(False, rig.now)
    rig.tick()
    rig.dispatcher.enable(True, rig.now)
    rig.measured['arm'] = lag
    rig.feed()
    stood = rig.dispatcher._motion.stood_for('arm')
    assert 0.0 < stood < 0.5 if pause < 0.5 else stood > 0.5
    assert rig.send(rows(arm=np.tile([0.2, 0.0], (8, 1)))).accepted
    assert rig.place()[0] == pytest.approx(0.2 if pause < 0.5 else 0.15, abs=1e-6)


def test_a_controller_that_gave_up_gets_no_way_to_rest_and_the_next_begins_where_it_is_measured():
    rig = Moved()
    rig.send(to(0.4))
    rig.run(0.5)
    blocked = np.array([0.02, 0.0])
    rig.measured['arm'] = blocked
    rig.dispatcher.stop(rig.now, 'arm: path tolerance violated', ['arm'])
    for tick in rig.run(0.2):
        assert tick.state.action is Action.STOP
        assert not tick.trajectories
    rig.measured['arm'] = blocked
    rig.tick()
    assert rig.dispatcher.reset(rig.now).success
    assert rig.dispatcher.enable(True, rig.now).success
    rig.measured['arm'] = blocked
    rig.feed()
    assert rig.send(rows(arm=np.tile(blocked, (8, 1)))).accepted
    assert rig.place() == pytest.approx(blocked)


def test_a_controller_that_gives_up_once_more_after_a_stop_gets_no_way_either():
    rig = Moved()
    rig.send(to(0.4))
    rig.run(0.5)
    rig.dispatcher.stop(rig.now)
    rig.dispatcher.stop(rig.now, 'arm: no answer', ['arm'])
    assert not rig.tick().trajectories


def test_what_was_not_sent_is_made_anew_by_the_next_tick_from_where_the_controller_is():
    rig = Moved()
    rig.send(to(0.4))
    rig.run(0.3)
    place = rig.place()
    rig.send(to(0.0), stamp=rig.now)
    first = rig.tick().trajectories['arm']
    rig.dispatcher.not_sent(['arm'])
    assert rig.place() == pytest.approx([place[0] + 0.3 * TICK, place[1]], abs=1e-3)
    second = rig.tick().trajectories['arm']
    assert second.positions[0] != pytest.approx(first.positions[0], abs=1e-4)
    assert not rig.tick().trajectories


def test_what_is_put_off_is_dropped_if_somebody_took_the_controller_meanwhile():
    rig = Moved()
    rig.send(to(0.4))
    rig.run(0.3)
    rig.send(to(0.4), stamp=rig.now)
    tick = rig.tick()
    rig.dispatcher.yield_to('MoveIt', rig.now, taken=['arm'])
    assert 'arm' in tick.trajectories
    assert not rig.dispatcher.put_off(tick, ['arm'], 0.05).trajectories


def test_what_is_put_off_is_dropped_if_the_controller_gave_up_meanwhile():
    rig = Moved()
    rig.send(to(0.4))
    tick = rig.tick()
    rig.dispatcher.stop(rig.now, 'arm: there is no server', ['arm'])
    assert not rig.dispatcher.put_off(tick, ['arm'], 0.05).trajectories
