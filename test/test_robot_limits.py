"""There are no simulation-only limits: expert, model and robot file agree on what is allowed."""

import numpy as np
import pytest

from faster_core.execution.config import DispatcherConfig
from faster_core.paths import share_dir
from faster_core.sim import expert, R1LiteSim, scene, TASKS
from faster_core.sim.demos import DemoConfig
from faster_core.sim.expert import Expert

SIDES = ('left', 'right')
# Published: rad/s of the arm joints that have a figure, rad/s of the torso, m/s of a finger.
MACHINE_ARM_SPEED = (10.47, 12.57, 10.47, 32.99)
MACHINE_FINGER_SPEED = 0.25


@pytest.fixture(scope='module')
def sim():
    return R1LiteSim()


@pytest.fixture(scope='module')
def limits(sim):
    path = share_dir() / 'config' / 'robots' / 'r1_lite.yaml'
    return DispatcherConfig.load(path, sim.embodiment).components


@pytest.fixture(scope='module')
def runs(sim):
    """Return the set-points [T, D] commanded by the expert, per task and seed."""
    result = {}
    for task in TASKS:
        for seed in (1, 2):
            sim.reset(seed, task)
            expert_, commands = Expert(sim), []
            command = expert_.initial_command()
            while not sim.succeeded() and len(commands) < 180:
                commands.append(command)
                following = expert_.next_command(command)
                sim.glide(command, following, sim.embodiment.step_period)
                command = following
            result[task, seed] = np.array(commands)
    return result


@pytest.mark.parametrize('task', TASKS)
def test_every_step_of_the_expert_obeys_the_speed_limits_of_the_robot_file(
    sim, limits, runs, task
):
    for seed in (1, 2):
        commands = runs[task, seed]
        assert len(commands) > 20
        for c in sim.embodiment.action:
            values = commands[:, sim.embodiment.action_slices[c.name]]
            if c.kind.is_position:
                values = np.diff(values, axis=0) / sim.embodiment.step_period
            assert (np.abs(values) <= limits[c.name].max_velocity + 1e-9).all(), (c.name, seed)


@pytest.mark.parametrize('task', TASKS)
def test_every_position_the_expert_commands_is_in_the_range_of_the_robot_file(
    sim, limits, runs, task
):
    for seed in (1, 2):
        for c in sim.embodiment.action:
            values = runs[task, seed][:, sim.embodiment.action_slices[c.name]]
            assert (values >= limits[c.name].lower).all(), (c.name, seed)
            assert (values <= limits[c.name].upper).all(), (c.name, seed)


@pytest.mark.parametrize('task', TASKS)
def test_base_and_torso_speeds_change_as_gently_as_the_robot_file_asks(sim, limits, runs, task):
    for seed in (1, 2):
        for name in ('base', 'torso'):
            speeds = runs[task, seed][:, sim.embodiment.action_slices[name]]
            change = np.abs(np.diff(speeds, axis=0)) / sim.embodiment.step_period
            assert (change <= limits[name].max_acceleration + 1e-9).all(), (name, seed)


def test_base_brakes_gently_when_the_task_is_changed_while_it_drives(sim, limits):
    sim.reset(302, 'drive_yellow')
    expert_, base = Expert(sim), sim.embodiment.action_slices['base']
    command, speeds = expert_.initial_command(), []
    for step in range(60):
        if step == 15:
            assert np.abs(command[base][1]) > 0.1
            sim.ask('pick_red')
        following = expert_.next_command(command)
        sim.glide(command, following, sim.embodiment.step_period)
        command = following
        speeds.append(command[base])
    change = np.abs(np.diff(speeds, axis=0)) / sim.embodiment.step_period
    assert (change <= limits['base'].max_acceleration + 1e-9).all()
    # It drove back before a hand reached out.
    assert np.sign(speeds[14][1]) == -np.sign(speeds[27][1]) != 0


def test_expert_moves_fast_enough_for_its_limits_to_mean_something(sim, limits, runs):
    fastest = {c.name: 0.0 for c in sim.embodiment.action}
    for commands in runs.values():
        for c in sim.embodiment.action:
            values = commands[:, sim.embodiment.action_slices[c.name]]
            if c.kind.is_position:
                values = np.diff(values, axis=0) / sim.embodiment.step_period
            share = (np.abs(values) / limits[c.name].max_velocity).max()
            fastest[c.name] = max(fastest[c.name], share)
    # float32 rounds what is exactly at a limit.
    assert all(0.4 < share < 1.0 + 1e-6 for share in fastest.values()), fastest


def test_speeds_the_expert_is_built_from_are_below_the_robot_file(limits):
    for side in SIDES:
        # A burst of noise adds to what the expert commands, and both must be executable.
        burst = DemoConfig(episodes={}).burst_speed
        assert expert.JOINT_SPEED + burst <= limits[f'{side}_arm'].max_velocity.min()
        assert expert.GRIPPER_SPEED <= limits[f'{side}_gripper'].max_velocity[0]
    assert expert.TORSO_SPEED <= limits['torso'].max_velocity.min()
    assert expert.BASE_SPEED <= limits['base'].max_velocity.min()
    assert expert.BASE_ACCELERATION <= limits['base'].max_acceleration.min()


def test_robot_file_allows_no_more_than_the_machine_can_do(limits):
    for side in SIDES:
        arm, gripper = limits[f'{side}_arm'], limits[f'{side}_gripper']
        assert (arm.max_velocity[:4] <= MACHINE_ARM_SPEED).all()
        assert gripper.max_velocity[0] <= MACHINE_FINGER_SPEED  # of 2 fingers
    # The vendor's advice for the torso.
    assert limits['torso'].max_velocity.max() <= 0.2
    # Far below the machine's 1.5 m/s and 3 rad/s.
    assert limits['base'].max_velocity.tolist() == [0.2, 0.2, 0.4]


def test_ranges_of_the_robot_file_are_those_of_the_simulated_joints(sim, limits):
    for side in SIDES:
        ranges = np.array([sim.model.joint(f'{side}_joint{i}').range for i in range(1, 7)])
        arm = limits[f'{side}_arm']
        assert np.abs(np.column_stack([arm.lower, arm.upper]) - ranges).max() < 1e-3
        gripper = limits[f'{side}_gripper']
        assert (gripper.lower[0], gripper.upper[0]) == (0.0, scene.GRIPPER_OPEN)


def test_simulated_base_drives_at_the_top_speed_of_the_robot_file(sim, limits):
    sim.reset(0)
    sim.set_command('base', limits['base'].max_velocity)
    for _ in range(50):
        sim.step(0.02)
    assert sim.feedback('base')[1] == pytest.approx(limits['base'].max_velocity, abs=0.01)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_simulated_torso_moves_at_the_top_speed_of_the_robot_file(sim, limits, axis):
    sim.reset(0)
    command = np.zeros(4)
    command[axis] = limits['torso'].max_velocity[axis]
    link = sim.data.body('torso_link3')
    sim.set_command('torso', command)
    for _ in range(15):
        sim.step(0.02)
    start, pitch = link.xpos.copy(), link.xmat.reshape(3, 3)[0, 2]
    for _ in range(25):
        sim.step(0.02)
    moved = np.append((link.xpos - start)[[0, 2]], link.xmat.reshape(3, 3)[0, 2] - pitch)
    expected = np.zeros(3)
    expected[axis] = command[axis] * 0.5
    assert moved == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize('side', SIDES)
def test_simulated_arm_keeps_up_with_the_top_speed_of_the_robot_file(sim, limits, side):
    sim.reset(0)
    speed = limits[f'{side}_arm'].max_velocity
    target = sim.feedback(f'{side}_arm')[0]
    direction = np.array([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    for _ in range(25):
        target = target + direction * speed * 0.02
        sim.set_command(f'{side}_arm', target)
        sim.step(0.02)
    _, velocity = sim.feedback(f'{side}_arm')
    assert velocity * direction == pytest.approx(speed, rel=0.15)
