"""Demonstrations: what is recorded under noise, which seeds are used, and how a run resumes."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from faster_core.config import from_mapping
from faster_core.data.episodes import load_episode
from faster_core.errors import ConfigError
from faster_core.sim import R1LiteSim, TASKS
from faster_core.sim.demos import collect, DemoConfig, record_episode, through_jpeg
from faster_core.sim.expert import Expert

# Its bursts come early, at steps 9 to 18.
NOISY_SEED = 7
SMALL = {'image_size': 16, 'switched_share': 0.0}


@pytest.fixture(scope='module')
def sim():
    robot = R1LiteSim()
    yield robot
    robot.close()


def _config(**changes):
    return DemoConfig(**({'episodes': {'pick_red': 1}} | SMALL | changes))


def _record(sim, seed, task, config, *, see=False):
    """Return the episode and the (current, target) set-points the robot executed."""
    executed, glide = [], sim.glide
    if not see:  # pictures take longer than physics
        sim.render = lambda camera, size: np.zeros((size, size, 3), dtype=np.uint8)

    def spy(current, target, duration):
        executed.append((current.copy(), target.copy()))
        glide(current, target, duration)

    sim.glide = spy
    try:
        episode = record_episode(sim, seed, task, config)
    finally:
        del sim.glide
        vars(sim).pop('render', None)
    return episode, executed


def _answers(sim, seed, task, executed):
    """Repeat what was executed and ask the expert in every state on the way."""
    sim.reset(seed, task)
    expert, answers = Expert(sim), []
    for current, target in executed:
        answers.append(expert.next_command(current))
        sim.glide(current, target, sim.embodiment.step_period)
    return np.array(answers)


def test_without_noise_the_robot_executes_what_is_recorded(sim):
    episode, executed = _record(sim, 1, 'pick_red', _config(noisy_share=0.0))
    targets = np.array([target for _, target in executed], dtype=np.float32)
    assert np.array_equal(episode.action, targets)
    assert episode.num_steps > 20


@pytest.mark.parametrize('task', ['pick_blue', 'drive_yellow'])
def test_under_noise_the_label_is_the_experts_answer_and_not_what_was_executed(sim, task):
    episode, executed = _record(sim, NOISY_SEED, task, _config(noisy_share=1.0))
    targets = np.array([target for _, target in executed], dtype=np.float32)
    disturbed = np.abs(episode.action - targets).max(axis=1) > 1e-3
    # One or two bursts of 3 to 7 steps each.
    assert 3 <= disturbed.sum() <= 14
    answers = _answers(sim, NOISY_SEED, task, executed)
    assert np.abs(episode.action - answers).max() < 1e-6


def test_noise_leads_the_robot_elsewhere_and_the_expert_back(sim):
    clean, _ = _record(sim, NOISY_SEED, 'pick_blue', _config(noisy_share=0.0))
    noisy, executed = _record(sim, NOISY_SEED, 'pick_blue', _config(noisy_share=1.0))
    assert sim.succeeded()
    steps = min(clean.num_steps, noisy.num_steps)
    assert np.abs(clean.state[:steps] - noisy.state[:steps])[:, :6].max() > 0.02
    for current, target in executed:
        base = target[sim.embodiment.action_slices['base']]
        assert np.abs(base).max() <= 0.2 + 1e-9
        for side in ('left', 'right'):
            arm = sim.embodiment.action_slices[f'{side}_arm']
            speed = np.abs(target[arm] - current[arm]).max() / sim.embodiment.step_period
            assert speed <= 1.5


def test_episode_says_what_it_is_and_keeps_state_and_images_in_step(sim):
    config = _config(noisy_share=0.0, image_size=24)
    episode, _ = _record(sim, 1, 'drive_purple', config, see=True)
    assert (episode.task, episode.seed) == ('drive_purple', 1)
    assert episode.instruction == TASKS['drive_purple'].instruction
    assert episode.embodiment_checksum == sim.embodiment.checksum
    assert episode.state.shape == episode.action.shape == (episode.num_steps, 21)
    for camera in sim.embodiment.cameras:
        assert episode.images[camera].shape == (episode.num_steps, 24, 24, 3)
    sim.reset(1, 'drive_purple')
    assert np.abs(episode.state[0] - sim.state()).max() < 1e-6
    shown = through_jpeg(sim.render('head', 24), config.jpeg_quality)
    assert np.array_equal(episode.images['head'][0], shown)


def test_episode_goes_on_a_little_after_success(sim):
    short, _ = _record(sim, 1, 'drive_purple', _config(noisy_share=0.0, settle_steps=0))
    long, _ = _record(sim, 1, 'drive_purple', _config(noisy_share=0.0, settle_steps=8))
    assert long.num_steps == short.num_steps + 8
    assert np.array_equal(long.action[: short.num_steps], short.action)


def test_same_seed_records_the_same_episode(sim):
    config = _config(noisy_share=1.0, switched_share=0.5)
    first, second = (_record(sim, NOISY_SEED, 'pick_red', config)[0] for _ in range(2))
    assert np.array_equal(first.action, second.action)
    assert np.array_equal(first.state, second.state)


def test_failed_attempt_is_no_episode(sim):
    assert record_episode(sim, 1, 'pick_red', _config(max_steps=3)) is None


def test_change_of_mind_is_recorded_from_the_moment_of_the_new_instruction(sim):
    config = _config(noisy_share=0.0, switched_share=1.0, prelude_steps=(8, 12))
    episode, executed = _record(sim, 3, 'drive_purple', config)
    prelude = len(executed) - episode.num_steps
    assert 8 <= prelude <= 12
    assert episode.instruction == TASKS['drive_purple'].instruction
    sim.reset(3, 'drive_purple')
    # The robot is already on its way when the recording begins.
    assert np.abs(episode.state[0] - sim.state()).max() > 0.02
    answers = _answers(sim, 3, 'drive_purple', executed)[prelude:]
    assert np.abs(episode.action - answers).max() < 1e-6


# Its grasp closes high above the block.
MISSING_SEED = 4


def test_miss_is_recorded_from_an_empty_hand_and_mended(sim):
    config = _config(noisy_share=0.0, missed_share=1.0)
    episode, executed = _record(sim, MISSING_SEED, 'pick_red', config)
    prelude = len(executed) - episode.num_steps
    gripper = sim.embodiment.action_slices['right_gripper'].start
    strokes = np.array([target[gripper] for _, target in executed])
    assert strokes[prelude - 1] < 0.03  # closed, and nothing is held: it opens
    assert episode.action[0, gripper] > strokes[prelude - 1]
    assert strokes[prelude:].max() > 0.08  # before it grasps
    answers = _answers(sim, MISSING_SEED, 'pick_red', executed)[prelude:]
    assert np.abs(episode.action - answers).max() < 1e-6


def test_misses_end_in_every_phase_of_the_grasp(sim):
    config = _config(noisy_share=0.0, missed_share=1.0, settle_steps=0)
    columns = [sim.embodiment.action_slices[f'{s}_gripper'].start for s in ('left', 'right')]
    strokes = []
    for seed in (0, 2, 17):
        episode, executed = _record(sim, seed, 'pick_red', config)
        prelude = len(executed) - episode.num_steps
        strokes.append(executed[prelude - 1][1][columns].min())
    assert strokes[0] < 0.01 < 0.03 < strokes[1] < 0.06 < 0.08 < strokes[2]


def test_robot_that_strayed_is_recorded_as_it_turns_round(sim):
    config = _config(noisy_share=0.0, strayed_share=1.0, missed_share=0.0)
    columns = sim.embodiment.action_slices['base']
    turned = 0
    for seed in range(4):
        episode, executed = _record(sim, seed, 'drive_yellow', config)
        prelude = len(executed) - episode.num_steps
        assert 1 <= prelude <= config.prelude_steps[1]
        way = np.sign(sim.data.body('yellow_post').xpos[1])
        wrong = executed[prelude - 1][1][columns][1]
        assert wrong * way < 0
        assert (episode.action[:, columns][:, 1] * way).max() == pytest.approx(0.2)
        turned += abs(wrong) > 0.15
        answers = _answers(sim, seed, 'drive_yellow', executed)[prelude:]
        assert np.abs(episode.action - answers).max() < 1e-6
    assert turned
    picks, _ = _record(sim, 0, 'pick_red', config)
    without, _ = _record(sim, 0, 'pick_red', _config(noisy_share=0.0))
    assert np.array_equal(picks.action, without.action)


def test_share_of_misses_leaves_the_other_episodes_as_they_were(sim):
    without, _ = _record(sim, 0, 'drive_purple', _config(noisy_share=0.0))
    drives, _ = _record(sim, 0, 'drive_purple', _config(noisy_share=0.0, missed_share=1.0))
    assert np.array_equal(drives.action, without.action)
    changed = {'noisy_share': 1.0, 'switched_share': 1.0}
    without, _ = _record(sim, 3, 'pick_blue', _config(**changed))
    minds, _ = _record(sim, 3, 'pick_blue', _config(**changed, missed_share=1.0))
    assert np.array_equal(minds.action, without.action)


def test_jpeg_keeps_colours_in_their_channels():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[..., 0] = 220
    seen = through_jpeg(image, 90)
    assert (seen.dtype, seen.shape) == (np.uint8, image.shape)
    assert seen[..., 0].min() > 200
    assert seen[..., 1:].max() < 20


def test_every_job_has_a_seed_of_its_own_and_tasks_their_numbers():
    episodes = {'pick_red': 30, 'drive_yellow': 15, 'raise_red': 5, 'pick_blue': 0}
    jobs = _config(episodes=episodes, first_seed=100).jobs()
    assert [seed for seed, _ in jobs] == list(range(100, 150))
    counts = collections.Counter(task for _, task in jobs)
    assert counts == {task: n for task, n in episodes.items() if n}


def test_first_part_of_a_collection_is_as_balanced_as_the_whole():
    episodes = {'pick_red': 30, 'drive_yellow': 15, 'raise_red': 5}
    tasks = [task for _, task in _config(episodes=episodes).jobs()]
    for n in range(1, 51):
        for task, count in episodes.items():
            assert abs(tasks[:n].count(task) - n * count / 50) <= 1.0


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'first_seed': 8999, 'episodes': {'pick_red': 2}}, r'seeds 8999\.\.9000: only 0\.\.8999'),
        ({'first_seed': 10000}, r'only 0\.\.8999 may be used'),
        ({'first_seed': -1}, r'only 0\.\.8999 may be used'),
        ({'episodes': {'pick_pink': 1}}, r"unknown tasks \['pick_pink'\]; known: pick_red"),
        ({'episodes': {'pick_red': -1}}, r'whole numbers >= 0'),
        ({'episodes': {'pick_red': 1.5}}, r'whole numbers >= 0'),
        ({'episodes': None}, r'episodes: expected task: number'),
        ({'bursts': 0}, r'bursts: expected a whole number >= 1'),
    ],
)
def test_configuration_out_of_range_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        _config(**changes)


def test_last_free_seed_may_be_used():
    assert _config(first_seed=8999).jobs() == [(8999, 'pick_red')]


def test_misspelt_key_of_a_collection_file_is_refused():
    with pytest.raises(ConfigError, match='unknown keys noisy_shar'):
        from_mapping(DemoConfig, {'episodes': {'pick_red': 1}, 'noisy_shar': 0.5}, source='x')


@pytest.mark.timeout(300)  # starts four processes, each of which compiles the model
def test_collection_resumes_and_a_failed_expert_leaves_no_file(tmp_path):
    config = _config(episodes={'drive_yellow': 1, 'drive_purple': 1}, noisy_share=0.0)
    results = list(collect(config, tmp_path, workers=2))
    assert sorted((r['seed'], r['task']) for r in results) == config.jobs()
    files = sorted(tmp_path.glob('*.npz'))
    assert [f.name for f in files] == [f'{seed:06d}-{task}.npz' for seed, task in config.jobs()]
    for result, file in zip(sorted(results, key=lambda r: r['seed']), files, strict=True):
        episode = load_episode(file)
        assert (episode.num_steps, episode.seed) == (result['steps'], result['seed'])

    kept = files[0].stat().st_mtime_ns
    files[1].unlink()
    again = list(collect(config, tmp_path, workers=1))
    assert [(r['seed'], r['task']) for r in again] == config.jobs()[1:]
    assert files[1].exists()
    assert files[0].stat().st_mtime_ns == kept

    hopeless = dataclasses.replace(config, max_steps=3)
    with pytest.raises(ConfigError, match='another configuration'):
        next(iter(collect(hopeless, tmp_path, workers=1)))
    elsewhere = tmp_path / 'elsewhere'
    assert [r['steps'] for r in collect(hopeless, elsewhere, workers=1)] == [0, 0]
    assert [f.name for f in elsewhere.iterdir()] == ['config.json']


def test_refused_configuration_leaves_the_one_of_the_folder(tmp_path):
    first = _config(episodes={})
    assert list(collect(first, tmp_path, workers=1)) == []
    before = (tmp_path / 'config.json').read_text()
    with pytest.raises(ConfigError, match='choose an empty folder'):
        next(iter(collect(_config(first_seed=5), tmp_path, workers=1)))
    assert (tmp_path / 'config.json').read_text() == before
    assert json.loads(before)['image_size'] == 16
