"""After its last chunk a base is at rest within a time and a way that follow from that chunk.

As with nav2's collision monitor the figure is taken from a recorded bag, outside of the node:
what goes into a dispatcher is recorded live and replayed into a new one by the clock of the bag.
"""

import contextlib
import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('rosbags', reason='writes and reads bags: pip install .[data]')

from bags import bag, messages, nanoseconds, rewrite
import dispatcher_rig
from dispatcher_rig import BASE_SPEED, FEEDBACK, make_values, parameters, Rig
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from faster_core.execution.motion import Motion
from faster_vla_msgs.msg import ActionChunk
from faster_vla_ros.action_dispatcher import ActionDispatcher

pytestmark = pytest.mark.ros

DOMAIN = 48
CHUNKS = 'action_chunk'
TOPICS = {CHUNKS: ActionChunk} | {topic.lstrip('/'): JointState for topic in FEEDBACK.values()}
NUM_CHUNKS, CHUNK_PERIOD = 9, 0.1  # s; two thirds of them bring the base to its full speed
NUM_ROWS = 8  # of a chunk: short, for a short test
PERIOD = 1.0 / parameters()['dispatch_rate']  # s
BRAKING = parameters()['base.max_acceleration'][0]  # m/s²
# What docs/reliability.md allows from the moment at which there is a reason to stop (s).
ALLOWANCE = 2 * PERIOD + 0.02
CLOCK_STEP = 10_000_000  # ns: `ros2 bag play --clock 100`
AFTER = 0.1  # s for which zeros are looked at


@pytest.fixture(scope='module', autouse=True)
def own_domain():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher_rig, 'DOMAIN', DOMAIN)
        yield


# --- what is measured, and what it may be -----------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """Commands that a subscriber had.

    Attributes:
        stamps: [N] of the velocity commands (s of the robot's clock).
        twists: [N, 3] vx, vy, wz.
        arm: what was commanded of the arm's first joint last (rad).
    """

    stamps: np.ndarray
    twists: np.ndarray
    arm: float = 0.0

    @classmethod
    def heard_by(cls, rig):
        twists = [m.twist for m, _ in rig.sent['base']]
        return cls(
            stamps=np.array([nanoseconds(m) for m, _ in rig.sent['base']]) * 1e-9,
            twists=np.array([(t.linear.x, t.linear.y, t.angular.z) for t in twists]),
            arm=rig.sent['left_arm'][-1][0].position[0],
        )

    def late(self, since):
        """Return by how much ticks came late from `since` (s) on until rest, in all (s).

        Under load every tick after the last row may delay the rest by as much, and what it
        commands lasts as much longer.
        """
        ends, gaps = self.stamps[1:], np.diff(self.stamps)
        gaps = gaps[(ends >= since) & (ends <= since + stop(self, since).seconds)]
        return float(np.maximum(gaps - PERIOD, 0.0).sum())


@dataclasses.dataclass(frozen=True)
class Stop:
    """How long a base drove on, and how far."""

    seconds: float
    metres: float


def stop(run, since):
    """Return time and way from `since` (s) to the first zero twist after which all are zero."""
    moving = np.flatnonzero(run.twists.any(axis=1))
    assert moving.size, 'it never moved'
    assert moving[-1] + 1 < len(run.stamps), 'it never came to rest'
    end = run.stamps[moving[-1] + 1]
    lasting = np.diff(np.clip(run.stamps, since, end))
    speeds = np.hypot(run.twists[:-1, 0], run.twists[:-1, 1])
    return Stop(seconds=end - since, metres=float(speeds @ lasting))


def due(chunk):
    """Return when the last row of a chunk falls due (s)."""
    first = nanoseconds(chunk) + Duration.from_msg(chunk.first_step_offset).nanoseconds
    step = Duration.from_msg(chunk.step_period).nanoseconds
    return (first + (chunk.num_steps - 1) * step) * 1e-9


def bound(chunk, arrival):
    """Return time and way that are enough to execute a chunk from its arrival (s) on and brake."""
    base = next(c for c in chunk.components if c.name == 'base')
    rows = np.reshape(base.data, (chunk.num_steps, -1))
    assert not rows[:, 1:].any()  # straight ahead: one limit counts
    speed, remaining = float(np.abs(rows).max()), due(chunk) - arrival
    return Stop(
        seconds=remaining + speed / BRAKING + ALLOWANCE,
        metres=speed * remaining + speed**2 / (2 * BRAKING) + speed * ALLOWANCE,
    )


def assert_stops(run, chunk, arrival, late=0.0):
    """Return time and way to rest from the arrival (s) of the last chunk on, within the bound."""
    found, allowed = stop(run, arrival), bound(chunk, arrival)
    assert found.seconds <= allowed.seconds + late, 'too many seconds'
    assert found.metres <= allowed.metres + BASE_SPEED * late, 'too many metres'
    return found


def chunks_of(path):
    """Return (chunk, when it arrived in s) of all chunks in a bag."""
    return [
        (deserialize_message(data, ActionChunk), at * 1e-9)
        for topic, at, data in messages(path)
        if topic == CHUNKS
    ]


# --- the live run -----------------------------------------------------------------------------


@contextlib.contextmanager
def recording(rig, path):
    """Record what goes into the dispatcher, with the time at which a recorder has it."""
    node = Node('recorder', context=rig.context, use_global_arguments=False)
    newest = 0

    def keep(topic, write):
        def take(data):
            nonlocal newest
            # Bags are read by time: no two messages may have the same.
            newest = max(node.get_clock().now().nanoseconds, newest + 1)
            write(topic, newest, data)

        return take

    try:
        with bag(path, TOPICS) as write:
            ears = [
                node.create_subscription(kind, topic, keep(topic, write), 50, raw=True)
                for topic, kind in TOPICS.items()
            ]
            rig.executor.add_node(node)
            rig.until(lambda: all(node.count_publishers(e.topic_name) for e in ears))
            rig.until(lambda: rig.chunks.get_subscription_count() == 2, 'a recorder')
            yield
    finally:
        rig.executor.remove_node(node)
        node.destroy_node()


@pytest.fixture(scope='module')
def live(own_domain, tmp_path_factory):
    """Path of a bag, and the run that was recorded into it."""
    path = tmp_path_factory.mktemp('bags') / 'live'
    with contextlib.closing(Rig()) as rig, recording(rig, path):
        rig.enable_when_ready()
        accepted, at_speed = 0, False
        # Late on a busy machine, a chunk may be refused or the plan run dry: not at the end.
        while accepted < NUM_CHUNKS or not at_speed:
            report = rig.send(rig.message(values=make_values()[:NUM_ROWS]))
            accepted += report.accepted
            rig.spin(CHUNK_PERIOD)
            at_speed = report.accepted and rig.base_speeds[-1] > 0.99 * BASE_SPEED
        rig.until(lambda: rig.base_speeds[-1] == 0.0, 'rest')
        rig.spin(AFTER)
        run = Run.heard_by(rig)
    return path, run


# --- replay -----------------------------------------------------------------------------------


def create_timer(node, period, callback, *, clock):
    """Create a timer that goes by the clock of the bag instead of a steady one.

    Where the player has to wait for the processor, a steady one makes the dispatcher tick while
    the clock of the bag stands still, and for that it brakes: the load of the machine would be
    in the figures.
    """
    del clock
    return Node.create_timer(node, period, callback)


class Player:
    """What `ros2 bag play --clock` is to a dispatcher, as fast as both can."""

    def __init__(self, rig, start):
        self._rig, self._now = rig, start
        self._publishers = {t: rig.node.create_publisher(k, t, 10) for t, k in TOPICS.items()}
        self._clock = rig.node.create_publisher(Clock, '/clock', 10)
        everybody = (self._clock, *self._publishers.values())
        rig.until(lambda: all(p.get_subscription_count() for p in everybody), 'a listener')
        rig.until(self._there, 'the clock')

    def _there(self):
        self._clock.publish(Clock(clock=Time(nanoseconds=self._now).to_msg()))
        return self._rig.dispatcher.get_clock().now().nanoseconds == self._now

    def _due(self):
        """Return when the next command falls due (ns); never before the first one."""
        heard = self._rig.sent['base']
        return nanoseconds(heard[-1][0]) + round(PERIOD * 1e9) if heard else math.inf

    def advance(self, to):
        """Let the clock go on to a time (ns), but not past a command that was not heard."""
        while self._now < to:
            self._now = min(to, self._now + CLOCK_STEP, self._due())
            self._rig.until(self._there, 'the clock')
            self._rig.until(lambda: self._due() > self._now, 'a command')

    def play(self, topic, data):
        """Publish a serialised message; a chunk is reported on before anything else happens."""
        before = len(self._rig.reports)
        if topic == CHUNKS and not before:
            self._rig.until(lambda: self._rig.enable().success, 'enabled')
        self._publishers[topic].publish(data)
        if topic == CHUNKS:
            self._rig.until(lambda: len(self._rig.reports) > before, 'a report')


def replay(path):
    """Play a bag through DDS into a new dispatcher, and let the clock go on until it must rest."""
    recorded = messages(path)
    chunk, arrival = chunks_of(path)[-1]
    end = arrival + bound(chunk, arrival).seconds + AFTER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActionDispatcher, 'create_timer', create_timer)
        rig = Rig(use_sim_time=True)
    with contextlib.closing(rig):
        rig.measured = dict.fromkeys(rig.measured)  # feedback comes from the bag alone
        rig.until(rig.connected, 'discovery')
        player = Player(rig, recorded[0][1] - 1)
        for topic, at, data in recorded:
            player.advance(at)
            player.play(topic, data)
        player.advance(max(int(end * 1e9), recorded[-1][1] + CLOCK_STEP))
        return Run.heard_by(rig)


@pytest.fixture
def cut(live, tmp_path):
    """Path of the bag without the last third of its chunks: cut off in the middle of a motion."""
    path, _ = live
    numbers = [i for i, (topic, _, _) in enumerate(messages(path)) if topic == CHUNKS]
    lost = set(numbers[-(len(numbers) // 3) :])
    return rewrite(path, tmp_path / 'cut', TOPICS, lambda i, m: None if i in lost else m)


def test_a_live_base_stops_within_the_bound(live):
    path, run = live
    chunk, arrival = chunks_of(path)[-1]
    assert_stops(run, chunk, arrival, run.late(arrival))
    # From full speed, which it had to the last row on; after a late tick it gains speed again.
    lost = 2 * BRAKING * run.late(arrival)
    before = run.twists[run.stamps < due(chunk)][-1, 0]
    assert before == pytest.approx(BASE_SPEED, abs=1e-6 + lost)
    assert {topic for topic, _, _ in messages(path)} == set(TOPICS)


def test_stopping_distance_of_a_recorded_bag_is_within_the_bound_and_like_live(live):
    path, run = live
    replayed = replay(path)
    chunks = chunks_of(path)
    assert_stops(replayed, *chunks[-1])
    for _, arrival in (chunks[0], chunks[-1]):  # the whole motion, and its end
        # How the ticks fall moves the first that brakes and the first at rest by one each.
        apart = 2 * PERIOD + run.late(arrival)
        was, now = stop(run, arrival), stop(replayed, arrival)
        assert now.seconds == pytest.approx(was.seconds, abs=apart)
        assert now.metres == pytest.approx(was.metres, abs=BASE_SPEED * apart)
    turning = 0.01 / (chunks[-1][0].step_period.nanosec * 1e-9)  # rad/s of `make_values`
    assert replayed.arm == pytest.approx(run.arm, abs=turning * apart)


def test_a_bag_cut_off_in_the_middle_of_a_motion_stops_earlier_by_what_was_cut(live, cut):
    path, run = live
    whole, (chunk, arrival) = chunks_of(path), chunks_of(cut)[-1]
    assert len(chunks_of(cut)) == len(whole) - len(whole) // 3
    replayed = replay(cut)
    assert_stops(replayed, chunk, arrival)
    earlier = due(whole[-1][0]) - due(chunk)
    assert earlier > ALLOWANCE
    last = whole[-1][1]
    found = last + stop(run, last).seconds - (arrival + stop(replayed, arrival).seconds)
    assert found == pytest.approx(earlier, abs=2 * PERIOD + run.late(last))


# --- what must be noticed ---------------------------------------------------------------------


def test_a_dispatcher_that_does_not_brake_is_noticed(cut, monkeypatch):
    monkeypatch.setattr(Motion, 'settle', lambda motion, *_, **__: None)
    with pytest.raises(AssertionError, match='never came to rest'):
        assert_stops(replay(cut), *chunks_of(cut)[-1])


def braking(after):
    """Return the speed so long (s) after the last row as the limits allow it at best."""
    return np.clip(BASE_SPEED - BRAKING * after, 0.0, BASE_SPEED)


EXECUTORS = {
    'never came to rest': lambda after: np.full_like(after, BASE_SPEED),  # the naive one
    'too many seconds': lambda after: braking(after - 0.1),
    'too many metres': lambda after: BASE_SPEED * (after < BASE_SPEED / BRAKING),
}


def executed(live, executor):
    """Return what `assert_stops` takes of another executor of the last chunk."""
    chunk, arrival = chunks_of(live[0])[-1]
    stamps = arrival + np.arange(0.0, 2.0, PERIOD)
    speeds = executor(stamps - due(chunk))
    return Run(stamps, np.stack([speeds, 0.0 * speeds, 0.0 * speeds], axis=1)), chunk, arrival


def test_an_executor_that_brakes_as_it_may_is_within_the_bound(live):
    assert_stops(*executed(live, braking))


@pytest.mark.parametrize('what', EXECUTORS)
def test_an_executor_that_brakes_never_late_or_too_hard_is_noticed(live, what):
    with pytest.raises(AssertionError, match=what):
        assert_stops(*executed(live, EXECUTORS[what]))


def test_a_zero_before_it_drives_on_is_no_rest(live):
    def executor(after):
        return np.where((after > 0.45) & (after < 0.9), 0.1, braking(after))

    with pytest.raises(AssertionError, match='too many seconds'):
        assert_stops(*executed(live, executor))
