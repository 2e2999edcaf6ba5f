"""The URDF of a simulated robot puts every link where the simulation has it."""

import types
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
from urdf_kinematics import forward

from faster_core.sim import R1LiteSim
from faster_core.sim.robot import Part, PartKind
from faster_core.sim.table_arms import BLOCKS, DualArmSim, SingleArmSim
from faster_core.sim.urdf import description, ROOT_LINK, urdf

SIMS = {
    'fr3': lambda: SingleArmSim('fr3'),
    'ur5e': lambda: SingleArmSim('ur5e'),
    'xarm7': lambda: SingleArmSim('xarm7'),
    'vx300s': lambda: DualArmSim('vx300s'),
    'wxai': lambda: DualArmSim('wxai'),
    'r1_lite': R1LiteSim,
}


@pytest.fixture(params=SIMS, scope='module')
def robot(request):
    sim = SIMS[request.param]()
    return sim, ElementTree.fromstring(urdf(sim, request.param))


def told(sim):
    """Return the positions by name that the robot tells."""
    return {
        joint: value
        for part in sim.parts
        for joint, value in zip(part.joints, sim.joint_feedback(part.name)[0], strict=True)
    }


def place(sim, rng):
    """Put every joint somewhere in its range; both fingers of a hand are equally far out."""
    for part in sim.parts:
        inner = part.model_joints or part.joints
        if part.kind is PartKind.GRIPPER:
            inner = [inner[0], inner[0].replace('finger1', 'finger2')]
        for name in inner:
            row = sim.model.joint(name)
            low, high = row.range if sim.model.jnt_limited[row.id] else (-2.0, 2.0)
            sim.data.joint(name).qpos[0] = rng.uniform(low, high)
        if part.kind is PartKind.GRIPPER:
            first, second = (sim.data.joint(name) for name in inner)
            second.qpos[0] = first.qpos[0]
    mujoco.mj_forward(sim.model, sim.data)


def test_every_link_is_where_the_simulation_has_it(robot):
    sim, tree = robot
    rng, bodies = (
        np.random.default_rng(1),
        {sim.model.body(i).name for i in range(sim.model.nbody)},
    )
    for _ in range(3):
        place(sim, rng)
        found = {n: p for n, p in forward(tree, told(sim)).items() if n in bodies}
        assert len(found) >= 9
        for link, placed in found.items():
            body = sim.data.body(link)
            np.testing.assert_allclose(placed[:3, 3], body.xpos, atol=1e-4, err_msg=link)
            np.testing.assert_allclose(placed[:3, :3].ravel(), body.xmat, atol=1e-4, err_msg=link)


def test_joints_have_the_names_that_the_robot_tells_and_its_ranges(robot):
    sim, tree = robot
    own = {j.get('name'): j for j in tree.findall('joint') if j.get('type') != 'fixed'}
    names = [joint for part in sim.parts for joint in part.joints]
    assert sorted(n for n, j in own.items() if j.find('mimic') is None) == sorted(names)
    assert {j.find('mimic').get('joint') for j in own.values() if j.find('mimic') is not None} == {
        part.joints[0] for part in sim.parts if part.kind is PartKind.GRIPPER
    }
    for name in names:
        if own[name].get('type') == 'continuous':
            assert name == 'base_yaw'
            continue
        limit = own[name].find('limit')
        assert float(limit.get('lower')) < float(limit.get('upper'))


def test_the_stroke_of_the_r1_lites_gripper_is_that_of_both_fingers():
    tree = ElementTree.fromstring(description({'robot': 'r1_lite'}))
    joints = {j.get('name'): j for j in tree.findall('joint')}
    limit = joints['left_gripper_joint'].find('limit')
    assert (float(limit.get('lower')), float(limit.get('upper'))) == (0.0, 0.1)
    for finger in ('left_finger1', 'left_finger2'):
        limit, mimic = (joints[finger].find(tag) for tag in ('limit', 'mimic'))
        assert float(limit.get('upper')) == 0.05
        assert mimic.attrib == {'joint': 'left_gripper_joint', 'multiplier': '0.5'}


def test_cameras_have_the_optical_frames_of_their_images_and_look_along_z(robot):
    sim, tree = robot
    mujoco.mj_forward(sim.model, sim.data)
    found = forward(tree, told(sim))
    assert set(sim.camera_names) == set(sim.cameras)
    for camera, inner in sim.camera_names.items():
        frame, seen = found[f'{camera}_optical_frame'], sim.data.camera(inner)
        np.testing.assert_allclose(frame[:3, 3], seen.xpos, atol=1e-4)
        np.testing.assert_allclose(frame[:3, 2], -seen.xmat.reshape(3, 3)[:, 2], atol=1e-4)
        np.testing.assert_allclose(frame[:3, 0], seen.xmat.reshape(3, 3)[:, 0], atol=1e-4)


def test_it_is_one_tree_without_what_stands_and_lies_around(robot):
    sim, tree = robot
    links = {link.get('name') for link in tree.findall('link')}
    children = [j.find('child').get('link') for j in tree.findall('joint')]
    assert len(children) == len(set(children)) == len(links) - 1
    assert links - set(children) == {ROOT_LINK}
    around = {*BLOCKS, *sim.world_state()} - {'base_link'}
    assert not {n for n in links & around if not n.endswith('hand')}
    assert any(link.find('visual') is not None for link in tree.findall('link'))


def test_several_joints_of_one_body_follow_each_other_from_where_it_stands():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body name="cart" pos="1 2 .5" euler="0 0 40">
        <joint name="x" type="slide" axis="1 0 0"/><joint name="turn" axis="0 0 1"/>
        <geom size=".1"/></body></worldbody></mujoco>"""
    )
    part = Part(name='base', kind=PartKind.BASE, joints=('x', 'turn'))
    tree = ElementTree.fromstring(
        urdf(types.SimpleNamespace(model=model, parts=(part,), camera_names={}), 'cart')
    )
    data = mujoco.MjData(model)
    data.qpos[:] = 0.3, 0.7
    mujoco.mj_forward(model, data)
    placed = forward(tree, {'x': 0.3, 'turn': 0.7})['cart']
    np.testing.assert_allclose(placed[:3, 3], data.body('cart').xpos, atol=1e-4)
    np.testing.assert_allclose(placed[:3, :3].ravel(), data.body('cart').xmat, atol=1e-4)


def test_joints_can_have_other_names():
    names = [f'left_fr3_joint{i}' for i in range(1, 8)]
    tree = ElementTree.fromstring(
        urdf(SingleArmSim('fr3'), 'fr3', {'arm': names, 'gripper': ['left_finger']})
    )
    moving = {j.get('name') for j in tree.findall('joint') if j.get('type') != 'fixed'}
    assert moving == {*names, 'left_finger', 'finger2'}
    (mimic,) = tree.iter('mimic')
    assert mimic.get('joint') == 'left_finger'


def test_every_robot_is_described_by_the_parameters_of_its_node():
    assert 'fr3_joint1' in description({'robot': 'single_arm', 'arm_model': 'fr3'})
    assert 'shoulder_pan_joint' in description({'robot': 'single_arm', 'arm_model': 'ur5e'})
    assert 'name="joint7"' in description({'robot': 'single_arm', 'arm_model': 'xarm7'})
    assert 'follower_left/waist' in description({'robot': 'dual_arm'})
    assert 'trossen_arm_2/joint_0' in description({'robot': 'dual_arm', 'arm_model': 'wxai'})
    assert 'left_arm_joint1' in description({'robot': 'r1_lite', 'dialect': 'vendor'})
