"""The dispatcher and its guard: nothing moves that the guard would not stop."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import COMMANDS, DOMAIN, parameters
from project_files import ROOT

from faster_vla_msgs.msg import GuardState

pytestmark = pytest.mark.ros

TOPICS = [COMMANDS['base'][1], COMMANDS['torso'][1]]
GUARDED = {'guard__topic': 'guard/state', 'guard__timeout': 1.0}


class Said:
    """A guard that says what a test wants it to say."""

    def __init__(self, rig, **state):
        self._state, self._rig = state, rig
        self._publisher = rig.node.create_publisher(GuardState, 'guard/state', 1)
        self._timer = rig.node.create_timer(0.1, self._say)

    def _say(self):
        self._publisher.publish(GuardState(**self._state))

    def say(self, **state):
        self._state |= state

    def fall_silent(self):
        self._rig.node.destroy_timer(self._timer)


def ids(infos, name):
    return [bytes(i.endpoint_gid).hex() for i in infos if i.node_name == name]


def publishers(rig):
    found = (rig.node.get_publishers_info_by_topic(t) for t in TOPICS)
    return [i for infos in found for i in ids(infos, 'action_dispatcher')]


def subscriptions(rig):
    found = (rig.node.get_subscriptions_info_by_topic(t) for t in TOPICS)
    return [i for infos in found for i in ids(infos, 'robot')]


def refused(rig, words):
    rig.until(lambda: words in rig.enable().message, words)
    assert not rig.enable().success
    assert words in rig.state.message  # told before anybody asks, too


def test_without_a_word_of_the_guard_motion_stays_disabled(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    refused(rig, 'no guard was heard on /guard/state (guard.topic)')


def test_the_guard_must_watch_hear_and_be_reached(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(publishers(rig)) == len(subscriptions(rig)) == 2)
    guard = Said(rig, topics=TOPICS[:1])
    refused(rig, f'the guard does not hear us on {TOPICS[0]} yet')
    # Of a predecessor, say, that was killed.
    guard.say(publishers=['00' * 16])
    refused(rig, f'the guard does not hear us on {TOPICS[0]} yet')
    guard.say(publishers=publishers(rig))
    refused(rig, f'{TOPICS[0]} does not reach the guard yet')
    guard.say(subscriptions=subscriptions(rig))
    refused(rig, f'the guard does not watch {TOPICS[1]}')
    guard.say(topics=TOPICS)
    rig.drive()


def test_what_is_watched_beside_the_base_must_be_heard_too(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(publishers(rig)) == len(subscriptions(rig)) == 2)
    arm = COMMANDS['left_arm'][1]
    Said(
        rig,
        topics=[*TOPICS, arm, '/of_somebody_else'],
        publishers=publishers(rig),
        subscriptions=subscriptions(rig),
    )
    refused(rig, f'the guard does not hear us on {arm} yet')


def test_a_guard_that_falls_silent_ends_the_motion_by_braking(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(publishers(rig)) == len(subscriptions(rig)) == 2)
    guard = Said(rig, topics=TOPICS, publishers=publishers(rig), subscriptions=subscriptions(rig))
    rig.drive(0.15)
    guard.fall_silent()
    rig.move_until(lambda: not rig.state.enabled)
    assert 'the guard was not heard for 1.0 s on /guard/state' in rig.state.message
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    # By the limit of the robot file (m/s²), not at once.
    limit = parameters()['base.max_acceleration'][0] / parameters()['dispatch_rate']
    steps = [a - b for a, b in itertools.pairwise(rig.base_speeds)]
    assert 0 < max(steps) <= limit * 1.5
    assert not rig.enable().success


def test_a_dry_run_moves_nothing_and_asks_no_guard(make_rig):
    rig = make_rig(**GUARDED, dry_run=True)
    rig.until(lambda: rig.states)
    rig.until(lambda: rig.enable().success)


def test_a_guard_that_is_killed_is_missed_and_its_successor_believed(make_rig):
    """A real guard: whom it hears it says by the ids that we know ourselves by."""
    rig = make_rig(guard__topic='guard/state')
    command = [sys.executable, '-m', 'faster_vla_ros.guard', '--ros-args']
    command += ['-p', f'topics:=[{", ".join(TOPICS)}]']
    environment = dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN))
    for kill in (True, False):
        guard = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            rig.drive(0.15)
            if not kill:
                continue
            guard.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            rig.move_until(lambda: not rig.state.enabled)
            assert time.monotonic() - killed < 2.5 + 1.0
            assert 'the guard was not heard' in rig.state.message
            rig.until(lambda: rig.base_speeds[-1] == 0.0)
        finally:
            guard.kill()
            guard.wait(timeout=20)
