"""Motions that simulators generate: Meta-World with its policies, gym-aloha with our expert."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from faster_core.data.motions import HELD_OUT, HELD_OUT_TASK, TRAIN
from faster_core.data.sources import aloha, metaworld
from faster_core.data.sources import aloha_expert as expert
from faster_core.data.sources.aloha import AlohaConfig
from faster_core.data.sources.metaworld import executed, MetaWorldConfig
from faster_core.data.sources.source import quietly
from faster_core.errors import ConfigError

# --- Meta-World -------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def package():
    return pytest.importorskip('metaworld', reason='needs Meta-World, see docs/data.md')


@pytest.fixture(scope='module')
def reach(package):
    env = metaworld.make_env('reach-v3')
    yield env
    env.close()


def test_what_a_policy_asks_for_is_clipped_as_the_environment_does_and_becomes_metres():
    assert executed([0.5, -3.0, 7.0, 0.4], 0.01) == pytest.approx([0.005, -0.01, 0.01, 0.4])
    assert executed([0.0, 0.0, 0.0, -9.0], 0.01).tolist() == [0.0, 0.0, 0.0, -1.0]


def test_split_is_a_matter_of_task_and_seed():
    config = MetaWorldConfig(episodes=5, held_out_episodes=2, first_seed=10)
    assert [config.split('reach-v3', seed) for seed in range(10, 15)] == [TRAIN] * 3 + [
        HELD_OUT
    ] * 2
    assert {config.split('box-close-v3', seed) for seed in range(10, 15)} == {HELD_OUT_TASK}


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'episodes': 0}, 'episodes: expected a whole number >= 1, found 0'),
        ({'episodes': 3}, 'held_out_episodes: 3 of 3 leaves none'),
        ({'first_seed': -1}, 'first_seed: .* found -1'),
        ({'settle_steps': 2.5}, 'settle_steps: .* found 2.5'),
        ({'tasks': 'reach-v3'}, "tasks: expected a list of tasks, found 'reach-v3'"),
    ],
)
def test_meta_world_configuration_out_of_range_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        MetaWorldConfig(**values)


def test_unknown_task_is_refused_and_the_known_ones_are_listed(package):
    for field in ('tasks', 'held_out_tasks'):
        config = MetaWorldConfig(**{field: ['reach-v2']})
        with pytest.raises(ConfigError, match=rf"{field}: unknown task 'reach-v2'; known: .*v3"):
            metaworld.build(config, quietly)


def test_held_out_tasks_are_the_test_tasks_of_ml45(package):
    from metaworld.env_dict import ML45_V3

    assert set(MetaWorldConfig().held_out_tasks) == set(ML45_V3['test'])
    assert len(ML45_V3['train']) == 45


def test_every_seed_is_another_episode_and_the_same_one_whatever_came_before(reach, package):
    first, second = (metaworld.record(reach, 'reach-v3', seed, 5) for seed in (1, 2))
    assert first.action.shape != second.action.shape or (first.action != second.action).any()
    fresh = metaworld.make_env('reach-v3')
    again = metaworld.record(fresh, 'reach-v3', 2, 5)
    fresh.close()
    assert np.array_equal(again.action, second.action)
    assert np.array_equal(again.state, second.state)


def test_hand_goes_where_the_displacements_lead(reach):
    motion = metaworld.record(reach, 'reach-v3', 3, 20)
    hand = motion.state[:, :3]
    asked, went = motion.action[:-1, :3].sum(axis=0), hand[-1] - hand[0]
    assert np.linalg.norm(went) > 0.1
    assert np.linalg.norm(asked - went) < 0.05
    assert np.abs(motion.action[:, :3]).max() <= 0.01 + 1e-9


def test_state_is_a_pose_of_unit_quaternions_without_jumps_and_an_opening_in_metres(reach):
    state = metaworld.record(reach, 'reach-v3', 3, 5).state
    assert np.abs(np.linalg.norm(state[:, 3:7], axis=1) - 1).max() < 1e-5
    reach.seed(3)
    reach.reset()
    hand = reach.data.body('hand')
    found = Rotation.from_quat(state[0, 3:7]).as_matrix()
    assert np.abs(found - hand.xmat.reshape(3, 3)).max() < 1e-5
    assert np.abs(state[0, :3] - hand.xpos).max() < 1e-6
    assert np.abs(np.diff(state[:, 3:7], axis=0)).max() < 0.1
    assert 0.0 < state[:, 7].min() <= state[:, 7].max() < 0.12


def test_episode_ends_some_steps_after_success_or_is_none(reach):
    short, long = (metaworld.record(reach, 'reach-v3', 4, settle) for settle in (0, 7))
    assert long.num_steps == short.num_steps + 7
    assert np.array_equal(long.action[: short.num_steps], short.action)
    patience, reach.max_path_length = reach.max_path_length, short.num_steps - 1
    try:
        assert metaworld.record(reach, 'reach-v3', 4, 0) is None
    finally:
        reach.max_path_length = patience


def test_meta_world_set_has_the_embodiments_rate_and_three_splits(package):
    config = MetaWorldConfig(tasks=('reach-v3', 'hand-insert-v3'), episodes=2, held_out_episodes=1)
    motions = metaworld.build(config, quietly)
    assert motions.rate == pytest.approx(80.0)
    assert motions.provenance == {'attempts': 4, 'failed': [], 'repeated': []}
    splits = {m.episode: s for m, s in zip(motions.motions, motions.splits, strict=True)}
    assert splits == {
        'reach-v3-000000': TRAIN,
        'reach-v3-000001': HELD_OUT,
        'hand-insert-v3-000000': HELD_OUT_TASK,
        'hand-insert-v3-000001': HELD_OUT_TASK,
    }
    assert len(motions.chunks(TRAIN)) == motions.motions[0].num_steps - 19


def test_trajectory_that_is_there_already_is_left_out(package, monkeypatch):
    attempt = metaworld.record
    # What the plate-slide tasks do by themselves: seeds that make no difference.
    same = {2: 0, 3: 1}

    def record(env, task, seed, settle_steps):
        motion = attempt(env, task, same.get(seed, seed), settle_steps)
        return dataclasses.replace(motion, episode=f'{task}-{seed:06d}')

    monkeypatch.setattr(metaworld, 'record', record)
    config = MetaWorldConfig(tasks=('reach-v3',), episodes=5, held_out_episodes=2)
    motions = metaworld.build(config, quietly)
    assert motions.provenance['repeated'] == ['reach-v3/2', 'reach-v3/3']
    assert [m.episode[-1] for m in motions.motions] == ['0', '1', '4']
    assert motions.splits == (TRAIN, TRAIN, HELD_OUT)


# --- ALOHA ------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def transfer():
    pytest.importorskip('gym_aloha', reason='needs gym-aloha: pip install .[data]')
    return aloha.Scene('transfer_cube')


def test_minimum_jerk_starts_and_ends_at_rest():
    s = np.linspace(0, 1, 1001)
    way = expert.minimum_jerk(s)
    assert (way[0], way[500], way[-1]) == pytest.approx((0.0, 0.5, 1.0))
    speed = np.gradient(way, s)
    assert speed[[0, -1]] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert (np.diff(way) > 0).all()
    assert speed.max() == pytest.approx(15 / 8, rel=1e-3)


@pytest.mark.parametrize('side', expert.SIDES)
def test_inverse_kinematics_find_the_pose_of_any_joints(transfer, side):
    kinematics = expert.Kinematics(transfer._environment.physics.model.ptr)
    home = transfer.reset(0) is not None and transfer.state()[expert.JOINTS[side]]
    rng = np.random.default_rng(5)
    for _ in range(20):
        joints = home + rng.uniform(-0.3, 0.3, 6)
        wanted = kinematics.pose(side, joints)
        found, error = kinematics.solve(side, home, wanted)
        reached = kinematics.pose(side, found)
        assert error < expert.TOLERANCE
        assert np.linalg.norm(reached.position - wanted.position) < expert.TOLERANCE
        turn = (reached.rotation.inv() * wanted.rotation).magnitude()
        assert turn < expert.TOLERANCE


def test_hand_is_where_the_simulator_has_the_fingers(transfer):
    transfer.reset(0)
    physics = transfer._environment.physics
    kinematics = expert.Kinematics(physics.model.ptr)
    for side in expert.SIDES:
        fingers = [
            physics.named.data.xpos[f'vx300s_{side}/{finger}_finger_link']
            for finger in ('left', 'right')
        ]
        pose = kinematics.pose(side, transfer.state()[expert.JOINTS[side]])
        ahead = pose.position - np.mean(fingers, axis=0)
        assert np.linalg.norm(ahead) == pytest.approx(0.135 - 0.0687, abs=1e-3)
        assert pose.rotation.inv().apply(ahead)[0] > 0.06


def test_waypoint_out_of_reach_is_an_error_that_names_it(transfer):
    kinematics = expert.Kinematics(transfer._environment.physics.model.ptr)
    transfer.reset(0)
    start = transfer.state()
    here = {s: kinematics.pose(s, start[expert.JOINTS[s]]) for s in expert.SIDES}
    far = dict(here, right=here['right'].moved(z=2.0))
    fingers = dict.fromkeys(expert.SIDES, expert.OPEN)
    waypoints = [
        expert.Waypoint(seconds=0.1, poses=here, fingers=fingers),
        expert.Waypoint(seconds=0.1, poses=far, fingers=fingers),
    ]
    with pytest.raises(expert.UnreachableError, match='waypoint 1: the right arm stays'):
        expert.set_points(kinematics, start, waypoints, 50.0)


def test_set_points_reach_every_waypoint_in_its_time(transfer):
    kinematics = expert.Kinematics(transfer._environment.physics.model.ptr)
    transfer.reset(0)
    start = transfer.state()
    here = {s: kinematics.pose(s, start[expert.JOINTS[s]]) for s in expert.SIDES}
    turned = expert.Pose(
        position=here['left'].moved(0.05, 0.02, -0.05).position,
        rotation=Rotation.from_euler('x', 20, degrees=True) * here['left'].rotation,
    )
    poses = dict(here, left=turned)
    fingers = {'left': expert.OPEN, 'right': expert.CLOSED}
    waypoints = [expert.Waypoint(seconds=0.5, poses=poses, fingers=fingers)] * 2
    rows = expert.set_points(kinematics, start, waypoints, 50.0)
    assert rows.shape == (50, 14)
    for row in (rows[24], rows[49]):
        for side in expert.SIDES:
            reached = kinematics.pose(side, row[expert.JOINTS[side]])
            assert np.abs(reached.position - poses[side].position).max() < expert.TOLERANCE
            assert row[expert.FINGER[side]] == pytest.approx(fingers[side])
    assert np.abs(np.diff(rows[25:], axis=0)).max() < 1e-3


@pytest.mark.parametrize('task', ['transfer_cube', 'insertion'])
def test_expert_solves_the_task_smoothly_and_without_any_picture(transfer, task, monkeypatch):
    from dm_control import mujoco

    def refuse(*args, **kwargs):
        raise AssertionError('rendered')

    monkeypatch.setattr(mujoco.Physics, 'render', refuse)
    scene = transfer if task == 'transfer_cube' else aloha.Scene(task)
    motion = scene.record(0)
    assert motion.episode == f'{task}-000000'
    assert motion.action.shape == motion.state.shape
    speed = np.abs(np.diff(motion.action, axis=0)) * 50
    assert speed.max() < 3.2  # rad/s, of the machine
    fingers = motion.action[:, list(expert.FINGER.values())]
    assert fingers.min() == pytest.approx(expert.CLOSED, abs=2e-3)
    assert fingers.max() == pytest.approx(expert.OPEN, abs=1e-6)
    # The arms follow within what position control without gravity compensation can.
    assert np.abs(motion.action[:-1] - motion.state[1:]).mean() < 0.01
    assert np.abs(np.diff(motion.action[-10:], axis=0)).max() < 1e-3


def test_same_seed_is_the_same_episode_and_another_one_another(transfer):
    first, other, again = (transfer.record(seed) for seed in (3, 4, 3))
    assert np.array_equal(first.action, again.action)
    assert np.array_equal(first.state, again.state)
    assert first.num_steps != other.num_steps or (first.action != other.action).any()


@pytest.mark.parametrize(
    ('rewards', 'kept'),
    [([4] * 400, False), ([0], False), ([0] * 400 + [4, 2, 4, 3] * 50, True)],
    ids=['lost again', 'never', 'flickering at the end'],
)
def test_only_what_ends_in_success_is_an_episode(transfer, monkeypatch, rewards, kept):
    told = iter(rewards + [0 if rewards[-1] == 4 else rewards[-1]] * 600)
    monkeypatch.setattr(transfer, 'step', lambda set_point: next(told))
    assert (transfer.record(5) is not None) == kept


def test_objects_out_of_reach_are_no_episode(transfer, monkeypatch):
    monkeypatch.setattr(transfer, 'reset', lambda seed: np.array([3.0, 0.5, 0.05, 1, 0, 0, 0]))
    assert transfer.record(0) is None


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'episodes': 10}, 'held_out_episodes: 10 of 10 leaves none'),
        ({'tasks': ()}, r'tasks: expected a list of tasks, found \(\)'),
        ({'tasks': ('fold',)}, "tasks: unknown 'fold'; known: transfer_cube, insertion"),
        ({'first_seed': None}, 'first_seed: .* found None'),
    ],
)
def test_aloha_configuration_out_of_range_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        AlohaConfig(**values)


def test_aloha_set_splits_by_seed_and_counts_what_failed(transfer, monkeypatch):
    attempt = aloha.Scene.record

    def fail_one(self, seed):
        return None if seed == 6 else attempt(self, seed)

    monkeypatch.setattr(aloha.Scene, 'record', fail_one)
    config = AlohaConfig(tasks=['transfer_cube'], episodes=3, held_out_episodes=1, first_seed=5)
    motions = aloha.build(config, quietly)
    assert [m.episode for m in motions.motions] == ['transfer_cube-000005', 'transfer_cube-000007']
    assert motions.splits == (TRAIN, HELD_OUT)
    assert motions.provenance == {'attempts': 3, 'failed': ['transfer_cube/6']}
    assert motions.rate == pytest.approx(50.0)
    assert len(motions.chunks(HELD_OUT)) == motions.motions[1].num_steps
