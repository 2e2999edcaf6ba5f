"""Evaluation without ROS: statistics, baselines, and jobs over several processes."""

import types

import numpy as np
import pytest

from faster_core import paths
from faster_core.chunk import StageTiming
from faster_core.data.episodes import EpisodeError
from faster_core.embodiment import Embodiment
from faster_core.errors import CheckpointError
from faster_core.evaluation import run
from faster_core.evaluation.baselines import (
    load_means,
    mean_trajectories,
    MeanTrajectoryPolicy,
    save_means,
    ZeroActionPolicy,
)
from faster_core.evaluation.closed_loop import EpisodeSettings
from faster_core.evaluation.statistics import (
    mcnemar_p,
    percentiles,
    stage_percentiles,
    wilson_interval,
)
from faster_core.observation import Observation
from faster_core.sim.tasks import TASKS

# Two tests start processes, each of which imports torch: slow where the machine is busy.
pytestmark = pytest.mark.timeout(400)

SEED = 9700


@pytest.fixture(scope='module')
def embodiment():
    return Embodiment.load(paths.embodiment_file('r1_lite'))


# --- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('successes', 'trials', 'low', 'high'),
    [  # Newcombe 1998, table I (method 3), and values of R's binom.confint(method='wilson')
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (29, 29, 0.8830, 1.0),
        (40, 50, 0.6696, 0.8876),
    ],
)
def test_wilson_interval_equals_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(('successes', 'trials'), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match='successes <= trials'):
        wilson_interval(successes, trials)


def test_percentiles_interpolate_and_an_empty_sample_has_none():
    assert percentiles(list(range(101))) == {'p50': 50.0, 'p95': 95.0, 'p99': 99.0}
    assert percentiles([]) == {}


@pytest.mark.parametrize(
    ('first', 'second', 'p'),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (6, 0, 0.03125), (1, 9, 0.021484375)],
)
def test_mcnemar_p_equals_the_exact_binomial_test(first, second, p):
    assert mcnemar_p(first, second) == pytest.approx(p)


def test_stage_percentiles_tell_single_blocks_from_their_sum():
    timing = StageTiming(decode_block_ms=(1.0, 2.0, 6.0), vision_ms=4.0, total_ms=20.0)
    stages = stage_percentiles([timing] * 3)
    assert stages['decode_block_ms']['p50'] == 2.0
    assert stages['decode_ms'] == {'p50': 9.0, 'p95': 9.0, 'p99': 9.0}
    assert {'vision_ms', 'prefill_ms', 'preprocess_ms', 'detokenize_ms'} <= stages.keys()


# --- baselines -----------------------------------------------------------------------------------


def observe(embodiment, stamp=0.0, instruction='pick up the red block'):
    return Observation(
        images={},
        state=np.arange(embodiment.state_dim, dtype=float),
        instruction=instruction,
        stamp=stamp,
    )


def test_zero_action_repeats_measured_positions_and_commands_no_speed(embodiment):
    observation = observe(embodiment)
    chunk = ZeroActionPolicy(embodiment).predict(observation)
    assert chunk.values.shape == (embodiment.action_horizon, embodiment.action_dim)
    arm = embodiment.state_slices['right_arm']
    np.testing.assert_array_equal(
        chunk.component(embodiment, 'right_arm')[9], observation.state[arm]
    )
    assert not chunk.component(embodiment, 'torso').any()
    assert not chunk.component(embodiment, 'base').any()


def test_mean_trajectory_replays_rows_by_the_time_since_its_reset(embodiment):
    means = {'go': np.arange(20.0)[:, None] * np.ones(embodiment.action_dim)}
    policy = MeanTrajectoryPolicy(embodiment, means)
    first = policy.predict(observe(embodiment, stamp=7.0, instruction='go'))
    later = policy.predict(
        observe(embodiment, stamp=7.0 + 5 * embodiment.step_period, instruction='go')
    )
    assert later.values[0, 0] - first.values[0, 0] == 5.0
    end = policy.predict(observe(embodiment, stamp=100.0, instruction='go'))
    assert (end.component(embodiment, 'left_arm') == 19.0).all()
    policy.reset()
    again = policy.predict(observe(embodiment, stamp=50.0, instruction='go'))
    np.testing.assert_array_equal(again.values, first.values)


def test_means_rest_at_the_last_row_of_shorter_episodes(tmp_path, monkeypatch):
    runs = {'a.npz': np.full((2, 3), 1.0), 'b.npz': np.full((4, 3), 3.0)}
    for name in runs:
        (tmp_path / name).touch()
    monkeypatch.setattr(
        'faster_core.evaluation.baselines.load_episode',
        lambda path: types.SimpleNamespace(instruction='go', action=runs[path.name]),
    )
    means = mean_trajectories(tmp_path)
    np.testing.assert_array_equal(means['go'], np.full((4, 3), 2.0))
    save_means(means, tmp_path / 'means' / 'x.npz')
    with np.load(tmp_path / 'means' / 'x.npz') as file:
        np.testing.assert_array_equal(file['go'], means['go'])


def test_means_of_a_folder_without_episodes_are_refused(tmp_path):
    with pytest.raises(EpisodeError, match='no episodes'):
        mean_trajectories(tmp_path)


def test_shipped_means_cover_every_instruction(embodiment):
    means = load_means(embodiment)
    assert set(means) == {t.instruction for t in TASKS.values()}
    assert all(m.shape[1] == embodiment.action_dim and len(m) > 15 for m in means.values())


# --- jobs ----------------------------------------------------------------------------------------


def test_a_prefix_of_the_jobs_holds_all_tasks():
    jobs = run.jobs(['pick_red', 'pick_blue'], [3, 4])
    assert [(j.seed, j.task) for j in jobs] == [
        (3, 'pick_red'),
        (3, 'pick_blue'),
        (4, 'pick_red'),
        (4, 'pick_blue'),
    ]


@pytest.mark.parametrize('tasks', [list(TASKS), ['drive_purple']])
def test_swapped_jobs_ask_every_scene_for_another_task(tasks):
    jobs = run.swapped_jobs(tasks, [1, 2])
    assert len(jobs) == 2 * len(tasks)
    assert {j.original_task for j in jobs} == set(tasks)
    assert all(j.task != j.original_task for j in jobs)


def test_swapping_all_instructions_asks_for_each_equally_often():
    jobs = run.swapped_jobs(list(TASKS), [1])
    assert sorted(j.task for j in jobs) == sorted(TASKS)


def test_planned_jobs_name_who_is_evaluated():
    plan = run.planned_jobs(['baselines', 'other_images'], ['pick_red'], [5])
    assert list(plan) == ['other_images', 'zero_action', 'mean_trajectory']
    assert all(job.who == who for who, jobs in plan.items() for job in jobs)
    # In swapped episodes it is still the policy that acts.
    assert run.planned_jobs(['swapped'], ['pick_red'], [5])['swapped'][0].who == 'policy'


def test_jobs_of_baselines_run_without_a_checkpoint(tmp_path):
    todo = [run.Job(seed=SEED, task='pick_red', who=w) for w in ('zero_action', 'mean_trajectory')]
    settings = EpisodeSettings(time_limit=0.5)
    results = list(run.run_jobs(todo, tmp_path / 'none', settings=settings, workers=2))
    assert [r.success for r in results] == [False, False]
    assert all(r.num_chunks > 1 for r in results)


def test_a_missing_checkpoint_is_told(tmp_path):
    todo = [run.Job(seed=SEED, task='pick_red')]
    with pytest.raises(CheckpointError, match='no checkpoint folder'):
        list(run.run_jobs(todo, tmp_path / 'none', workers=1))


def test_a_robot_file_no_worker_can_read_ends_the_run(tmp_path):
    todo = [run.Job(seed=SEED, task='pick_red', who='zero_action')]
    missing = tmp_path / 'none.yaml'
    with pytest.raises(run.WorkerError, match='ended'):
        list(run.run_jobs(todo, tmp_path, robot_file=missing, workers=2))
