"""Subscriptions, synchronisation and refusals of the policy's inputs, without the wire."""

import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')
pytest.importorskip('cv2')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from image_files import jpeg, picture, png
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

from faster_core.embodiment import Component, Embodiment, Kind
from faster_vla_ros import qos
from faster_vla_ros.policy_parameters import CameraConfig, PolicyNodeConfig
from faster_vla_ros.sensors.inputs import SensorInputs, SETS
from faster_vla_ros.sensors.state import SourceConfig

pytestmark = pytest.mark.ros

MS = 1_000_000
START = 1_700_000_000 * 10**9
ARM = Component(name='arm', kind=Kind.JOINT_POSITION, names=('a', 'b'))
HAND = Component(name='hand', kind=Kind.GRIPPER_POSITION, names=('grip',))
BASE = Component(name='base', kind=Kind.TWIST, names=('vx', 'wz'))
SOURCES = {
    'arm': SourceConfig(topic='joint_states', joints=('a', 'b'), interpolate=True),
    'hand': SourceConfig(topic='joint_states', joints=('grip',)),
    'base': SourceConfig(topic='cmd_vel_measured', type='twist'),
}


class FakeClock:
    """A clock of the wall that says what it was set to."""

    ros_time_is_active, seconds = False, 0.0

    def now(self):
        return types.SimpleNamespace(nanoseconds=round(self.seconds * 1e9))


class FakeNode:
    """Remembers subscriptions: topic -> (type, callback, qos)."""

    def __init__(self):
        self.subscriptions = {}

    def get_clock(self):
        return FakeClock()

    def create_subscription(self, message_type, topic, callback, profile):
        assert topic not in self.subscriptions, f'{topic} is received twice'
        self.subscriptions[topic] = (message_type, callback, profile)
        return topic

    def destroy_subscription(self, topic):
        del self.subscriptions[topic]


def header(ns):
    sec, nanosec = divmod(ns, 10**9)
    return Header(stamp=Time(sec=sec, nanosec=nanosec))


def raw(ns, size=(4, 3), **fields):
    width, height = size
    m = Image(header=header(ns), width=width, height=height, encoding='mono8', step=width)
    m.data.frombytes(bytes(width * height))
    for name, value in fields.items():
        setattr(m, name, value)
    return m


class Bench:
    """Inputs of some cameras; everything that comes out is kept."""

    def __init__(self, cameras=('front', 'left'), transport='raw', slop=0.05, receive_time=False):
        self.node, self.sets, self.refused, self.jumps = FakeNode(), [], [], []
        config = PolicyNodeConfig(
            values={
                'sync_slop': slop,
                'use_receive_time': receive_time,
                'reference_camera': cameras[0],
            },
            cameras={c: CameraConfig(topic=c, transport=transport, timeout=0.2) for c in cameras},
            sources=SOURCES,
        )
        embodiment = Embodiment(
            name='test',
            action_frequency=10.0,
            action_horizon=4,
            cameras=tuple(cameras),
            state=(ARM, HAND, BASE),
            action=(ARM,),
            tokenizer_groups=(('arm',),),
            source='',
        )
        self.inputs = SensorInputs(
            self.node,
            config,
            embodiment,
            on_set=lambda *s: self.sets.append(s),
            on_refused=self.refused.append,
            on_jump=lambda: self.jumps.append(True),
        )

    def receive(self, topic, message):
        message_type, callback, _ = self.node.subscriptions[topic]
        assert isinstance(message, message_type)
        callback(message)

    def joints(self, ns, a=1.0, b=2.0, grip=0.5):
        names, position = ['grip', 'b', 'a'], [grip, b, a]
        self.receive('joint_states', JointState(header=header(ns), name=names, position=position))

    def feel(self, ns, **joints):
        """Receive state of a time."""
        self.joints(ns, **joints)
        m = TwistStamped(header=header(ns))
        m.twist.linear.x, m.twist.angular.z = 0.25, -0.5
        self.receive('cmd_vel_measured', m)


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_one_to_four_cameras_give_a_set_with_the_state_of_the_reference_image(count):
    cameras = ('front', 'left', 'right', 'top')[:count]
    bench = Bench(cameras)
    bench.feel(START)
    for k, camera in enumerate(reversed(cameras)):
        bench.receive(camera, raw(START + k * 10 * MS))
    ((stamp, images, state),) = bench.sets
    assert stamp == pytest.approx((START + (count - 1) * 10 * MS) / 1e9, abs=1e-6)
    assert set(images) == set(cameras)
    np.testing.assert_allclose(state, [1.0, 2.0, 0.5, 0.25, -0.5])
    assert state.dtype == np.float32
    assert not any(bench.inputs.counts().values())


def test_topic_of_several_sources_is_received_once_with_the_profile_of_sensors():
    bench = Bench()
    profiles = {topic: s[2] for topic, s in bench.node.subscriptions.items()}
    assert profiles == {
        'front': qos.IMAGE,
        'left': qos.IMAGE,
        'joint_states': qos.STATE,
        'cmd_vel_measured': qos.STATE,
    }
    bench.inputs.destroy()
    assert not bench.node.subscriptions


def test_interpolated_source_is_read_between_the_messages_the_others_at_the_nearest():
    bench = Bench(('front',))
    bench.feel(START, a=1.0, b=0.0, grip=0.0)
    bench.feel(START + 20 * MS, a=2.0, b=4.0, grip=1.0)
    bench.receive('front', raw(START + 5 * MS))
    np.testing.assert_allclose(bench.sets[0][2][:3], [1.25, 1.0, 0.0], atol=1e-4)


@pytest.mark.parametrize(('distance', 'emitted'), [(50 * MS, True), (50 * MS + 2000, False)])
def test_sync_slop_is_the_largest_distance_allowed(distance, emitted):
    bench = Bench()
    bench.feel(START)
    bench.receive('front', raw(START))
    bench.receive('left', raw(START + distance))
    assert bool(bench.sets) is emitted


def test_without_slop_equal_stamps_still_match():
    bench = Bench(slop=0.0)
    bench.feel(START)
    for camera in ('front', 'left'):
        bench.receive(camera, raw(START))
    assert len(bench.sets) == 1


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_camera_that_changes_its_size_is_refused_with_both_sizes_until_it_is_back(transport):
    bench = Bench(('front',), transport)
    bench.feel(START)

    def send(k, size):
        m = raw(START + k * MS, size)
        if transport == 'compressed':
            data = (jpeg, png)[k % 2](picture(size[1], size[0]))
            m = CompressedImage(header=m.header, format='', data=data)
        bench.receive('front', m)

    send(0, (64, 48))
    for k in (1, 2):
        send(k, (48, 64))
    assert (
        bench.refused
        == ['camera front: an image of 48 x 64 pixels, the first one had 64 x 48'] * 2
    )
    assert bench.inputs.counts()['front'] == 2
    send(3, (64, 48))
    assert len(bench.sets) == 2
    bench.inputs.clear()  # the next activation
    bench.feel(START + 4 * MS)
    send(4, (48, 64))
    assert len(bench.sets) == 3
    assert len(bench.refused) == 2


def test_image_that_was_refused_does_not_decide_about_size_or_stamp():
    bench = Bench(('front',))
    bench.feel(START)
    bench.receive('front', raw(START, (8, 8), encoding='mono16'))
    bench.receive('front', raw(START, (4, 3)))
    assert len(bench.sets) == 1
    assert bench.inputs.counts()['front'] == 1
    assert 'more than 8 bits' in bench.refused[0]


def test_every_refusal_is_counted_where_it_belongs():
    bench = Bench()
    bench.feel(START)
    bench.joints(START)  # repeats
    bench.joints(START - 10 * MS)  # late
    bench.joints(START + MS, a=float('nan'))  # of the arm alone
    bench.receive('cmd_vel_measured', TwistStamped(header=header(START)))  # repeats
    bench.receive('front', raw(START + 2 * MS))
    bench.receive('front', raw(START + 2 * MS))  # repeats
    bench.receive('left', raw(START + 2 * MS, step=3))  # does not fit
    bench.receive('left', raw(START + 2 * MS))  # a set, but the arm is not to be trusted
    assert bench.inputs.counts() == {
        'front': 1,
        'left': 1,
        SETS: 1,
        'arm': 3,
        'hand': 2,
        'base': 1,
    }
    assert len(bench.refused) == 3
    assert not bench.sets
    bench.inputs.clear()
    assert bench.inputs.counts()['arm'] == 3  # counted since it was made


def test_late_feedback_leaves_the_state_usable():
    bench = Bench(('front',))
    bench.feel(START, a=1.0)
    bench.joints(START - 10 * MS, a=9.0)
    bench.receive('front', raw(START))
    assert bench.sets[0][2][0] == 1.0


def test_source_that_only_repeats_its_stamp_grows_stale_and_says_so(monkeypatch):
    bench = Bench(('front',))
    now = [1000.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr('faster_vla_ros.ages.time', clock)
    bench.inputs.clear()
    for _ in range(5):
        bench.joints(START)
        now[0] += 0.05
    stale = bench.inputs.stale()
    assert stale['arm'] == 'arm: the stamp repeats'
    assert stale['hand'] == 'hand: the stamp repeats'
    assert bench.inputs.rates.ever_seen('arm')
    assert not bench.inputs.rates.ever_seen('base')


def test_images_that_never_match_are_told_of(monkeypatch):
    bench = Bench()
    now = [1000.0]
    monkeypatch.setattr(
        'faster_vla_ros.ages.time', types.SimpleNamespace(monotonic=lambda: now[0])
    )
    bench.inputs.clear()

    def receive(seconds, apart):
        for _ in range(round(seconds / 0.05)):
            stamp = START + round((now[0] - 1000.0) * 1e9)
            bench.feel(stamp)
            bench.receive('front', raw(stamp))
            bench.receive('left', raw(stamp + apart))
            now[0] += 0.05

    receive(1.0, 0)
    assert bench.sets
    receive(0.9, 10_000 * MS)
    assert not bench.inputs.stale()
    receive(1.0, 10_000 * MS)
    assert set(bench.inputs.stale()) == {SETS}
    assert 'front, left are within sync_slop' in bench.inputs.stale()[SETS]
    bench.inputs.clear()
    receive(0.2, 0)
    assert not bench.inputs.stale()


def test_set_that_matches_late_is_dropped_and_counted_without_an_alarm():
    # The synchroniser keeps what is older than an emitted set, see test_message_filters_fallback.
    bench = Bench()
    bench.feel(START + 80 * MS)
    for topic, ms in (('front', 66), ('front', 100), ('left', 90), ('left', 110)):
        bench.receive(topic, raw(START + ms * MS))
    assert [round((s[0] - START / 1e9) * 1e3) for s in bench.sets] == [100]
    assert bench.inputs.counts()[SETS] == 1
    assert not bench.refused


def test_clock_that_went_back_starts_all_anew():
    bench = Bench()
    for start in (START, START // 2):
        for k in range(8):
            bench.feel(start + k * 33 * MS)
            for camera in ('front', 'left'):
                bench.receive(camera, raw(start + k * 33 * MS))
    assert len(bench.sets) == 16
    assert bench.jumps == [True]
    assert not any(bench.inputs.counts().values())
