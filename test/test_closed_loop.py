"""One episode without ROS: policy, the real dispatcher and the simulator on one clock."""

import dataclasses

import mujoco
import numpy as np
import pytest

from faster_core import paths
from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.evaluation.baselines import ZeroActionPolicy
from faster_core.evaluation.closed_loop import ClosedLoop, EpisodeSettings
from faster_core.execution.config import DispatcherConfig
from faster_core.sim.expert import Expert
from faster_core.sim.r1_lite import R1LiteSim, SIDES
from faster_core.sim.tasks import TASKS

ROBOT_FILE = paths.share_dir() / 'config' / 'robots' / 'r1_lite.yaml'
SEED = 9700

# Seconds of simulation each: slow where the machine is busy.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope='module')
def embodiment():
    return Embodiment.load(paths.embodiment_file('r1_lite'))


@pytest.fixture(scope='module')
def config(embodiment):
    return DispatcherConfig.load(ROBOT_FILE, embodiment)


class Recorder:
    """Passes on to a policy and keeps what it was shown."""

    def __init__(self, policy):
        self.policy, self.seen, self.seeds = policy, [], []

    def reset(self, seed=None):
        self.seeds.append(seed)
        self.policy.reset(seed)

    def predict(self, observation):
        self.seen.append(observation)
        return self.policy.predict(observation)


class ExpertPolicy:
    """Asks the scripted expert: rolls it out on a copy of the true world, as chunks need."""

    rows = 10

    def __init__(self, task=None):
        self.loop, self.task = None, task
        self._world = R1LiteSim()
        self._expert = Expert(self._world)

    def reset(self, seed=None):
        true = self.loop._sim
        self._world.reset(true.seed, self.task or true.task.name)

    def predict(self, observation):
        true, world, e = self.loop._sim, self._world, self._world.embodiment
        mujoco.mj_copyData(world.data, world.model, true.data)
        for name in ('_torso_target', '_torso_twist', '_base_twist'):
            setattr(world, name, getattr(true, name).copy())
        command = np.zeros(e.action_dim)
        for side in SIDES:
            command[e.action_slices[f'{side}_arm']] = true.data.ctrl[true._arm_ctrl[side]]
            gripper = true.data.ctrl[true._gripper_ctrl[side]]
            command[e.action_slices[f'{side}_gripper']] = 2 * gripper
        command[e.action_slices['base']] = true._base_twist
        rows = []
        for _ in range(self.rows):
            rows.append(self._expert.next_command(command))
            world.glide(command, rows[-1], e.step_period)
            command = rows[-1]
        return ActionChunk(
            values=np.array(rows, dtype=np.float32),
            stamp=observation.stamp,
            first_step_offset=e.step_period,
            step_period=e.step_period,
            embodiment_checksum=e.checksum,
        )


def episode(policy, config, *, task, original_task=None, seed=SEED, **settings):
    """Run one episode and close the simulators."""
    loop = ClosedLoop(policy, config, EpisodeSettings(**settings))
    if isinstance(policy, ExpertPolicy):
        policy.loop = loop
    try:
        return loop.run(seed=seed, task=task, original_task=original_task)
    finally:
        loop.close()


@pytest.mark.parametrize('task', ['pick_blue', 'drive_yellow'])
def test_the_expert_succeeds_through_the_real_dispatcher(config, task):
    result = episode(ExpertPolicy(), config, task=task, latency=0.02)
    assert result.success
    assert result.rejected == ()
    assert 1.0 < result.seconds < 15.0
    assert not result.original_success


def test_holding_still_fails_and_takes_the_whole_time(config, embodiment):
    result = episode(ZeroActionPolicy(embodiment), config, task='pick_red', time_limit=2.0)
    assert not result.success
    assert result.seconds == pytest.approx(2.0, abs=0.03)
    assert result.rejected == ()
    assert len(result.timings) == result.num_chunks > 5


def test_doing_the_original_task_of_a_swapped_instruction_is_told(config):
    policy = ExpertPolicy(task='drive_purple')  # deaf: drives there whatever is said
    result = episode(
        policy,
        config,
        task='drive_yellow',
        original_task='drive_purple',
        latency=0.02,
        time_limit=8.0,
    )
    assert result.original_success
    assert not result.success
    assert result.task == 'drive_yellow'


class Broken:
    """Gives chunks of another embodiment."""

    def __init__(self, embodiment):
        self._hold = ZeroActionPolicy(embodiment)

    def reset(self, seed=None):
        pass

    def predict(self, observation):
        return dataclasses.replace(self._hold.predict(observation), embodiment_checksum='another')


def test_rejected_chunks_are_counted_with_their_reason(config, embodiment):
    result = episode(Broken(embodiment), config, task='pick_red', time_limit=0.5)
    assert set(result.rejected) <= {'embodiment_mismatch', 'stopped'}
    assert 'embodiment_mismatch' in result.rejected
    assert result.num_chunks - 1 <= len(result.rejected) <= result.num_chunks


def test_a_chunk_that_would_come_after_the_end_is_never_executed(config, embodiment):
    result = episode(Broken(embodiment), config, task='pick_red', time_limit=0.5, latency=1.0)
    assert result.num_chunks == 1
    assert result.rejected == ()


def test_the_next_inference_waits_for_the_chunk_before(config, embodiment):
    recorder = Recorder(ZeroActionPolicy(embodiment))
    episode(recorder, config, task='pick_red', time_limit=1.5, latency=0.3)
    gaps = np.diff([o.stamp for o in recorder.seen])
    assert (gaps >= 0.3).all()
    assert (gaps <= 0.3 + embodiment.step_period + 0.03).all()


def test_the_policy_is_shown_instruction_state_and_images_but_no_object_pose(config, embodiment):
    recorder = Recorder(ZeroActionPolicy(embodiment))
    for seed in (SEED, SEED + 1):
        episode(recorder, config, task='raise_red', seed=seed, time_limit=0.1)
    first, second = recorder.seen[0], recorder.seen[-1]
    assert recorder.seeds == [SEED, SEED + 1]
    first.validate(embodiment)
    assert first.instruction == TASKS['raise_red'].instruction
    assert first.images['head'].shape == (96, 96, 3)
    # Blocks lie elsewhere: seen in the picture only; the state differs by the arms' noise.
    assert (first.images['head'] != second.images['head']).any()
    grippers = [embodiment.state_slices[f'{side}_gripper'] for side in SIDES]
    for columns in [*grippers, embodiment.state_slices['torso']]:
        np.testing.assert_allclose(first.state[columns], second.state[columns], atol=1e-3)


def test_images_of_another_scene_come_with_the_state_of_this_one(config, embodiment):
    own, other, there = (Recorder(ZeroActionPolicy(embodiment)) for _ in range(3))
    episode(own, config, task='pick_red', time_limit=0.1)
    episode(other, config, task='pick_red', time_limit=0.1, other_images_seed=100)
    episode(there, config, task='pick_red', time_limit=0.1, seed=SEED + 100)
    seen = other.seen[0]
    np.testing.assert_array_equal(seen.state, own.seen[0].state)
    np.testing.assert_array_equal(seen.images['head'], there.seen[0].images['head'])
    assert (seen.images['head'] != own.seen[0].images['head']).any()


def test_an_episode_is_a_function_of_its_seed(config):
    results = [
        episode(ExpertPolicy(), config, task='drive_purple', latency=0.02, time_limit=2.0)
        for _ in range(2)
    ]
    assert results[0] == results[1]
