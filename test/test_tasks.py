"""When an instruction counts as done: the right block, held, at the right height, for 1 s."""

import mujoco
import numpy as np
import pytest

from faster_core.sim import R1LiteSim, scene, TASKS
from faster_core.sim.r1_lite import SUCCESS_HOLD
from faster_core.sim.tasks import scene_task, task_of_instruction

PICKS = {
    'red_block': 'pick_red',
    'blue_block': 'pick_blue',
    'left_green_block': 'pick_green_left',
    'right_green_block': 'pick_green_right',
}
POSTS = {'yellow_post': 'drive_yellow', 'purple_post': 'drive_purple'}
RESTING = scene.TABLE_TOP + scene.BLOCK_HALF[2]


@pytest.fixture(scope='module')
def robot():
    return R1LiteSim()


@pytest.fixture
def sim(robot):
    robot.reset(0)
    places = robot.model.body_pos.copy()
    yield robot
    robot.model.body_pos[:] = places  # `_put_into_hand` moves shoulders


def _put_into_hand(sim, block, side, height):
    """Close a hand around a block and raise both until the block is `height` above its rest."""
    for finger in (1, 2):
        sim.data.joint(f'{side}_finger{finger}').qpos = scene.BLOCK_HALF[1] - 0.0005
    mujoco.mj_kinematics(sim.model, sim.data)
    site = sim.data.site(f'{side}_tcp')
    rise = RESTING + height - site.xpos[2]
    # The whole arm is lifted at its shoulder: no inverse kinematics needed.
    up = sim.data.body('torso_link3').xmat.reshape(3, 3).T @ [0, 0, rise]
    sim.model.body(f'{side}_shoulder').pos += up
    mujoco.mj_kinematics(sim.model, sim.data)
    hand = sim.data.body(f'{side}_hand').xmat.reshape(3, 3)
    # The block's long edge lies along the hand's x axis, which points down.
    axes = np.column_stack([hand[:, 2], hand[:, 1], -hand[:, 0]])
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, axes.ravel())
    sim.data.joint(block).qpos = np.concatenate([site.xpos, quaternion])
    mujoco.mj_forward(sim.model, sim.data)


def _lift(sim, block, height):
    """Let a block hang in the air."""
    sim.data.joint(block).qpos[2] = RESTING + height
    mujoco.mj_forward(sim.model, sim.data)


def _drive(sim, y, speed=0.0):
    sim.data.joint('base_y').qpos = y
    sim.data.joint('base_y').qvel = speed
    mujoco.mj_forward(sim.model, sim.data)


def _done(sim):
    """Return the tasks whose predicate holds right now."""
    return {name for name, task in TASKS.items() if task.predicate(sim)}


def test_at_the_start_no_task_is_done_in_any_of_100_scenes(sim):
    for seed in range(100):
        sim.reset(seed)
        assert _done(sim) == set(), seed


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('block', PICKS)
def test_block_held_above_the_table_is_its_own_task_and_no_other(sim, block, side):
    _put_into_hand(sim, block, side, 0.11)
    assert _done(sim) == {PICKS[block]}


@pytest.mark.parametrize(
    ('height', 'done'),
    [
        (0.02, set()),
        (0.06, {'pick_red'}),
        (0.16, {'pick_red'}),
        (0.19, set()),
        (0.22, {'raise_red'}),
        (0.30, {'raise_red'}),
    ],
)
def test_picking_up_and_raising_high_exclude_each_other_by_height(sim, height, done):
    _put_into_hand(sim, 'red_block', 'left', height)
    assert _done(sim) == done


@pytest.mark.parametrize('height', [0.11, 0.25])
def test_block_in_the_air_without_a_hand_is_not_held(sim, height):
    _lift(sim, 'red_block', height)
    assert _done(sim) == set()


def test_block_touched_by_one_finger_is_not_held(sim):
    _put_into_hand(sim, 'red_block', 'left', 0.11)
    assert _done(sim) == {'pick_red'}
    sim.data.joint('left_finger2').qpos = 0.05
    mujoco.mj_forward(sim.model, sim.data)
    assert _done(sim) == set()


@pytest.mark.parametrize(('height', 'task'), [(0.11, 'pick_red'), (0.25, 'raise_red')])
def test_lifting_two_blocks_is_no_success(sim, height, task):
    _put_into_hand(sim, 'red_block', 'left', height)
    assert _done(sim) == {task}
    _put_into_hand(sim, 'blue_block', 'right', 0.11)
    assert _done(sim) == set()
    _lift(sim, 'blue_block', 0.0)
    assert _done(sim) == {task}


def test_knocking_another_block_off_the_table_is_no_success(sim):
    _put_into_hand(sim, 'red_block', 'left', 0.11)
    assert _done(sim) == {'pick_red'}
    _lift(sim, 'blue_block', -scene.TABLE_TOP)
    assert _done(sim) == set()
    _drive(sim, sim.data.body('yellow_post').xpos[1])
    assert _done(sim) == set()


@pytest.mark.parametrize('post', POSTS)
def test_base_standing_at_a_post_is_that_posts_task_only(sim, post):
    y = sim.data.body(post).xpos[1]
    _drive(sim, y)
    assert _done(sim) == {POSTS[post]}
    for offset in (0.06, -0.06):
        _drive(sim, y + offset)
        assert _done(sim) == {POSTS[post]}
    for offset in (0.08, -0.08):
        _drive(sim, y + offset)
        assert _done(sim) == set()


def test_driving_past_a_post_is_not_arriving(sim):
    y = sim.data.body('yellow_post').xpos[1]
    _drive(sim, y, speed=0.1)
    assert _done(sim) == set()
    _drive(sim, y, speed=0.02)
    assert _done(sim) == {'drive_yellow'}


def _run(sim, seconds):
    for _ in range(round(seconds / 0.02)):
        sim.step(0.02)


def test_success_must_hold_for_one_second(sim):
    sim.reset(0, 'drive_yellow')
    _drive(sim, sim.data.body('yellow_post').xpos[1])
    _run(sim, 0.9)
    assert sim.success()
    assert not sim.succeeded()
    _run(sim, 0.2)
    assert sim.succeeded()
    assert SUCCESS_HOLD == 1.0


def test_break_in_success_starts_the_second_again(sim):
    sim.reset(0, 'drive_yellow')
    y = sim.data.body('yellow_post').xpos[1]
    _drive(sim, y)
    _run(sim, 0.8)
    _drive(sim, 0.0)
    _run(sim, 0.02)
    _drive(sim, y)
    _run(sim, 0.8)
    assert not sim.succeeded()
    _run(sim, 0.3)
    assert sim.succeeded()


def test_success_of_one_task_is_forgotten_when_another_is_asked_or_the_scene_is_reset(sim):
    sim.reset(0, 'drive_yellow')
    _drive(sim, sim.data.body('yellow_post').xpos[1])
    _run(sim, 1.1)
    assert sim.succeeded()
    sim.ask('drive_purple')
    assert not sim.succeeded()
    sim.ask('drive_yellow')
    assert not sim.succeeded()
    _run(sim, 1.1)
    assert sim.succeeded()
    sim.reset(0, 'drive_yellow')
    assert not sim.succeeded()


def test_asking_for_another_task_moves_nothing(sim):
    before = sim.data.qpos.copy()
    sim.ask('pick_blue')
    assert sim.instruction == 'pick up the blue block'
    assert np.array_equal(sim.data.qpos, before)


def test_seven_different_instructions_about_things_that_exist():
    assert len(TASKS) == 7
    assert len({task.instruction for task in TASKS.values()}) == 7
    assert {task.target for task in TASKS.values()} == set(scene.BLOCKS) | set(scene.POSTS)
    assert all(name == task.name for name, task in TASKS.items())


@pytest.mark.parametrize('task', TASKS.values(), ids=TASKS)
def test_instruction_finds_its_task_whatever_case_and_spaces(task):
    assert task_of_instruction(task.instruction) is task
    assert task_of_instruction(f'  {task.instruction.upper().replace(" ", "   ")}\n') is task


@pytest.mark.parametrize('text', ['', 'pick up the', 'pick up the red block please', 'jump'])
def test_other_instructions_find_no_task(text):
    assert task_of_instruction(text) is None


def test_scenes_without_a_task_take_all_tasks_in_turn(sim):
    assert [scene_task(seed).name for seed in range(7)] == list(TASKS)
    sim.reset(5)
    assert sim.task is scene_task(5)
    assert scene_task(5) is scene_task(12)
