"""How an episode through ROS is prepared: the robot is reset once nobody commands it."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from faster_vla_ros import episodes
from faster_vla_ros.episodes import EpisodeRunner, RosJob
from faster_vla_ros.session import SessionError

pytestmark = pytest.mark.ros


class Wire:
    """Session and observer of a graph whose dispatcher holds for a while after it was disabled."""

    def __init__(self, monkeypatch, hold):
        self.clock, self.events = 100.0, []
        self.num_frames, self.last_command_at = 0, 100.0
        self._holds_until = self.clock + hold
        monkeypatch.setattr(episodes.time, 'monotonic', lambda: self.clock)

    def enable(self, on):
        self.events.append(f'enable {on}')

    def say(self, text):
        self.events.append(f'say {text!r}')

    def trigger(self, service):
        self.events.append(service)

    def reset_episode(self, seed, task):
        self.events.append(f'reset {seed} {task}')
        self.reset_at = self.clock
        return 'pick up the red block'

    def clear(self):
        self.events.append('clear')

    def spin_until(self, condition, timeout, check):
        end = self.clock + timeout
        while not condition() and self.clock < end:
            self.clock += 0.02
            self.num_frames += 1
            if self.clock < self._holds_until:
                self.last_command_at = self.clock
        return condition()


@pytest.mark.parametrize('hold', [0.0, 1.0, 3.0])
def test_the_robot_is_reset_only_after_the_arms_are_no_longer_commanded(monkeypatch, hold):
    # Regression: the dispatcher held the last posture and pulled the robot out of its initial
    # one, so that only the first episode of a run could succeed.
    wire = Wire(monkeypatch, hold)
    EpisodeRunner(wire, wire).prepare(RosJob(seed=4, task='pick_red'))
    assert wire.reset_at >= 100.0 + hold + episodes.SILENCE - 0.05
    assert wire.events.index('enable False') < wire.events.index('reset 4 pick_red')
    assert wire.events[-1] == 'enable True'


def test_a_dispatcher_that_never_falls_silent_is_an_error_and_nothing_is_reset(monkeypatch):
    wire = Wire(monkeypatch, hold=1e6)
    with pytest.raises(SessionError, match='still commands the arms'):
        EpisodeRunner(wire, wire).prepare(RosJob(seed=4, task='pick_red'))
    assert not any(e.startswith('reset') for e in wire.events)
    assert 'enable True' not in wire.events
