"""Chunks relative to the measured state: subtracted before encoding, added after decoding."""

import dataclasses

import numpy as np
import pytest

from faster_core import paths
from faster_core.data.reference import reference_of
from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError
from faster_core.policy import checkpoint, Policy
from faster_core.policy.dataset import episode_goals
from faster_core.tokenizer.config import FasterVQConfig


@pytest.fixture(scope='module')
def robot():
    return Embodiment.load(paths.embodiment_file('r1_lite'))


def test_only_measured_joint_positions_are_subtracted(robot):
    state = np.arange(1.0, robot.state_dim + 1)
    reference = reference_of(state, robot, 'state')
    for side in ('left_arm', 'right_arm'):
        expected = state[robot.state_slices[side]]
        assert np.array_equal(reference[robot.action_slices[side]], expected)
    for name in ('left_gripper', 'right_gripper', 'torso', 'base'):
        assert not reference[robot.action_slices[name]].any()


def test_absolute_subtracts_nothing(robot):
    assert not reference_of(np.ones(robot.state_dim), robot, 'absolute').any()


def test_a_batch_of_states_gives_a_batch_of_references(robot):
    states = np.random.default_rng(0).normal(size=(2, 3, robot.state_dim))
    batch = reference_of(states, robot, 'state')
    assert batch.shape == (2, 3, robot.action_dim)
    assert np.array_equal(batch[1, 2], reference_of(states[1, 2], robot, 'state'))


def test_joints_under_another_name_are_left_absolute(robot):
    renamed = dataclasses.replace(
        robot,
        state=tuple(
            dataclasses.replace(c, names=tuple(f'other_{n}' for n in c.names))
            if c.name == 'left_arm'
            else c
            for c in robot.state
        ),
    )
    reference = reference_of(np.ones(robot.state_dim), renamed, 'state')
    assert not reference[robot.action_slices['left_arm']].any()
    assert reference[robot.action_slices['right_arm']].all()


def test_an_unknown_reference_is_refused_by_the_tokenizer(robot):
    with pytest.raises(ConfigError, match=r'reference.*absolute, state.*elsewhere'):
        FasterVQConfig.from_embodiment(
            robot, slots_per_group=(1,) * 6, patch_length=8, reference='elsewhere'
        )


@pytest.mark.parametrize('reference', ['absolute', 'state'])
def test_predicted_set_points_are_the_decoded_ones_plus_the_reference(tmp_path, reference):
    from tiny_checkpoint import make_tiny_checkpoint

    parts = checkpoint.load(make_tiny_checkpoint(tmp_path / 'tiny'))
    parts.tokenizer.config = dataclasses.replace(parts.tokenizer.config, reference=reference)
    policy = Policy(parts)
    observation = policy.make_example()
    chunk = policy.predict(observation)
    added = chunk.values - parts.tokenizer.decode(chunk.codes)
    expected = reference_of(observation.state, policy.embodiment, reference)
    assert np.allclose(added, expected, atol=1e-6)
    assert expected.any() == (reference == 'state')


def test_the_goal_of_every_step_is_where_the_episode_ends(robot):
    rng = np.random.default_rng(0)
    action = rng.normal(size=(50, robot.action_dim)).astype(np.float32)
    goals = episode_goals(action, robot)
    arm, base = robot.action_slices['left_arm'], robot.action_slices['base']
    assert np.array_equal(goals[:, arm], np.tile(action[-1, arm], (50, 1)))
    for t in (0, 20, 49):
        way_left = action[t:, base].sum(axis=0) * robot.step_period
        chunk_seconds = robot.action_horizon * robot.step_period
        assert np.allclose(goals[t, base], way_left / chunk_seconds, atol=1e-4)
