"""The speed of a base out of odometry or a stamped twist: its axes, never the pose."""

import sys
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from geometry_msgs.msg import TwistStamped
import policy_node_helpers as h
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from faster_core.embodiment import Component, Embodiment, Kind
from faster_core.errors import ConfigError, ObservationError
from faster_vla_ros import policy_parameters
from faster_vla_ros.sensors.inputs import SensorInputs
from faster_vla_ros.sensors.state import SourceConfig, StateSource

pytestmark = pytest.mark.ros

BASE = Component(name='base', kind=Kind.TWIST, names=('vx', 'vy', 'wz'))
WHEELS = Component(name='base', kind=Kind.JOINT_VELOCITY, names=('forward', 'turn'))
ALL = {'vx': 1.0, 'vy': 2.0, 'vz': 3.0, 'wx': 4.0, 'wy': 5.0, 'wz': 6.0}


def odometry():
    return pytest.importorskip('nav_msgs.msg').Odometry


def message(kind):
    """Return a message with another number on every axis, and a pose that is somewhere else."""
    if kind == 'twist':
        m = TwistStamped()
        twist = m.twist
    else:
        m = odometry()()
        twist = m.twist.twist
        m.pose.pose.position.x = m.pose.pose.position.y = 99.0
    for part, letter in ((twist.linear, 'v'), (twist.angular, 'w')):
        for axis in 'xyz':
            setattr(part, axis, ALL[letter + axis])
    return m


def source(kind, component=BASE, **options):
    return StateSource(component, SourceConfig(topic='odom', type=kind, **options))


@pytest.mark.parametrize('kind', ['odometry', 'twist'])
def test_axes_of_the_component_are_read_from_the_twist(kind):
    m = message(kind)
    s = source(kind)
    assert s.message_type is type(m)
    np.testing.assert_array_equal(s.parse(m), [1.0, 2.0, 6.0])


@pytest.mark.parametrize('kind', ['odometry', 'twist'])
def test_other_names_need_a_list_of_axes(kind):
    s = source(kind, WHEELS, axes=('wz', 'vx'), scale=2.0, offset=1.0)
    np.testing.assert_array_equal(s.parse(message(kind)), [13.0, 3.0])


@pytest.mark.parametrize('kind', ['odometry', 'twist'])
def test_every_axis_is_the_one_of_its_name(kind):
    for axis, value in ALL.items():
        part = Component(name='base', kind=Kind.TWIST, names=(axis,))
        assert source(kind, part).parse(message(kind)) == [value]


def test_axis_that_is_not_finite_is_named_and_counted():
    m = message('twist')
    m.twist.linear.y = float('nan')
    m.twist.linear.z = float('nan')  # not wanted
    s = source('twist')
    with pytest.raises(ObservationError, match='base: twist of vy is not finite'):
        s.parse(m)
    assert not s.add(m, 1.0)
    assert s.num_refused == 1


@pytest.mark.parametrize(
    ('component', 'options', 'expected'),
    [
        (WHEELS, {}, 'base.axes: expected some of vx, vy, vz, wx, wy, wz, found forward'),
        (WHEELS, {'axes': ('vx',)}, r"base.axes: expected 2 different axes, found \['vx'\]"),
        (WHEELS, {'axes': ('vx', 'vx')}, 'base.axes: expected 2 different axes'),
        (BASE, {'axes': ('vy', 'vx', 'wz')}, r"the embodiment has \['vx', 'vy', 'wz'\]"),
        (BASE, {'joints': ('a',)}, r"base.joints: expected none with type twist, found \['a'\]"),
        (BASE, {'size': (3,)}, r'base.size: expected none with type twist, found \[3\]'),
        (BASE, {'topic': 'joint_states'}, 'base.topic: expected that of TwistStamped messages'),
        (
            Component(name='base', kind=Kind.JOINT_POSITION, names=('vx',)),
            {},
            'base.type: expected joint_state for a component of kind joint_position, found twist',
        ),
    ],
)
def test_configuration_that_does_not_fit_is_refused(component, options, expected):
    config = SourceConfig(**{'topic': 'odom', 'type': 'twist'} | options)
    with pytest.raises(ConfigError, match=expected):
        StateSource(component, config)


def test_odometry_without_nav_msgs_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'nav_msgs', None)
    monkeypatch.setitem(sys.modules, 'nav_msgs.msg', None)
    with pytest.raises(ConfigError, match='odometry needs nav_msgs: install ros-nav-msgs'):
        source('odometry')


def test_speed_between_two_messages_is_interpolated_if_wanted():
    s = source('twist', interpolate=True)
    for stamp, speed in ((1.0, 0.2), (1.1, 0.4)):
        m = TwistStamped()
        m.twist.linear.x = speed
        s.add(m, stamp)
    np.testing.assert_allclose(s.at(1.05, 0.1), [0.3, 0.0, 0.0])


def test_parameters_of_a_node_bring_the_speed_of_the_base_from_odometry():
    given = {
        'checkpoint_path': '/somewhere',
        'cameras': ['front'],
        'reference_camera': 'front',
        'state_sources': ['base'],
        'base.type': 'odometry',
        'base.topic': 'odom',
        'base.axes': ['vx', 'vy', 'wz'],
        'base.interpolate': True,
    }
    embodiment = Embodiment(
        name='cart',
        action_frequency=10.0,
        action_horizon=4,
        cameras=('front',),
        state=(BASE,),
        action=(BASE,),
        tokenizer_groups=(('base',),),
        source='',
    )
    m, sets = message('odometry'), []
    with h.own_context() as context:
        node = Node(
            'policy_node',
            context=context,
            use_global_arguments=False,
            automatically_declare_parameters_from_overrides=True,
            parameter_overrides=h.overrides(given),
        )
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        inputs = SensorInputs(
            node,
            policy_parameters.read(node),
            embodiment,
            on_set=lambda *s: sets.append(s),
            on_refused=lambda why: pytest.fail(why),
            on_jump=lambda: pytest.fail('no clock jumps here'),
        )
        odom = node.create_publisher(type(m), 'odom', 10)
        camera = node.create_publisher(type(h.image(0)), 'front/image_raw', 10)
        deadline = time.monotonic() + h.WAIT
        stamp = node.get_clock().now()
        m.header.stamp = stamp.to_msg()
        while not sets and time.monotonic() < deadline:
            if inputs.rates.ever_seen('base'):
                camera.publish(h.image(stamp.nanoseconds))
            elif odom.get_subscription_count() and camera.get_subscription_count():
                odom.publish(m)
            executor.spin_once(timeout_sec=0.05)
        inputs.destroy()
        executor.shutdown()
        node.destroy_node()
    np.testing.assert_allclose(sets[0][2], [1.0, 2.0, 6.0])
