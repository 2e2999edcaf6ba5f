"""What a bag replays into the policy node are the observations it had live, to the last pixel."""

from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import functools
import operator
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('cv2')
pytest.importorskip('rosbags', reason='writes and reads bags: pip install .[data]')

from bags import bag, messages, nanoseconds, rewrite, store, type_name
from fake_policy import FakePolicy
from geometry_msgs.msg import TwistStamped
from image_files import jpeg
import policy_node_helpers as h
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from ros_contexts import kept_context
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from faster_core.embodiment import Component, Embodiment, Kind
from faster_vla_ros.policy_node import PolicyNode

pytestmark = pytest.mark.ros

DOMAIN = 47
FRONT, WRIST = 'front/image_raw/compressed', 'wrist/image_raw'
JOINTS, TWIST, INSTRUCTION = 'joint_states', 'base/twist', 'instruction'
TOPICS = {
    FRONT: CompressedImage,
    WRIST: Image,
    JOINTS: JointState,
    TWIST: TwistStamped,
    INSTRUCTION: String,
}
DURATION = 2.0  # s
# topic -> period (s), and how long after its stamp a message is sent (s)
STREAMS = {FRONT: (0.05, 0.012), WRIST: (0.033, 0.006), JOINTS: (0.01, 0.001), TWIST: (0.025, 0.0)}
# number of the front image that is exposed, but not sent yet, when it is said -> text
SAID = {n: f'put the cup on shelf {n}' for n in (3, 10, 17, 24, 31)}
SLOP = 0.03
ROBOT = Embodiment(
    name='replayed',
    action_frequency=10.0,
    action_horizon=4,
    cameras=('front', 'wrist'),
    state=(
        Component(name='arm', kind=Kind.JOINT_POSITION, names=('a', 'b')),
        Component(name='hand', kind=Kind.GRIPPER_POSITION, names=('grip',)),
        Component(name='base', kind=Kind.TWIST, names=('vx', 'wz')),
    ),
    action=(Component(name='arm', kind=Kind.JOINT_POSITION, names=('a', 'b')),),
    tokenizer_groups=(('arm',),),
    source='',
)
PARAMETERS = {
    'checkpoint_path': 'fake',
    'warmup_iterations': 1,
    'cameras': ['front', 'wrist'],
    'reference_camera': 'front',
    'sync_slop': SLOP,
    'front.topic': FRONT,
    'front.transport': 'compressed',
    'wrist.topic': WRIST,
    'state_sources': ['arm', 'hand', 'base'],
    'arm.topic': JOINTS,
    'arm.joints': ['a', 'b'],
    'arm.interpolate': True,
    'hand.topic': JOINTS,
    'hand.joints': ['grip'],
    'hand.scale': 0.001,
    'base.topic': TWIST,
    'base.type': 'twist',
    'base.interpolate': True,
}
# A replay that loses a message on the wire would be another bag; live, what is lost is in neither.
LOSSLESS = {f'qos_overrides./{t}.subscription.reliability': 'reliable' for t in TOPICS}
# Below the second from which the node takes a step of its clock for a jump.
TICK = 500_000_000


def stamp_of(topic, data):
    """Return the stamp (ns) of a serialised message."""
    return nanoseconds(store().deserialize_cdr(data, type_name(TOPICS[topic])))


@dataclasses.dataclass(frozen=True)
class Sample:
    """A synchronised set.

    Attributes:
        stamp: of the reference image (s).
        stamps: camera -> stamp of its image (ns).
        instruction: that it was taken for; empty if it was not wanted.
        num_taken: messages the node had taken when the set was complete.
    """

    stamp: float
    stamps: dict[str, int]
    instruction: str
    num_taken: int


@dataclasses.dataclass(frozen=True)
class Run:
    """What became of a stream of messages: all sets, what the policy was given, refusals."""

    samples: list[Sample]
    observations: list
    refused: dict[str, int]


class WatchedNode(PolicyNode):
    """The policy node with a fake policy; tells what it takes and can record it.

    The recorder sits where the node takes a message off the wire. One with subscriptions of its
    own sees another order among the topics, and a set is made of what came before its last image:
    on a busy machine up to 4 of 33 observations were others in the replay of such a bag.
    """

    def __init__(self, context, *, write=None, **values):
        self.fake, self.samples, self.num_taken, self._write = FakePolicy(), [], 0, write
        self.fake.embodiment, self._written_at = ROBOT, 0
        super().__init__(
            policy_factory=lambda _: self.fake,
            context=context,
            use_global_arguments=False,
            enable_rosout=False,
            parameter_overrides=h.overrides(PARAMETERS | values),
        )

    def create_subscription(self, kind, topic, callback, profile, **options):
        def take(message):
            self.num_taken += 1
            if self._write is not None:
                # Bags are read by time: no two messages may have the same.
                self._written_at = max(self.get_clock().now().nanoseconds, self._written_at + 1)
                self._write(topic, self._written_at, message)
                message = deserialize_message(message, kind)
            callback(message)

        if topic not in TOPICS:
            return super().create_subscription(kind, topic, callback, profile, **options)
        raw = self._write is not None
        return super().create_subscription(kind, topic, take, profile, raw=raw, **options)

    def _on_set(self, stamp, images, state):
        wanted = self.instructions.takes(stamp)
        self.samples.append(
            Sample(
                stamp,
                {camera: nanoseconds(message) for camera, message in images.items()},
                self.instructions.text if wanted else '',
                self.num_taken,
            )
        )
        super()._on_set(stamp, images, state)

    def caught_up(self):
        """Whether the newest set that was wanted has reached the policy."""
        wanted = next((s for s in reversed(self.samples) if s.instruction), None)
        given = self.fake.observations
        return wanted is None or (given and given[-1].stamp == wanted.stamp)

    def run_so_far(self):
        return Run(self.samples, self.fake.observations, dict(self.inputs.counts()))


@contextlib.contextmanager
def active(context, **options):
    """An active node and its executor."""
    node, executor = WatchedNode(context, **options), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        yield node, executor
    finally:
        node.leave()
        executor.shutdown()
        node.destroy_node()


@contextlib.contextmanager
def sender(context):
    """A node, and its publishers by topic."""
    node = Node('robot', context=context, use_global_arguments=False, enable_rosout=False)
    try:
        yield node, {t: node.create_publisher(kind, t, 10) for t, kind in TOPICS.items()}
    finally:
        node.destroy_node()


def until(condition, step=lambda: time.sleep(0.001)):
    """Take steps until a condition holds."""
    deadline = time.monotonic() + h.WAIT
    while not condition():
        assert time.monotonic() < deadline, f'waited {h.WAIT} s in vain'
        step()


# --- the live run -----------------------------------------------------------------------------


def message_of(topic, number, stamp):
    """Return a message that no other one of the topic is equal to."""
    message = TOPICS[topic]()
    message.header.stamp = stamp
    wave = np.sin(np.array([0.11, 0.07, 0.05]) * number).tolist()
    if topic == JOINTS:
        message.name, message.position = ['grip', 'b', 'a'], wave
    elif topic == TWIST:
        message.twist.linear.x, message.twist.angular.z, _ = wave
    else:
        picture = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        if topic == FRONT:
            message.format = 'jpeg'
            message.data.frombytes(jpeg(picture))
        else:
            message.height, message.width, _ = picture.shape
            message.encoding, message.step = 'bgr8', 3 * message.width
            message.data.frombytes(picture.tobytes())
    return message


def move(node, publishers, clock):
    """Be a robot for a while: images that arrive late, feedback, instructions."""
    under_way, jitter = {}, np.random.default_rng(1)

    def expose(topic, number):
        under_way[topic, number] = message_of(topic, number, clock.now().to_msg())

    def send(topic, number):
        # Some drivers repeat an image.
        for _ in range(2 if topic == WRIST and number % 10 == 4 else 1):
            publishers[topic].publish(under_way[topic, number])

    def say(text):
        publishers[INSTRUCTION].publish(String(data=text))
        # Nothing is exposed meanwhile: which images the node saw before it took the instruction
        # and which after must not hang on the microseconds between the bag's clock and its own.
        until(lambda: node.instruction == text)

    events = []
    for topic, (period, latency) in STREAMS.items():
        for number in range(int(DURATION / period)):
            at = (number + jitter.uniform(0.0, 0.2)) * period
            events.append((at, functools.partial(expose, topic, number)))
            events.append((at + latency, functools.partial(send, topic, number)))
            if topic == FRONT and number in SAID:
                events.append((at + latency / 2, functools.partial(say, SAID[number])))
    start = time.monotonic()
    for at, act in sorted(events, key=operator.itemgetter(0)):
        time.sleep(max(0.0, start + at - time.monotonic()))
        act()


@pytest.fixture(scope='module')
def context():
    return kept_context(DOMAIN)


@pytest.fixture(scope='module')
def live(context, tmp_path_factory):
    """Path of a bag, and the run that was recorded into it."""
    path = tmp_path_factory.mktemp('bags') / 'live'
    with (
        bag(path, TOPICS) as write,
        active(context, write=write) as (node, executor),
        sender(context) as (robot, publishers),
        ThreadPoolExecutor() as threads,
    ):
        step = functools.partial(executor.spin_once, timeout_sec=0.01)
        until(lambda: all(p.get_subscription_count() for p in publishers.values()), step)
        moving = threads.submit(move, node, publishers, robot.get_clock())
        until(moving.done, step)
        moving.result()
        for _ in range(10):  # what is still on the wire then is neither recorded nor used
            step()
        until(node.caught_up, step)
        run = node.run_so_far()
    return path, run


# --- replay -----------------------------------------------------------------------------------


def replay(context, path):
    """Play a bag through DDS into a new node, by the clock of the bag; nothing is recorded.

    At the speed of the bag the wire would mix the topics anew and lose other messages than live,
    and inferences would skip other observations. So each message waits until all has come of the
    one before; the clock says when it was taken live.
    """
    with (
        active(context, use_sim_time=True, **LOSSLESS) as (node, executor),
        sender(context) as (player, publishers),
    ):
        clock = player.create_publisher(Clock, '/clock', 10)
        step = functools.partial(executor.spin_once, timeout_sec=0.01)

        def set_clock(at):
            def there():
                clock.publish(Clock(clock=Time(nanoseconds=at).to_msg()))
                return node.get_clock().now().nanoseconds == at

            until(there, step)

        until(lambda: all(p.get_subscription_count() for p in publishers.values()), step)
        recorded = messages(path)
        before = recorded[0][1] - 1
        set_clock(before)
        for number, (topic, at, data) in enumerate(recorded, start=1):
            for tick in (*range(before + TICK, at, TICK), at):
                set_clock(tick)
            publishers[topic].publish(data)
            until(lambda number=number: node.num_taken == number, step)
            until(node.caught_up)
            before = at
        return node.run_so_far()


def differences(live, replayed):
    """Return stamp and what is another in the replay, of every observation of the live run."""
    again = {o.stamp: o for o in replayed.observations}
    found = []
    for o in live.observations:
        if (other := again.get(o.stamp)) is None:
            found.append((o.stamp, 'missing'))
            continue
        same = {'state': np.array_equal(o.state, other.state)}
        same['instruction'] = o.instruction == other.instruction
        same |= {c: np.array_equal(o.images[c], other.images[c]) for c in ROBOT.cameras}
        found += [(o.stamp, what) for what, equal in same.items() if not equal]
    return found


def test_bag_replay_equals_live_sample_by_sample(live, context):
    path, run = live
    replayed = replay(context, path)
    # Every set, of the same images and for the same instruction. While the policy is busy the
    # newest set wins, so that a few may not have reached it live; the replay gives it all.
    assert replayed.samples == run.samples
    wanted = [s.stamp for s in run.samples if s.instruction]
    assert [o.stamp for o in replayed.observations] == wanted
    assert {o.stamp for o in run.observations} <= set(wanted)
    assert differences(run, replayed) == []
    assert replayed.refused == run.refused


def test_live_run_has_what_a_replay_could_get_wrong(live):
    path, run = live
    recorded = messages(path)
    assert {topic for topic, _, _ in recorded} == set(TOPICS)
    assert len(run.observations) >= 10
    assert len({o.instruction for o in run.observations}) >= 2
    assert len({o.state.tobytes() for o in run.observations}) >= 10
    for camera in ROBOT.cameras:
        pictures = {o.images[camera].tobytes() for o in run.observations}
        assert len(pictures) == len(run.observations)
    # Some sets were exposed before the instruction changed and complete only after it.
    first = next(i for i, s in enumerate(run.samples) if s.instruction)
    assert '' in {s.instruction for s in run.samples[first:]}
    assert run.refused['wrist']  # images that came twice


def test_replay_of_a_bag_with_one_other_joint_value_gives_another_state(live, context, tmp_path):
    path, run = live
    recorded = messages(path)
    stamps = {
        i: stamp_of(topic, data) for i, (topic, _, data) in enumerate(recorded) if topic == JOINTS
    }
    given = {o.stamp for o in run.observations}

    def last_before(sample):
        """Return the newest feedback that is not after the image, as far as it had come."""
        known = [i for i in stamps if i < sample.num_taken and stamps[i] <= sample.stamps['front']]
        return max(known)

    # One whose state the feedback decides: nothing is taken from farther than `SLOP`.
    sample = next(
        s
        for s in run.samples
        if s.stamp in given and s.stamps['front'] - stamps[last_before(s)] < SLOP * 1e9
    )
    changed = last_before(sample)

    def change(number, message):
        if number == changed:
            other = message.position + (np.array(message.name) == 'a')
            return dataclasses.replace(message, position=other)
        return message

    replayed = replay(context, rewrite(path, tmp_path / 'changed', TOPICS, change))
    found = differences(run, replayed)
    assert (sample.stamp, 'state') in found
    assert {what for _, what in found} == {'state'}


def test_replay_of_a_bag_without_one_image_lacks_its_observation(live, context, tmp_path):
    path, run = live
    lost = run.observations[4].stamp
    exposed = next(s.stamps['front'] for s in run.samples if s.stamp == lost)

    def change(_, message):
        is_lost = hasattr(message, 'format') and nanoseconds(message) == exposed
        return None if is_lost else message

    replayed = replay(context, rewrite(path, tmp_path / 'without', TOPICS, change))
    assert (lost, 'missing') in differences(run, replayed)
