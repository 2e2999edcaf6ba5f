"""What a simulated robot tells of itself over DDS: its URDF and its joints by name."""

from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from robot_wire import connected, PATIENT, twist
from sensor_msgs.msg import JointState, MultiDOFJointState
from std_msgs.msg import String
from urdf_kinematics import forward

from faster_core.sim.urdf import description
from faster_vla_ros.graph import GRAPHS
from faster_vla_ros.session import LATCHED

pytestmark = pytest.mark.ros
STATES = '/mujoco_robot/joint_states'


def urdf_of(wire, space=''):
    (msg,) = wire.collect(String, f'{space}/robot_description', qos=LATCHED)
    return msg.data


def moving(text):
    joints = ElementTree.fromstring(text).findall('joint')
    own = [j for j in joints if j.get('type') != 'fixed' and j.find('mimic') is None]
    return {j.get('name') for j in own}


def stamp(msg):
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def told_and_true(wire):
    """Return joint positions by name and poses [7] by body, of one instant."""
    states, worlds = {}, {}
    subscribe = wire.node.create_subscription
    both = [
        subscribe(JointState, STATES, lambda m: states.update({stamp(m): m}), 20),
        subscribe(
            MultiDOFJointState,
            '/mujoco_robot/world_state',
            lambda m: worlds.update({stamp(m): m}),
            20,
        ),
    ]
    found = wire.session.spin_until(lambda: states.keys() & worlds.keys(), PATIENT)
    for subscription in both:
        wire.node.destroy_subscription(subscription)
    assert found
    at = max(states.keys() & worlds.keys())
    state, world = states[at], worlds[at]
    assert world.header.frame_id == 'world'
    return (
        dict(zip(state.name, state.position, strict=True)),
        dict(zip(world.joint_names, world.transforms, strict=True)),
    )


@pytest.mark.parametrize('name', GRAPHS)
def test_a_graphs_robot_latches_the_urdf_of_launch_and_tells_every_joint_of_it(name):
    values = GRAPHS[name](nodes=['mujoco_robot']).node('mujoco_robot').parameters
    values = {key: value for key, value in values.items() if key != 'task'}
    with connected(**values, camera_rate=2.0) as (node, wire):
        text = urdf_of(wire)
        assert text == description(values)
        (publisher,) = wire.node.get_publishers_info_by_topic('/robot_description')
        assert publisher.node_name == 'mujoco_robot'
        (msg,) = wire.collect(JointState, STATES)
        assert set(msg.name) == moving(text) and len(set(msg.name)) == len(msg.name)
        assert msg.header.stamp.sec > 0
        sim = node.robot.sim
        measured = np.concatenate([sim.joint_feedback(p.name)[0] for p in sim.parts])
        np.testing.assert_allclose(msg.position, measured, atol=0.01)


def test_the_r1_lite_is_where_urdf_and_joints_say_after_it_has_driven_and_bent():
    with connected(robot='r1_lite', seed=3, camera_rate=5.0) as (node, wire):
        tree = ElementTree.fromstring(urdf_of(wire))
        sim, start = node.robot.sim, node.robot.sim.feedback('base')[0]
        chassis = '/motion_target/target_speed_chassis'
        speed = twist(vx=0.2, vy=0.1, wz=0.3)
        turned = wire.stream_until(
            chassis, speed, lambda: sim.feedback('base')[0][2] > start[2] + 0.3
        )
        bend, torso = sim.feedback('torso')[0].copy(), '/motion_target/target_speed_torso'
        down = wire.stream_until(
            torso, twist(vz=-0.05), lambda: np.abs(sim.feedback('torso')[0] - bend).max() > 0.05
        )
        assert turned and down
        positions, true = told_and_true(wire)
        assert positions['base_yaw'] > start[2] + 0.3
        found = forward(tree, positions)
        for link in ('base_link', 'left_hand', 'right_hand'):
            t = true[link].translation
            # The poses are those of the last physics step, the joints one step of 2 ms later.
            np.testing.assert_allclose(found[link][:3, 3], [t.x, t.y, t.z], atol=5e-3)


def test_names_given_by_parameters_are_those_of_urdf_and_joints_in_a_namespace():
    joints = [f'left_fr3_joint{i}' for i in range(1, 8)]
    values = {'robot': 'single_arm', 'image_size': [64, 48], 'arm__joints': joints}
    with connected(**values, namespace='cell_1') as (_, wire):
        assert moving(urdf_of(wire, '/cell_1')) == {*joints, 'fr3_finger_joint1'}
        (msg,) = wire.collect(JointState, f'/cell_1{STATES}')
        assert list(msg.name) == [*joints, 'fr3_finger_joint1']
