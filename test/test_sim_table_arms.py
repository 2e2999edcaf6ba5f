"""The single arm and the dual arm in simulation: kinematics, limits, scene, cameras."""

import numpy as np
import pytest

pytest.importorskip('mujoco')

from faster_core.errors import ConfigError
from faster_core.sim.robot import make_robot, PartKind, ROBOTS
from faster_core.sim.table_arms import BLOCK_DISTANCE, BLOCKS, DualArmSim, SingleArmSim

# Published Denavit-Hartenberg parameters (a, d, alpha): Franka's in Craig's convention, Universal
# Robots' in the standard one.
FR3_DH = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
UR5E_DH = (
    (0.0, 0.1625, np.pi / 2),
    (-0.425, 0.0, 0.0),
    (-0.3922, 0.0, 0.0),
    (0.0, 0.1333, np.pi / 2),
    (0.0, 0.0997, -np.pi / 2),
    (0.0, 0.0996, 0.0),
)
# Published joints: where one is in the link before it (x, y, z, roll), its axis, its range.
PI = np.pi
XARM7 = (
    ((0.0, 0.0, 0.267, 0.0), 'z', (-2 * PI, 2 * PI)),
    ((0.0, 0.0, 0.0, -PI / 2), 'z', (-2.059, 2.0944)),
    ((0.0, -0.293, 0.0, PI / 2), 'z', (-2 * PI, 2 * PI)),
    ((0.0525, 0.0, 0.0, PI / 2), 'z', (-0.19198, 3.927)),
    ((0.0775, -0.3425, 0.0, PI / 2), 'z', (-2 * PI, 2 * PI)),
    ((0.0, 0.0, 0.0, PI / 2), 'z', (-1.69297, PI)),
    ((0.076, 0.097, 0.0, -PI / 2), 'z', (-2 * PI, 2 * PI)),
)
WXAI = (
    ((0.0, 0.0, 0.05725, 0.0), 'z', (-3.05433, 3.05433)),
    ((0.02, 0.0, 0.04625, 0.0), 'y', (0.0, PI)),
    ((-0.264, 0.0, 0.0, 0.0), '-y', (0.0, 2.35619)),
    ((0.245, 0.0, 0.06, 0.0), '-y', (-PI / 2, PI / 2)),
    ((0.06775, 0.0, 0.0455, 0.0), '-z', (-PI / 2, PI / 2)),
    ((0.02895, 0.0, -0.0455, 0.0), 'x', (-PI, PI)),
)
SIMS = {
    'fr3': lambda: SingleArmSim('fr3'),
    'ur5e': lambda: SingleArmSim('ur5e'),
    'xarm7': lambda: SingleArmSim('xarm7'),
    'vx300s': lambda: DualArmSim('vx300s'),
    'wxai': lambda: DualArmSim('wxai'),
}


@pytest.fixture(scope='module', params=SIMS)
def arm_model(request):
    return request.param


@pytest.fixture(scope='module')
def any_sim(arm_model):
    made = SIMS[arm_model]()
    yield made
    made.close()


@pytest.fixture
def sim(any_sim):
    any_sim.reset(0)
    return any_sim


def rotation(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)]['xyz'.index(axis)]
    found = np.eye(4)
    found[i, i] = found[j, j] = c
    found[i, j], found[j, i] = -s, s
    return found


def shift(x=0.0, y=0.0, z=0.0):
    found = np.eye(4)
    found[:3, 3] = [x, y, z]
    return found


def arms_of(sim):
    return [p for p in sim.parts if p.kind is PartKind.JOINTS]


@pytest.mark.parametrize(
    'q', [np.zeros(7), np.array([0.3, -0.5, 0.7, -1.9, 0.4, 1.8, -0.6])], ids=['zero', 'bent']
)
def test_the_fr3s_flange_is_where_the_dh_parameters_put_it(q):
    sim = SingleArmSim('fr3')
    sim.data.qpos[sim._rows['arm'][0]] = q
    sim.show(sim.pose())
    pose = np.eye(4)
    for angle, (a, d, alpha) in zip(q, FR3_DH, strict=True):
        pose = pose @ rotation('x', alpha) @ shift(x=a) @ rotation('z', angle) @ shift(z=d)
    hand = pose @ shift(z=0.107) @ rotation('z', -np.pi / 4)
    np.testing.assert_allclose(sim.data.body('hand').xpos, hand[:3, 3], atol=1e-5)
    np.testing.assert_allclose(sim.data.body('hand').xmat.reshape(3, 3), hand[:3, :3], atol=1e-5)


@pytest.mark.parametrize(
    'q', [np.zeros(6), np.array([0.3, -1.2, 1.4, -1.9, -1.1, 0.6])], ids=['zero', 'bent']
)
def test_the_ur5es_flange_is_where_the_dh_parameters_put_it(q):
    sim = SingleArmSim('ur5e')
    sim.data.qpos[sim._rows['arm'][0]] = q
    sim.show(sim.pose())
    pose = rotation('z', np.pi)
    for angle, (a, d, alpha) in zip(q, UR5E_DH, strict=True):
        pose = pose @ rotation('z', angle) @ shift(z=d) @ shift(x=a) @ rotation('x', alpha)
    np.testing.assert_allclose(sim.data.body('hand').xpos, pose[:3, 3], atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'joints', 'tip'),
    [('xarm7', XARM7, shift(z=0.172)), ('wxai', WXAI, shift(x=0.156062))],
)
def test_tips_are_where_the_published_frames_put_them(name, joints, tip):
    sim, rng = SIMS[name](), np.random.default_rng(0)
    for arm in arms_of(sim):
        prefix = arm.name.removesuffix('arm')
        start = sim.model.body(f'{prefix}link0').id
        for _ in range(20):
            q = rng.uniform(*np.transpose([r for _, _, r in joints]))
            sim.data.qpos[sim._rows[arm.name][0]] = q
            sim.show(sim.pose())
            pose = np.eye(4)
            pose[:3, 3] = sim.data.xpos[start]
            pose[:3, :3] = sim.data.xmat[start].reshape(3, 3)
            for angle, ((*xyz, roll), axis, _) in zip(q, joints, strict=True):
                turn = rotation(axis[-1], -angle if axis[0] == '-' else angle)
                pose = pose @ shift(*xyz) @ rotation('x', roll) @ turn
            found, expected = sim.data.site(f'{prefix}tcp'), pose @ tip
            np.testing.assert_allclose(found.xpos, expected[:3, 3], atol=1e-6)
            np.testing.assert_allclose(found.xmat.reshape(3, 3), expected[:3, :3], atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'joints', 'stroke'), [('xarm7', XARM7, 0.0425), ('wxai', WXAI, 0.044)]
)
def test_joints_and_fingers_have_the_published_ranges(name, joints, stroke):
    sim = SIMS[name]()
    for part in sim.parts:
        expected = [r for *_, r in joints] if part.kind is PartKind.JOINTS else [(0.0, stroke)]
        for joint, limits in zip(part.model_joints, expected, strict=True):
            np.testing.assert_allclose(sim.model.joint(joint).range, limits, atol=1e-4)


def test_the_xarm7s_gripper_points_down_at_home():
    sim = SingleArmSim('xarm7')
    np.testing.assert_allclose(sim.data.body('hand').xmat[[2, 5, 8]], [0, 0, -1], atol=1e-6)


@pytest.mark.parametrize('name', ['vx300s', 'wxai'])
def test_two_arms_face_each_other_and_their_hands_stay_apart(name):
    sim = DualArmSim(name)
    left, right = (sim.data.body(f'{s}_hand').xpos for s in ('left', 'right'))
    assert left[1] > 0.1 and right[1] < -0.1
    np.testing.assert_allclose(left * [1, -1, 1], right, atol=1e-6)


def test_joints_follow_their_set_points_and_stay_there(sim):
    for part in sim.parts:
        start, _ = sim.joint_feedback(part.name)
        offset = -0.01 if part.kind is PartKind.GRIPPER else 0.2
        sim.set_positions(part.name, start + offset)
    before = {p.name: sim.joint_feedback(p.name)[0] for p in sim.parts}
    sim.step(1.5)
    for part in sim.parts:
        position, velocity = sim.joint_feedback(part.name)
        offset = -0.01 if part.kind is PartKind.GRIPPER else 0.2
        tolerance = 1e-3 if part.kind is PartKind.GRIPPER else 0.01
        np.testing.assert_allclose(position - before[part.name], offset, atol=tolerance)
        assert np.abs(velocity).max() < 0.02


def test_gravity_does_not_pull_the_arms_down(sim):
    before = {p.name: sim.joint_feedback(p.name)[0] for p in sim.parts}
    sim.step(2.0)
    for name, position in before.items():
        np.testing.assert_allclose(sim.joint_feedback(name)[0], position, atol=2e-3)


def test_a_set_point_beyond_the_limits_is_carried_out_up_to_them(sim):
    for part in arms_of(sim):
        count = len(part.joints)
        sim.set_positions(part.name, np.full(count, 100.0))
        rows = sim._rows[part.name]
        sim.step(0.01)
        limits = sim.model.actuator_ctrlrange[rows[2]]
        assert (np.abs(limits) < 7.0).all() and (limits[:, 0] < limits[:, 1]).all()
        assert sim.model.actuator_ctrllimited[rows[2]].all()


def test_wrong_commands_are_refused_by_name(sim):
    name, count = sim.parts[0].name, len(sim.parts[0].joints)
    with pytest.raises(ValueError, match=f'{name}: expected {count} finite values'):
        sim.set_positions(name, np.zeros(count + 1))
    with pytest.raises(ValueError, match='finite'):
        sim.set_positions(name, np.full(count, np.nan))
    with pytest.raises(ValueError, match=r'unknown part .*leg.*known: '):
        sim.set_positions('leg', np.zeros(1))
    with pytest.raises(ValueError, match='this robot has none'):
        sim.set_base_speed(np.zeros(3))
    with pytest.raises(KeyError, match='has none'):
        sim.reset(0, 'pick_red')


def test_a_seed_decides_where_the_blocks_are(sim):
    def places(seed):
        sim.reset(seed)
        return np.array([sim.world_state()[b][0] for b in BLOCKS])

    first, second = places(1), places(2)
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(places(1), first)
    for seed in range(20):
        xy = places(seed)[:, :2]
        gaps = [np.linalg.norm(xy[i] - xy[j]) for i in range(3) for j in range(i)]
        assert min(gaps) >= BLOCK_DISTANCE


def test_blocks_rest_on_the_table(sim):
    before = sim.world_state()
    sim.step(1.0)
    for block in BLOCKS:
        np.testing.assert_allclose(sim.world_state()[block][0], before[block][0], atol=2e-3)


def test_every_camera_sees_the_table_and_all_together_every_block(sim):
    seen = np.zeros(3, dtype=bool)
    for camera in sim.cameras:
        image = sim.render(camera, (160, 120)).astype(int)
        assert image.shape == (120, 160, 3)
        assert image.std() > 10.0, camera
        for channel in range(3):
            others = np.delete(image, channel, axis=2).max(axis=2)
            seen[channel] |= ((image[..., channel] - others) > 60).sum() > 5
    assert seen.all()


def test_a_pose_can_be_shown_by_another_simulator(any_sim, arm_model):
    any_sim.reset(3)
    twin = SIMS[arm_model]()
    try:
        twin.show(any_sim.pose())
        camera = any_sim.cameras[0]
        np.testing.assert_array_equal(twin.render(camera, 64), any_sim.render(camera, 64))
    finally:
        twin.close()


def test_the_same_commands_give_the_same_motion(sim):
    def motion():
        sim.reset(5)
        sim.set_positions(sim.parts[0].name, sim.joint_feedback(sim.parts[0].name)[0] + 0.1)
        for _ in range(7):
            sim.step(0.005)  # two and a half steps of physics
        return sim.pose()

    first = motion()
    np.testing.assert_array_equal(motion(), first)
    assert sim.time == pytest.approx(0.036, abs=0.002)


def test_robots_are_made_by_name_and_unknown_ones_refused():
    for name in ROBOTS:
        robot = make_robot(name)
        assert robot.parts and robot.cameras and robot.seed == 0
        assert not robot.succeeded()
    with pytest.raises(ConfigError, match="r1_lite, single_arm, dual_arm, found 'hexapod'"):
        make_robot('hexapod')
    for name, arm, message in (
        ('single_arm', 'wxai', "fr3, ur5e, xarm7, found 'wxai'"),
        ('dual_arm', 'fr3', "vx300s, wxai, found 'fr3'"),
        ('r1_lite', 'fr3', "its own arms, found 'fr3'"),
    ):
        with pytest.raises(ConfigError, match=f'arm_model: .*{message}'):
            make_robot(name, arm_model=arm)


def test_the_r1_lites_torso_can_be_set_by_its_joints():
    robot = make_robot('r1_lite')
    start, _ = robot.joint_feedback('torso')
    assert start.shape == (3,)
    robot.set_positions('torso', start + np.array([0.1, -0.1, 0.05]))
    robot.step(1.5)
    np.testing.assert_allclose(
        robot.joint_feedback('torso')[0], start + np.array([0.1, -0.1, 0.05]), atol=0.01
    )
    with pytest.raises(ValueError, match='takes a speed'):
        robot.set_positions('base', np.zeros(3))
