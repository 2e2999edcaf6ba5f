"""The compiled model against the published kinematics of the R1 Lite, and honest grasping."""

import mujoco
import numpy as np
import pytest

from faster_core.sim import R1LiteSim, scene
from faster_core.sim.expert import Expert

SIDES = ('left', 'right')
# Published (simulator URDF): joint -> axis, lower, upper (rad; fingers m).
ARM_JOINTS = {
    'joint1': ((0, 0, 1), -2.880, 2.880),
    'joint2': ((0, 1, 0), 0.0, 3.142),
    'joint3': ((0, 1, 0), -3.316, 0.0),
    'joint4': ((0, 1, 0), -1.571, 1.571),
    'joint5': ((0, 0, 1), -1.571, 1.571),
    'joint6': ((1, 0, 0), -2.880, 2.880),
}
TORSO_JOINTS = {
    'torso_joint1': ((0, 1, 0), -1.571, 0.436),
    'torso_joint2': ((0, 1, 0), -2.705, 2.705),
    'torso_joint3': ((0, -1, 0), -1.571, 1.571),
}
# Published: body -> its origin in the parent link, m.
ARM_LINKS = {
    'link1': (0.0, 0.0, 0.086),
    'link2': (0.0, 0.031, 0.049),
    'link3': (-0.3, 0.0, 0.0),
    'link4': (0.175, 0.0, 0.076),
    'link5': (0.08, -0.032, 0.041),
    'link6': (0.023, 0.0315, -0.041),
    'hand': (0.082, 0.0, 0.0),
}


@pytest.fixture(scope='module')
def sim():
    return R1LiteSim()


def _check_joint(model, name, axis, lower, upper):
    joint = model.joint(name)
    assert joint.type[0] == mujoco.mjtJoint.mjJNT_HINGE
    assert joint.axis.tolist() == list(axis)
    assert model.jnt_limited[joint.id]
    assert joint.range == pytest.approx([lower, upper], abs=1e-3)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', ARM_JOINTS)
def test_arm_joints_have_the_published_axes_and_limits(sim, side, name):
    _check_joint(sim.model, f'{side}_{name}', *ARM_JOINTS[name])


@pytest.mark.parametrize('name', TORSO_JOINTS)
def test_torso_joints_have_the_published_axes_and_limits(sim, name):
    _check_joint(sim.model, name, *TORSO_JOINTS[name])


@pytest.mark.parametrize('side', SIDES)
def test_fingers_slide_five_centimetres_each(sim, side):
    for finger in ('finger1', 'finger2'):
        joint = sim.model.joint(f'{side}_{finger}')
        assert joint.type[0] == mujoco.mjtJoint.mjJNT_SLIDE
        assert joint.range == pytest.approx([0.0, 0.05])


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', ARM_LINKS)
def test_arm_links_have_the_published_offsets(sim, side, name):
    body = sim.model.body(f'{side}_{name}')
    assert body.pos == pytest.approx(ARM_LINKS[name], abs=1e-3)
    assert body.quat == pytest.approx([1, 0, 0, 0])


def test_torso_links_are_35_cm_and_the_arms_stand_33_5_cm_off_the_middle(sim):
    for name in ('torso_link2', 'torso_link3'):
        assert sim.model.body(name).pos == pytest.approx([0, 0, 0.35])
    for side, sign in zip(SIDES, (1, -1), strict=True):
        shoulder = sim.model.body(f'{side}_shoulder')
        assert sim.model.body(shoulder.parentid[0]).name == 'torso_link3'
        assert shoulder.pos == pytest.approx([0, sign * 0.335, 0.123], abs=1e-3)


def test_stretched_robot_is_as_high_as_the_published_one(sim):
    data = mujoco.MjData(sim.model)
    mujoco.mj_kinematics(sim.model, data)
    camera = sim.model.camera('head').id
    mujoco.mj_camlight(sim.model, data)
    assert 1.15 < data.cam_xpos[camera][2] < 1.28


def test_only_constraint_is_that_the_two_fingers_of_a_hand_move_together(sim):
    model = sim.model
    assert model.eq_type.tolist() == [mujoco.mjtEq.mjEQ_JOINT] * 2
    pairs = {
        tuple(sorted(model.joint(j).name for j in pair))
        for pair in zip(model.eq_obj1id, model.eq_obj2id, strict=True)
    }
    assert pairs == {(f'{side}_finger1', f'{side}_finger2') for side in SIDES}
    assert model.ntendon == 0


def _pick(sim, steps=120):
    expert = Expert(sim)
    command = expert.initial_command()
    for _ in range(steps):
        if sim.succeeded():
            return command
        following = expert.next_command(command)
        sim.glide(command, following, sim.embodiment.step_period)
        command = following
    return command


def test_hand_whose_fingers_touch_nothing_lifts_nothing():
    # The grasp is contact: without it the same expert closes its hand on the block in vain.
    sim = R1LiteSim()
    for side in SIDES:
        for geom in ('finger1', 'finger2', 'palm'):
            sim.model.geom(f'{side}_{geom}').contype = 0
            sim.model.geom(f'{side}_{geom}').conaffinity = 0
    sim.reset(0, 'pick_red')
    start = sim.world_state()['red_block'][0]
    _pick(sim)
    assert not sim.success()
    assert np.linalg.norm(sim.world_state()['red_block'][0] - start) < 0.005


def test_grasped_block_falls_when_the_hand_opens(sim):
    sim.reset(0, 'pick_red')
    _pick(sim)
    assert sim.succeeded()
    held = sim.world_state()['red_block'][0]
    assert held[2] > scene.TABLE_TOP + scene.BLOCK_HALF[2] + 0.05
    for side in SIDES:
        sim.set_command(f'{side}_gripper', [0.1])
    for _ in range(50):
        sim.step(0.02)
    assert not sim.success()
    assert sim.world_state()['red_block'][0][2] < scene.TABLE_TOP + 0.05


def test_grasped_block_follows_the_base_without_slipping_out(sim):
    sim.reset(0, 'pick_red')
    _pick(sim)
    state = sim.world_state()
    side = min(SIDES, key=lambda s: np.linalg.norm(state[f'{s}_hand'][0] - state['red_block'][0]))
    before = state['red_block'][0] - state[f'{side}_hand'][0]
    sim.set_command('base', [-0.1, 0.0, 0.0])
    for _ in range(50):
        sim.step(0.02)
    state = sim.world_state()
    after = state['red_block'][0] - state[f'{side}_hand'][0]
    assert np.linalg.norm(after - before) < 0.01
    assert sim.success()
