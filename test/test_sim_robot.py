"""The simulated robot: SI commands in, feedback and images out, nothing about objects."""

import mujoco
import numpy as np
import pytest

from faster_core.sim import R1LiteSim, scene, TASKS

SIDES = ('left', 'right')


@pytest.fixture(scope='module')
def robot():
    sim = R1LiteSim()
    yield sim
    sim.close()


@pytest.fixture
def sim(robot):
    robot.reset(0, 'pick_red')
    return robot


def _run(sim, seconds):
    for _ in range(round(seconds / 0.02)):
        sim.step(0.02)


def _stand_at(sim, x=0.0, y=0.0, yaw=0.0):
    for name, value in (('x', x), ('y', y), ('yaw', yaw)):
        sim.data.joint(f'base_{name}').qpos = value
    mujoco.mj_forward(sim.model, sim.data)


def _upper_body(sim):
    """Return x, z (m) and pitch (rad) of torso link 3 in base_link, from the body poses."""
    base, link = sim.data.body('base_link'), sim.data.body('torso_link3')
    rotation = base.xmat.reshape(3, 3).T
    offset = rotation @ (link.xpos - base.xpos)
    forward = rotation @ link.xmat.reshape(3, 3)[:, 0]
    return np.array([offset[0], offset[2], np.arctan2(-forward[2], forward[0])])


def test_same_seed_and_commands_give_the_same_states_to_the_last_bit():
    trails = []
    for _ in range(2):
        sim = R1LiteSim()
        sim.reset(7, 'drive_yellow')
        rng = np.random.default_rng(0)
        trail = []
        for _ in range(15):
            sim.set_command('base', rng.uniform(-0.2, 0.2, 3))
            sim.set_command('torso', rng.uniform(-0.05, 0.05, 4))
            sim.set_command('left_arm', scene.ARM_HOME['left'] + rng.uniform(-0.1, 0.1, 6))
            sim.step(0.066)
            trail.append(np.concatenate([sim.state(), sim.data.qpos]))
        trails.append(np.array(trail))
    assert np.array_equal(trails[0], trails[1])


def test_state_is_the_embodiments_21_values_in_order(sim):
    state, slices = sim.state(), sim.embodiment.state_slices
    assert state.shape == (21,)
    for side in SIDES:
        angles = [sim.data.joint(f'{side}_joint{i}').qpos[0] for i in range(1, 7)]
        assert state[slices[f'{side}_arm']].tolist() == angles
        assert state[slices[f'{side}_gripper']] == pytest.approx([0.1])
    torso = [sim.data.joint(f'torso_joint{i}').qpos[0] for i in (1, 2, 3)]
    assert state[slices['torso']].tolist() == [*torso, 0.0]
    assert state[slices['base']].tolist() == [0.0, 0.0, 0.0]


def test_state_says_nothing_about_objects_or_task(sim):
    before = sim.state()
    for name in scene.BLOCKS:
        sim.data.joint(name).qpos[:3] += [0.05, -0.08, 0.3]
    sim.data.mocap_pos[:, 1] += 0.1
    mujoco.mj_forward(sim.model, sim.data)
    for task in TASKS:
        sim.ask(task)
        assert np.array_equal(sim.state(), before)


def test_base_position_in_the_world_is_no_part_of_the_state(sim):
    # The vendor's chassis feedback used by the policy is velocity only.
    before = sim.state()
    _stand_at(sim, 0.3, -0.2, 0.5)
    assert np.array_equal(sim.state(), before)


@pytest.mark.parametrize(
    ('component', 'values'),
    [
        ('left_arm', np.zeros(5)),
        ('left_arm', np.zeros(7)),
        ('left_arm', np.zeros((1, 6))),
        ('left_gripper', 0.05),
        ('torso', np.zeros(3)),
        ('base', [0.1, 0.0, np.nan]),
        ('torso', [0.0, 0.0, 0.0, np.nan]),
        ('right_arm', [0.0, np.inf, 0.0, 0.0, 0.0, 0.0]),
        ('right_gripper', ['wide']),
    ],
)
def test_command_of_wrong_size_or_not_finite_is_refused_and_changes_nothing(
    sim, component, values
):
    before = sim.data.ctrl.copy()
    with pytest.raises(ValueError):
        sim.set_command(component, values)
    assert np.array_equal(sim.data.ctrl, before)
    _run(sim, 0.1)
    assert np.abs(sim.feedback('base')[1]).max() < 1e-3
    assert np.isfinite(sim.state()).all()


def test_refused_command_names_component_and_size(sim):
    with pytest.raises(ValueError, match='torso: expected 4 finite values'):
        sim.set_command('torso', [0.1])
    with pytest.raises(ValueError, match=r"unknown component 'legs'; known: left_arm, .*base"):
        sim.set_command('legs', [0.1])


def test_unknown_task_names_the_known_ones_and_leaves_the_episode_alone(sim):
    for ask in (lambda: sim.reset(1, 'juggle'), lambda: sim.ask('juggle')):
        with pytest.raises(KeyError, match=r"unknown task 'juggle'; known: pick_red"):
            ask()
    assert (sim.seed, sim.task.name) == (0, 'pick_red')


@pytest.mark.parametrize(('axis', 'speed'), [(0, 0.05), (0, -0.05), (1, 0.05), (1, -0.05)])
def test_torso_speed_moves_the_upper_body_straight_and_upright(sim, axis, speed):
    start = _upper_body(sim)
    command = np.zeros(4)
    command[axis] = speed
    sim.set_command('torso', command)
    _run(sim, 1.0)
    sim.set_command('torso', np.zeros(4))
    _run(sim, 0.3)
    moved = _upper_body(sim) - start
    assert moved[axis] == pytest.approx(speed * 1.0, rel=0.05)
    assert abs(moved[1 - axis]) < 1e-3
    assert abs(moved[2]) < 2e-3


@pytest.mark.parametrize('rate', [0.15, -0.15])
def test_torso_pitch_rate_turns_the_upper_body_about_its_own_place(sim, rate):
    # REP-103: y points left, so a positive rate bows forward.
    start = _upper_body(sim)
    sim.set_command('torso', [0.0, 0.0, rate, 0.0])
    _run(sim, 1.0)
    sim.set_command('torso', np.zeros(4))
    _run(sim, 0.3)
    moved = _upper_body(sim) - start
    assert moved[2] == pytest.approx(rate, rel=0.05)
    assert np.abs(moved[:2]).max() < 1e-3


def test_torso_moves_along_the_turned_base(sim):
    _stand_at(sim, yaw=1.2)
    link = sim.data.body('torso_link3')
    start = link.xpos.copy()
    sim.set_command('torso', [0.05, 0.0, 0.0, 0.0])
    _run(sim, 1.0)
    moved = link.xpos - start
    assert np.arctan2(moved[1], moved[0]) == pytest.approx(1.2, abs=0.02)


def test_torso_yaw_rate_and_fourth_state_value_are_inert(sim):
    start = sim.data.qpos.copy()
    sim.set_command('torso', [0.0, 0.0, 0.0, 0.1])
    _run(sim, 1.0)
    assert np.abs(sim.data.qpos - start)[:6].max() < 1e-3
    position, velocity = sim.feedback('torso')
    assert (position[3], velocity[3]) == (0.0, 0.0)


def test_torso_driven_against_its_limits_stays_within_them(sim):
    sim.set_command('torso', [0.0, 0.1, 0.0, 0.0])
    _run(sim, 4.0)  # more than the stretched torso has
    assert np.isfinite(sim.state()).all()
    for i in (1, 2, 3):
        lower, upper = sim.model.joint(f'torso_joint{i}').range
        assert lower - 0.01 <= sim.data.joint(f'torso_joint{i}').qpos[0] <= upper + 0.01


@pytest.mark.parametrize('yaw', [0.0, 1.0, -2.0])
def test_base_twist_is_in_the_frame_of_the_turned_base(sim, yaw):
    _stand_at(sim, yaw=yaw)
    sim.set_command('base', [0.2, 0.1, 0.0])
    _run(sim, 0.2)
    start = sim.feedback('base')[0]
    _run(sim, 1.0)
    position, velocity = sim.feedback('base')
    moved = position - start
    expected = [0.2 * np.cos(yaw) - 0.1 * np.sin(yaw), 0.2 * np.sin(yaw) + 0.1 * np.cos(yaw)]
    assert moved[:2] == pytest.approx(expected, abs=0.005)
    assert moved[2] == pytest.approx(0.0, abs=0.005)
    assert velocity == pytest.approx([0.2, 0.1, 0.0], abs=0.005)
    assert sim.state()[sim.embodiment.state_slices['base']] == pytest.approx(velocity)


def test_base_turns_left_for_a_positive_rate_and_drives_a_circle(sim):
    _stand_at(sim)
    sim.set_command('base', [0.2, 0.0, 0.5])
    _run(sim, 2.0)
    x, y, yaw = sim.feedback('base')[0]
    assert yaw == pytest.approx(1.0, abs=0.03)
    radius = 0.2 / 0.5
    assert (x, y) == pytest.approx((radius * np.sin(1.0), radius * (1 - np.cos(1.0))), abs=0.02)


def test_gripper_set_point_is_metres_of_stroke(sim):
    fingers = [sim.data.body(f'left_finger{i}') for i in (1, 2)]
    gaps = {}
    for stroke in (0.02, 0.08):
        sim.set_command('left_gripper', [stroke])
        _run(sim, 1.0)
        assert sim.feedback('left_gripper')[0] == pytest.approx([stroke], abs=1e-3)
        gaps[stroke] = np.linalg.norm(fingers[0].xpos - fingers[1].xpos)
    assert gaps[0.08] - gaps[0.02] == pytest.approx(0.06, abs=1e-3)
    assert sim.feedback('right_gripper')[0] == pytest.approx([0.1], abs=1e-3)


@pytest.mark.parametrize(('asked', 'reached'), [(-1.0, 0.0), (0.5, 0.1)])
def test_gripper_set_point_beyond_the_stroke_stops_at_its_end(sim, asked, reached):
    sim.set_command('right_gripper', [asked])
    _run(sim, 1.0)
    assert sim.feedback('right_gripper')[0] == pytest.approx([reached], abs=1e-3)


def test_arms_follow_their_own_set_points(sim):
    goals = {side: scene.ARM_HOME[side] + [0.1, -0.1, 0.1, -0.2, 0.2, 0.2] for side in SIDES}
    for side, goal in goals.items():
        sim.set_command(f'{side}_arm', goal)
    _run(sim, 1.5)
    for side, goal in goals.items():
        position, velocity = sim.feedback(f'{side}_arm')
        assert position == pytest.approx(goal, abs=5e-3)
        assert np.abs(velocity).max() < 0.02


@pytest.mark.parametrize(('joint', 'limit'), [(4, 1.571), (4, -1.571), (6, 2.880), (6, -2.880)])
def test_wrist_joints_reach_both_ends_of_their_published_range(sim, joint, limit):
    goal = sim.feedback('left_arm')[0]
    goal[joint - 1] = limit
    sim.set_command('left_arm', goal)
    _run(sim, 2.0)
    assert sim.feedback('left_arm')[0][joint - 1] == pytest.approx(limit, abs=0.02)


def test_robot_without_commands_stays_where_it_is(sim):
    before = sim.state()
    _run(sim, 2.0)
    assert np.abs(sim.state() - before).max() < 2e-3


def test_glide_moves_set_points_gradually_and_ends_at_the_target(sim):
    slices = sim.embodiment.action_slices
    seen = []
    original = sim.set_command
    current = np.zeros(21)
    for side in SIDES:
        current[slices[f'{side}_arm']] = sim.feedback(f'{side}_arm')[0]
        current[slices[f'{side}_gripper']] = 0.1
    target = current.copy()
    target[0] += 0.06

    def spy(component, values):
        if component == 'left_arm':
            seen.append(values[0] - current[0])
        original(component, values)

    sim.set_command = spy
    try:
        sim.glide(current, target, sim.embodiment.step_period)
    finally:
        del sim.set_command
    assert seen == pytest.approx([0.02, 0.04, 0.06])


# --- landmarks --------------------------------------------------------------------------------


def test_landmarks_are_in_the_base_frame(sim):
    red = sim.data.body('red_block').xpos.copy()
    _stand_at(sim, x=0.1, y=-0.2, yaw=0.5)
    place = sim.landmarks()['red_block']
    assert place[2] == pytest.approx(red[2])
    c, s = np.cos(0.5), np.sin(0.5)
    back = np.array([c * place[0] - s * place[1] + 0.1, s * place[0] + c * place[1] - 0.2])
    assert back == pytest.approx(red[:2])


def test_hands_do_not_move_in_the_base_frame_when_the_base_moves(sim):
    before = sim.landmarks()
    _stand_at(sim, x=0.3, y=0.2, yaw=-0.4)
    after = sim.landmarks()
    start = sim.feedback('base')[0]
    assert start == pytest.approx([0.3, 0.2, -0.4])
    for side in SIDES:
        assert after[f'{side}_hand'] == pytest.approx(before[f'{side}_hand'], abs=1e-6)
    assert set(after) == {*scene.BLOCKS, *scene.POSTS, 'left_hand', 'right_hand'}


def test_periods_that_are_no_whole_number_of_physics_steps_do_not_add_up_to_an_error(sim):
    for _ in range(150):
        sim.step(1.0 / 15.0)
    assert sim.time == pytest.approx(10.0, abs=0.002)


def test_a_reset_forgets_the_carried_rest(sim):
    times = []
    for _ in range(2):
        sim.reset(0, 'pick_red')
        sim.step(0.0029)
        times.append(sim.time)
    assert times == [pytest.approx(0.002)] * 2
