"""The URDF of a simulated arm puts every link where the simulation has it."""

from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest

from faster_core.sim.table_arms import BLOCKS, DualArmSim, SingleArmSim
from faster_core.sim.urdf import description, ROOT_LINK, urdf

SIMS = {
    'fr3': lambda: SingleArmSim('fr3'),
    'ur5e': lambda: SingleArmSim('ur5e'),
    'dual_arm': DualArmSim,
}


@pytest.fixture(params=SIMS, scope='module')
def arm(request):
    sim = SIMS[request.param]()
    return sim, ElementTree.fromstring(urdf(sim, request.param))


def rotation(axis, angle):
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def pose(xyz, matrix):
    full = np.eye(4)
    full[:3, :3], full[:3, 3] = matrix, xyz
    return full


def numbers(element, key):
    return [float(v) for v in element.get(key).split()]


def forward(robot, positions):
    """Return link -> pose in the root link [4, 4] for joint positions by name."""
    joints = {j.find('child').get('link'): j for j in robot.findall('joint')}

    def of(link):
        if link == ROOT_LINK:
            return np.eye(4)
        joint = joints[link]
        origin = joint.find('origin')
        roll, pitch, yaw = numbers(origin, 'rpy')
        turned = rotation([0, 0, 1], yaw) @ rotation([0, 1, 0], pitch) @ rotation([1, 0, 0], roll)
        placed = pose(numbers(origin, 'xyz'), turned)
        mimic = joint.find('mimic')
        name = joint.get('name') if mimic is None else mimic.get('joint')
        if joint.get('type') == 'revolute':
            axis = numbers(joint.find('axis'), 'xyz')
            placed = placed @ pose([0, 0, 0], rotation(axis, positions[name]))
        elif joint.get('type') == 'prismatic':
            axis = np.array(numbers(joint.find('axis'), 'xyz'))
            placed = placed @ pose(axis * positions[name], np.eye(3))
        return of(joint.find('parent').get('link')) @ placed

    return {link: of(link) for link in joints}


def test_every_link_is_where_the_simulation_has_it(arm):
    sim, robot = arm
    rng = np.random.default_rng(1)
    for _ in range(3):
        positions = {}
        for part in sim.parts:
            q = sim._rows[part.name][0]
            ranges = sim.model.jnt_range[[list(sim.model.jnt_qposadr).index(i) for i in q]]
            sim.data.qpos[q] = rng.uniform(*ranges.T)
            positions |= dict(zip(part.joints, sim.data.qpos[q], strict=True))
            if len(q) == 1:  # the other finger follows
                second = part.name.replace('gripper', 'finger2')
                sim.data.joint(second).qpos[0] = sim.data.qpos[q[0]]
        mujoco.mj_forward(sim.model, sim.data)
        found = forward(robot, positions)
        for link, placed in found.items():
            if not link.endswith('_optical_frame'):
                np.testing.assert_allclose(placed[:3, 3], sim.data.body(link).xpos, atol=1e-4)
                np.testing.assert_allclose(
                    placed[:3, :3].ravel(), sim.data.body(link).xmat, atol=1e-4
                )


def test_joints_have_the_names_that_the_robot_tells_and_its_ranges(arm):
    sim, robot = arm
    own = {j.get('name'): j for j in robot.findall('joint') if j.get('type') != 'fixed'}
    told = [joint for part in sim.parts for joint in part.joints]
    assert [n for n, j in own.items() if j.find('mimic') is None] == told
    assert {j.find('mimic').get('joint') for j in own.values() if j.find('mimic') is not None} <= {
        part.joints[0] for part in sim.parts if len(part.joints) == 1
    }
    for name in told:
        limit = own[name].find('limit')
        assert float(limit.get('lower')) < float(limit.get('upper'))


def test_cameras_have_the_optical_frames_of_their_images_and_look_along_z(arm):
    sim, robot = arm
    mujoco.mj_forward(sim.model, sim.data)
    positions = {
        joint: value
        for part in sim.parts
        for joint, value in zip(part.joints, sim.joint_feedback(part.name)[0], strict=True)
    }
    found = forward(robot, positions)
    for camera, inner in sim._camera_names.items():
        frame, seen = found[f'{camera}_optical_frame'], sim.data.camera(inner)
        np.testing.assert_allclose(frame[:3, 3], seen.xpos, atol=1e-4)
        np.testing.assert_allclose(frame[:3, 2], -seen.xmat.reshape(3, 3)[:, 2], atol=1e-4)
        np.testing.assert_allclose(frame[:3, 0], seen.xmat.reshape(3, 3)[:, 0], atol=1e-4)


def test_it_is_one_tree_without_what_lies_on_the_table(arm):
    _, robot = arm
    links = {link.get('name') for link in robot.findall('link')}
    children = [j.find('child').get('link') for j in robot.findall('joint')]
    assert len(children) == len(set(children)) == len(links) - 1
    assert links - set(children) == {ROOT_LINK}
    assert not links & set(BLOCKS)
    assert any(link.find('visual') is not None for link in robot.findall('link'))


def test_only_robots_that_tell_joints_by_name_are_described():
    assert 'fr3_joint1' in description({'robot': 'single_arm', 'arm_model': 'fr3'})
    assert 'shoulder_pan_joint' in description({'robot': 'single_arm', 'arm_model': 'ur5e'})
    assert 'follower_left/waist' in description({'robot': 'dual_arm'})
    assert description({'robot': 'r1_lite', 'dialect': 'vendor'}) == ''
