"""The scripted expert solves every task, from disturbed states too, and keeps no secrets."""

import mujoco
import numpy as np
import pytest

from faster_core.sim import R1LiteSim, scene, TASKS
from faster_core.sim.expert import Expert

SIDES = ('left', 'right')
PICKS = [name for name, task in TASKS.items() if task.motion != 'drive']


@pytest.fixture(scope='module')
def sim():
    return R1LiteSim()


def _solve(sim, seed, task, disturb=None, steps=180):
    """Let the expert work; `disturb` maps a step to what happens to the world before it.

    Returns the commanded set-points [T, D], or None without success.
    """
    sim.reset(seed, task)
    expert = Expert(sim)
    command = expert.initial_command()
    commands = [command]
    for t in range(steps):
        if disturb and t in disturb:
            disturb[t](sim, command)
        following = expert.next_command(command)
        sim.glide(command, following, sim.embodiment.step_period)
        command = following
        commands.append(command)
        if sim.succeeded():
            return np.array(commands)
    return None


def _change(sim, joint, index, delta):
    sim.data.joint(joint).qpos[index] += delta
    mujoco.mj_forward(sim.model, sim.data)


@pytest.mark.parametrize('seed', [1, 2])
@pytest.mark.parametrize('task', TASKS)
def test_expert_solves_the_task_within_twelve_seconds(sim, task, seed):
    assert _solve(sim, seed, task) is not None
    assert sim.time < 12.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_expert_solves_at_least_95_percent_of_20_scenes_of_every_task(sim):
    solved = {task: sum(_solve(sim, s, task) is not None for s in range(20)) for task in TASKS}
    assert sum(solved.values()) >= 0.95 * 20 * len(TASKS), solved
    assert min(solved.values()) >= 18, solved


@pytest.mark.parametrize('side', SIDES)
def test_hand_that_was_named_works_and_the_other_one_rests(sim, side):
    commands = _solve(sim, 4, f'pick_green_{side}')
    slices = sim.embodiment.action_slices
    other = 'right' if side == 'left' else 'left'
    assert commands[:, slices[f'{side}_gripper']].min() < 0.05
    assert commands[:, slices[f'{other}_gripper']].min() == pytest.approx(scene.GRIPPER_OPEN)
    resting = commands[:, slices[f'{other}_arm']] - scene.ARM_HOME[other]
    assert np.abs(resting).max() < 0.05


def test_only_the_raise_task_needs_the_torso_and_only_driving_the_base(sim):
    slices = sim.embodiment.action_slices
    moved = {}
    for task in TASKS:
        commands = _solve(sim, 2, task)
        moved[task] = tuple(np.abs(commands[:, slices[c]]).max() > 0.03 for c in ('torso', 'base'))
    for task, (torso, base) in moved.items():
        motion = TASKS[task].motion
        assert (torso, base) == (motion == 'raise', motion == 'drive'), task


def test_block_that_is_moved_while_the_hand_reaches_is_followed(sim):
    def move(sim, _):
        _change(sim, 'red_block', 0, -0.04)
        _change(sim, 'red_block', 1, -0.05 * np.sign(sim.data.joint('red_block').qpos[1]))

    assert _solve(sim, 1, 'pick_red', {18: move}) is not None


def test_block_that_is_taken_out_of_the_hand_is_grasped_again(sim):
    lost = []

    def take(sim, _):
        lost.append(sim.success())
        joint = sim.data.joint('red_block')
        joint.qpos[:2] += [0.03, 0.05]
        joint.qpos[2] = scene.TABLE_TOP + scene.BLOCK_HALF[2]
        joint.qpos[3:] = [1, 0, 0, 0]
        joint.qvel[:] = 0
        mujoco.mj_forward(sim.model, sim.data)

    assert _solve(sim, 1, 'pick_red') is not None
    while_lifting = round((sim.time - 0.9) * 15)
    assert _solve(sim, 1, 'pick_red', {while_lifting: take}) is not None
    assert lost == [True]
    assert sim.time > while_lifting / 15 + 1.5


def test_arm_that_is_pushed_off_its_way_recovers(sim):
    def push(sim, command):
        for side in SIDES:
            command[sim.embodiment.action_slices[f'{side}_arm']] += 0.15

    assert _solve(sim, 2, 'pick_blue', {10: push, 25: push}) is not None


def test_base_that_is_pushed_away_comes_back_before_the_hand_reaches_out(sim):
    def push(sim, _):
        _change(sim, 'base_y', 0, 0.3)

    commands = _solve(sim, 3, 'pick_red', {5: push})
    assert commands is not None
    assert abs(sim.feedback('base')[0][1]) < 0.08


def test_change_of_mind_in_mid_motion_is_carried_out(sim):
    def ask(sim, _):
        sim.ask('drive_purple')

    assert _solve(sim, 2, 'pick_red', {25: ask}) is not None
    assert TASKS['drive_purple'].predicate(sim)
    assert not TASKS['pick_red'].predicate(sim)


@pytest.mark.parametrize('task', ['pick_red', 'raise_red', 'drive_yellow'])
def test_expert_is_a_function_of_the_world_and_changes_nothing_in_it(sim, task):
    sim.reset(2, task)
    expert = Expert(sim)
    command = expert.initial_command()
    for _ in range(20):
        before = np.concatenate([sim.data.qpos, sim.data.qvel, sim.data.ctrl])
        asked = command.copy()
        following = expert.next_command(command)
        assert np.array_equal(expert.next_command(command), following)
        assert np.array_equal(Expert(sim).next_command(command), following)
        assert np.array_equal(command, asked)
        assert np.array_equal(
            np.concatenate([sim.data.qpos, sim.data.qvel, sim.data.ctrl]), before
        )
        sim.glide(command, following, sim.embodiment.step_period)
        command = following


def test_deluded_expert_lifts_an_empty_hand(sim):
    sim.reset(2, 'pick_red')
    deluded = Expert(sim, np.array([0.0, 0.0, 0.06]))
    command = deluded.initial_command()
    block = sim.data.body('red_block').xpos.copy()
    for _ in range(75):
        following = deluded.next_command(command)
        sim.glide(command, following, sim.embodiment.step_period)
        command = following
    side = 'left' if sim.feedback('left_gripper')[0][0] < 0.05 else 'right'
    assert sim.feedback(f'{side}_gripper')[0][0] < 0.01
    assert sim.data.site(f'{side}_tcp').xpos[2] > block[2] + 0.09
    assert np.abs(sim.data.body('red_block').xpos - block).max() < 0.01


def test_first_command_keeps_the_robot_where_it_is(sim):
    sim.reset(6, 'pick_red')
    command = Expert(sim).initial_command()
    before = sim.state()
    sim.glide(command, command, 1.0)
    assert np.abs(sim.state() - before).max() < 2e-3
