"""The dispatcher and its guard: nothing moves that the guard would not stop."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from dispatcher_rig import COMMANDS, DOMAIN
from geometry_msgs.msg import TwistStamped
from project_files import ROOT
from rclpy.node import Node

from faster_vla_msgs.msg import GuardState
from faster_vla_ros.endpoint_ids import endpoint_id

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


def publishers(rig, topics=TOPICS):
    """Return the ids of our dispatcher's: by name, those that were killed are among them."""
    return [i for topic in topics for i in rig.dispatcher._wire.publishers[topic]]


def subscriptions(rig):
    found = [rig.node.get_subscriptions_info_by_topic(t) for t in TOPICS]
    return [endpoint_id(i) for infos in found for i in infos if i.node_name == 'robot']


def hearing(rig):
    """Return what a guard says that hears our dispatcher and is reached, as its robot is."""
    heard = subscriptions(rig)
    return {'publishers': publishers(rig), 'subscriptions': heard, 'listeners': heard}


def refused(rig, words):
    rig.until(lambda: words in rig.enable().message, words)
    assert not rig.enable().success
    assert words in rig.state.message  # told before anybody asks, too


def test_without_a_word_of_the_guard_motion_stays_disabled(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    refused(rig, 'the guard says nothing on /guard/state (guard.topic)')


def test_the_guard_must_watch_hear_and_be_reached(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    guard = Said(rig, topics=TOPICS[:1])
    refused(rig, f'the guard does not hear us on {TOPICS[0]} yet')
    # Of a predecessor, say, that was killed.
    guard.say(publishers=['00' * 16])
    refused(rig, f'the guard does not hear us on {TOPICS[0]} yet')
    guard.say(publishers=publishers(rig))
    refused(rig, f'the guard is not reached on {TOPICS[0]} yet')
    guard.say(subscriptions=subscriptions(rig), listeners=subscriptions(rig))
    refused(rig, f'the guard does not watch {TOPICS[1]}')
    guard.say(topics=TOPICS)
    rig.drive()


def test_the_zeros_must_reach_whoever_hears_us_before_anything_moves(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    guard = Said(rig, topics=TOPICS, **hearing(rig))
    driver = rig.node.create_subscription(TwistStamped, TOPICS[1], lambda _: None, 1)
    words = f'the guard does not reach all who hear us on {TOPICS[1]} yet'
    rig.until(lambda: rig.enable().message == words, words)
    guard.say(listeners=subscriptions(rig))
    rig.drive()
    # Whoever comes later may only want to look on.
    late = rig.node.create_subscription(TwistStamped, TOPICS[0], lambda _: None, 1)
    _go_on(rig, 1.5)
    assert rig.state.enabled
    for each in (driver, late):
        rig.node.destroy_subscription(each)


def test_nothing_moves_whose_driver_is_not_there_yet(make_rig):
    rig = make_rig(**GUARDED, torso__topic='/nobody_hears')
    rig.until(lambda: rig.states)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    topics = [TOPICS[0], '/nobody_hears']
    heard = subscriptions(rig)
    said = {'publishers': publishers(rig, topics), 'listeners': heard}
    # A guard listens, which moves nothing.
    guard = Node('guard', context=rig.context, use_global_arguments=False)
    ear = guard.create_subscription(TwistStamped, topics[1], lambda _: None, 1)
    ears = guard.get_subscriptions_info_by_topic(topics[1])
    heard = [*heard, *(endpoint_id(i) for i in ears)]
    Said(rig, topics=topics, subscriptions=heard, **said)
    words = 'the guard reaches nobody on /nobody_hears yet, nor do we'
    rig.until(lambda: rig.enable().message == words, words)
    guard.destroy_subscription(ear)
    guard.destroy_node()


def test_motion_that_enables_itself_waits_for_the_guard_too(make_rig):
    rig = make_rig(**GUARDED, require_enable=False)
    rig.until(rig.connected)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    guard = Said(rig, topics=TOPICS)
    rig.until(lambda: 'the guard does not hear us' in rig.state.message)
    rig.spin(0.5)
    assert not any(state.enabled for state in rig.states)
    guard.say(**hearing(rig))
    rig.until(lambda: rig.state.enabled)


def test_what_is_watched_beside_the_base_must_be_heard_too(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    arm = COMMANDS['left_arm'][1]
    Said(
        rig,
        topics=[*TOPICS, arm, '/of_somebody_else'],
        **hearing(rig),
    )
    refused(rig, f'the guard does not hear us on {arm} yet')


def test_a_guard_that_falls_silent_ends_the_motion_by_braking(make_rig):
    rig = make_rig(**GUARDED)
    rig.until(rig.connected)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    guard = Said(rig, topics=TOPICS, **hearing(rig))
    rig.drive(0.15)
    guard.fall_silent()
    rig.move_until(lambda: not rig.state.enabled)
    assert 'the guard was not heard for 1 s on /guard/state' in rig.state.message
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    # By the limit of the robot file, not at once.
    assert 0.9 < rig.hardest_braking() <= 1.01
    assert not rig.enable().success


def test_a_guard_that_hears_us_no_longer_ends_the_motion_if_it_stays_so(make_rig):
    rig = make_rig(**GUARDED | {'guard__timeout': 3.0})
    rig.until(rig.connected)
    rig.until(lambda: len(subscriptions(rig)) == 2)
    heard = publishers(rig)
    guard = Said(rig, topics=TOPICS, **hearing(rig))
    rig.drive(0.15)
    guard.say(publishers=[])
    _go_on(rig, 0.5)
    assert rig.state.enabled
    guard.say(publishers=heard)
    _go_on(rig, 1.0)
    assert rig.state.enabled
    guard.say(publishers=[])
    rig.move_until(lambda: not rig.state.enabled)
    assert f'the guard does not hear us on {TOPICS[0]} yet' in rig.state.message
    assert not rig.enable().success


def _go_on(rig, seconds):
    until = time.monotonic() + seconds
    rig.move_until(lambda: time.monotonic() > until)


@contextlib.contextmanager
def guard_process(*more):
    """A real guard: whom it hears it says by the ids that we know ourselves by."""
    command = [sys.executable, '-m', 'faster_vla_ros.guard', '--ros-args']
    command += ['-p', f'topics:=[{", ".join(TOPICS)}]']
    for each in more:
        command += ['-p', each]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN)))
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=20)


@pytest.mark.parametrize(
    ('parameter', 'heard'),
    [
        ('timeout:=0.1', True),
        ('types:=[twist, twist]', False),
        (f'qos_overrides.{TOPICS[0]}.subscription.durability:=transient_local', False),
    ],
    ids=['fits', 'type', 'qos'],
)
def test_only_a_guard_that_gets_the_commands_hears_them(make_rig, parameter, heard):
    rig = make_rig(guard__topic='guard/state')
    said = []
    rig.node.create_subscription(GuardState, 'guard/state', said.append, 1)
    with guard_process(parameter):
        rig.until(rig.connected)
        rig.until(lambda: said and len(said[-1].subscriptions) == 2)
        if heard:
            rig.drive()
            assert set(publishers(rig)) <= set(said[-1].publishers)
        else:
            rig.spin(1.0)  # time enough for what is never heard
            refused(rig, f'the guard does not hear us on {TOPICS[0]} yet')


def test_a_dry_run_moves_nothing_and_asks_no_guard(make_rig):
    rig = make_rig(**GUARDED, dry_run=True)
    rig.until(lambda: rig.states)
    rig.until(lambda: rig.enable().success)


def test_a_guard_that_is_killed_is_missed_and_its_successor_believed(make_rig):
    rig = make_rig(guard__topic='guard/state')
    with guard_process() as guard:
        rig.drive(0.15)
        guard.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        rig.move_until(lambda: not rig.state.enabled)
        assert time.monotonic() - killed < 2.5 + 1.0
        assert 'the guard was not heard for 2.5 s' in rig.state.message
        rig.until(lambda: rig.base_speeds[-1] == 0.0)
    with guard_process():
        rig.drive(0.15)
