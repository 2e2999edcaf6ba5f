"""Sources of motions that read recordings: Unitree G1, Franka, our own R1 Lite demonstrations."""

import json
import pathlib
import shutil

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from faster_core.data.episodes import Episode, save_episode
from faster_core.data.motions import HELD_OUT, HELD_OUT_TASK, MotionError, TRAIN
from faster_core.data.sources import franka, g1, r1_lite, SOURCES
from faster_core.data.sources.franka import FrankaConfig
from faster_core.data.sources.g1 import G1Config
from faster_core.data.sources.r1_lite import R1LiteConfig
from faster_core.data.sources.source import quietly, shipped, split_at_random
from faster_core.embodiment import Kind
from faster_core.errors import ConfigError

G1 = pathlib.Path(__file__).parent / 'data' / 'g1_extract'


@pytest.fixture
def g1_folder(tmp_path):
    return shutil.copytree(G1, tmp_path / 'g1')


# --- the table --------------------------------------------------------------------------------


def test_table_names_the_five_sources_and_only_recordings_need_an_input():
    assert set(SOURCES) == {'metaworld', 'aloha', 'r1_lite', 'g1', 'franka'}
    with_input = {n for n, s in SOURCES.items() if 'input' in s.config.__dataclass_fields__}
    assert with_input == {n for n, s in SOURCES.items() if s.files} == {'r1_lite', 'g1', 'franka'}


@pytest.mark.parametrize(
    ('name', 'rate', 'horizon', 'groups'),
    [
        ('metaworld', 80.0, 20, {'hand': 3, 'gripper': 1}),
        (
            'aloha',
            50.0,
            50,
            {'left_arm': 6, 'left_gripper': 1, 'right_arm': 6, 'right_gripper': 1},
        ),
        ('g1', 30.0, 30, {'left_arm': 7, 'right_arm': 7, 'left_hand': 6, 'right_hand': 6}),
        ('franka', 30.0, 30, {'arm': 7}),
    ],
)
def test_embodiment_of_a_source_groups_its_dimensions_by_meaning(name, rate, horizon, groups):
    embodiment = shipped(SOURCES[name].embodiment)
    assert embodiment.name == SOURCES[name].embodiment
    assert (embodiment.action_frequency, embodiment.action_horizon) == (rate, horizon)
    assert {c.name: c.size for c in embodiment.action} == groups
    assert embodiment.tokenizer_groups == tuple((name,) for name in groups)


def test_only_meta_world_commands_displacements():
    kinds = {n: [c.kind for c in shipped(s.embodiment).action] for n, s in SOURCES.items()}
    assert [n for n, k in kinds.items() if Kind.EE_DELTA in k] == ['metaworld']


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_share_of_the_episodes_is_held_out_by_seed(count, share, seed):
    held_out = max(1, round(count * share))
    if held_out >= count:
        with pytest.raises(ConfigError, match='leaves none to train on'):
            split_at_random(count, share, seed)
        return
    splits = split_at_random(count, share, seed)
    assert (splits.count(HELD_OUT), splits.count(TRAIN)) == (held_out, count - held_out)
    assert splits == split_at_random(count, share, seed)


def test_another_seed_holds_out_other_episodes():
    assert split_at_random(80, 0.1, 0) != split_at_random(80, 0.1, 1)


# --- Unitree G1 -------------------------------------------------------------------------------


@pytest.fixture
def parquet():
    return pytest.importorskip('pyarrow.parquet', reason='reads parquet: pip install .[data]')


def _build_g1(folder, **changes):
    config = G1Config(input=str(folder), **{'held_out_share': 0.5} | changes)
    return g1.build(config, quietly)


def test_g1_episodes_are_the_columns_of_the_recording(parquet):
    motions = _build_g1(G1)
    assert [m.episode for m in motions.motions] == ['episode_000000', 'episode_000001']
    assert sorted(motions.splits) == [HELD_OUT, TRAIN]
    for motion in motions.motions:
        table = parquet.read_table(G1 / f'{motion.episode}.parquet')
        assert motion.action.tolist() == table['action'].to_pylist()
        assert motion.state.tolist() == table['observation.state'].to_pylist()
        assert motion.task == 'Pick up the yellow bottle on the table.'
    assert motions.chunks(TRAIN).shape == (60 - 30 + 1, 30, 26)
    assert motions.licence.startswith('MIT')
    assert not motions.rests


def test_g1_arms_are_radians_and_hands_shares_of_their_travel_measured_in_thousandths(parquet):
    motions = _build_g1(G1)
    slices = motions.embodiment.action_slices
    state = np.concatenate([m.state for m in motions.motions]).astype(np.float64)
    action = np.concatenate([m.action for m in motions.motions])
    for hand in ('left_hand', 'right_hand'):
        assert 0 <= action[:, slices[hand]].min() <= action[:, slices[hand]].max() <= 1
        thousandths = state[:, slices[hand]] * 1000
        assert np.abs(thousandths - thousandths.round()).max() < 1e-3
    # Chunks relative to the state move the arms to zero and leave the hands.
    relative, absolute = (motions.chunks(TRAIN, reference) for reference in ('state', 'absolute'))
    arms, hands = slice(0, 14), slice(14, 26)
    assert np.abs(relative[:, 0, arms]).mean() < 0.1 * np.abs(absolute[:, 0, arms]).mean()
    assert np.array_equal(relative[..., hands], absolute[..., hands])


def test_g1_folder_may_be_laid_out_as_lerobot_does(parquet, g1_folder):
    plain = _build_g1(g1_folder)
    for folder in ('meta', 'data/chunk-000'):
        (g1_folder / folder).mkdir(parents=True)
    shutil.move(g1_folder / 'info.json', g1_folder / 'meta' / 'info.json')
    for path in sorted(g1_folder.glob('*.parquet')):
        shutil.move(path, g1_folder / 'data' / 'chunk-000' / path.name)
    tasks = '{"task_index": 0, "task": "wave"}\n{"task_index": 1, "task": "bow"}\n'
    (g1_folder / 'meta' / 'tasks.jsonl').write_text(tasks)
    moved = _build_g1(g1_folder)
    for one, other in zip(moved.motions, plain.motions, strict=True):
        assert np.array_equal(one.action, other.action)
        assert (one.task, other.task) == ('wave', G1Config().task)


def _change_info(folder, change):
    info = json.loads((folder / 'info.json').read_text())
    change(info)
    (folder / 'info.json').write_text(json.dumps(info))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda i: i.update(fps=50), 'recorded at 50 Hz, the embodiment g1_inspire has 30 Hz'),
        (lambda i: i['features']['action']['names'][0].reverse(), 'action is .* expected .*kLeft'),
        (lambda i: i['features'].pop('action'), "info.json: KeyError: 'action'"),
    ],
)
def test_recording_of_another_robot_is_refused(parquet, g1_folder, change, message):
    _change_info(g1_folder, change)
    with pytest.raises(MotionError, match=message):
        _build_g1(g1_folder)


def _change_table(parquet, folder, change):
    path = folder / 'episode_000001.parquet'
    parquet.write_table(change(parquet.read_table(path)), path)


def test_dropped_frames_are_refused_where_they_are(parquet, g1_folder):
    import pyarrow as pa

    def drop(table):
        return pa.concat_tables([table.slice(0, 20), table.slice(23)])

    _change_table(parquet, g1_folder, drop)
    with pytest.raises(
        MotionError, match=r'episode_000001.*0\.1333 s between rows 19 and 20, expected 0\.0333'
    ):
        _build_g1(g1_folder)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.drop_columns(['action']), "episode_000001.parquet: no column 'action'"),
        (lambda t: t.slice(0, 0), r'expected one of|expected \[T, width\]'),
        (
            lambda t: t.set_column(
                t.schema.get_field_index('action'), 'action', [[[float('nan')] * 26] * len(t)]
            ),
            'episode_000001: action: row 0, column 0 is nan',
        ),
        (
            lambda t: t.set_column(
                t.schema.get_field_index('action'), 'action', [[[0.0] * 25] * len(t)]
            ),
            'action has 25 columns, the embodiment g1_inspire has 26',
        ),
        (
            lambda t: t.set_column(
                t.schema.get_field_index('action'), 'action', [[[0.0] * 27, *[[0.0]] * 59]]
            ),
            'action has rows of different lengths',
        ),
    ],
)
def test_damaged_episode_is_refused_by_name(parquet, g1_folder, change, message):
    _change_table(parquet, g1_folder, change)
    with pytest.raises(MotionError, match=message):
        _build_g1(g1_folder)


def test_files_that_are_no_parquet_or_absent_are_refused(parquet, g1_folder):
    (g1_folder / 'episode_000001.parquet').write_bytes(b'PAR1 and no more')
    with pytest.raises(MotionError, match=r'episode_000001\.parquet'):
        _build_g1(g1_folder)
    (g1_folder / 'info.json').unlink()
    with pytest.raises(MotionError, match=r'no info\.json'):
        _build_g1(g1_folder)
    for path in g1_folder.glob('*.parquet'):
        path.unlink()
    with pytest.raises(MotionError, match=r'no episode_\*\.parquet; expected a LeRobot'):
        g1.files(G1Config(input=str(g1_folder)))


# --- R1 Lite ----------------------------------------------------------------------------------


def _demonstration(path, seed, task='pick_red', **changes):
    rng = np.random.default_rng(seed)
    fields = {
        'images': {'head': np.zeros((5, 8, 8, 3), dtype=np.uint8)},
        'state': rng.normal(size=(5, 21)).astype(np.float32),
        'action': rng.normal(size=(5, 21)).astype(np.float32),
        'instruction': 'pick up the red block',
        'task': task,
        'seed': seed,
        'embodiment_checksum': shipped('r1_lite').checksum,
    }
    save_episode(path / f'{seed:06d}-{task}.npz', Episode(**fields | changes))


@pytest.fixture
def demonstrations(tmp_path):
    for seed in range(9):
        _demonstration(tmp_path, seed, 'drive_yellow' if seed % 3 == 2 else 'pick_red')
    return tmp_path


def _build_r1_lite(path, **changes):
    return r1_lite.build(R1LiteConfig(input=str(path), **changes), quietly)


def test_demonstrations_are_read_without_their_images(demonstrations, monkeypatch):
    read = set()
    original = np.lib.npyio.NpzFile.__getitem__

    def spy(self, key):
        read.add(key)
        return original(self, key)

    monkeypatch.setattr(np.lib.npyio.NpzFile, '__getitem__', spy)
    motions = _build_r1_lite(demonstrations)
    assert read == {'state', 'action', 'meta'}
    assert motions.rests
    rng = np.random.default_rng(4)
    assert np.array_equal(motions.motions[4].state, rng.normal(size=(5, 21)).astype(np.float32))
    assert motions.motions[4].episode == '000004-pick_red'


def test_every_nth_demonstration_of_a_known_task_is_held_out(demonstrations):
    motions = _build_r1_lite(demonstrations, held_out_every=4)
    assert [i for i, s in enumerate(motions.splits) if s == HELD_OUT] == [0, 4, 8]
    motions = _build_r1_lite(demonstrations, held_out_every=4, held_out_tasks=['drive_yellow'])
    assert [i for i, s in enumerate(motions.splits) if s == HELD_OUT_TASK] == [2, 5, 8]
    assert [i for i, s in enumerate(motions.splits) if s == HELD_OUT] == [0, 6]
    assert {m.task for m in motions.of_split(HELD_OUT_TASK)} == {'drive_yellow'}


def test_demonstrations_of_another_robot_or_no_demonstrations_are_refused(demonstrations):
    with pytest.raises(ConfigError, match="'pick_pink' is in none of the episodes"):
        _build_r1_lite(demonstrations, held_out_tasks=('pick_pink',))
    _demonstration(demonstrations, 9, embodiment_checksum='ab' * 32)
    with pytest.raises(MotionError, match=r'000009-pick_red\.npz: recorded with embodiment abab'):
        _build_r1_lite(demonstrations)
    (demonstrations / '000009-pick_red.npz').write_bytes(b'PK')
    with pytest.raises(MotionError, match=r'000009-pick_red\.npz'):
        _build_r1_lite(demonstrations)


@pytest.mark.parametrize(
    ('config', 'values', 'message'),
    [
        (G1Config, {'held_out_share': 1.0}, 'held_out_share: .* between 0 and 1, found 1.0'),
        (G1Config, {'held_out_share': '0.1'}, "found '0.1'"),
        (G1Config, {'seed': -1}, 'seed: expected a whole number >= 0, found -1'),
        (FrankaConfig, {'train_share': 0}, 'train_share: .* found 0'),
        (FrankaConfig, {'max_gap': -0.1}, 'max_gap: expected a number > 0, found -0.1'),
        (R1LiteConfig, {'held_out_every': 1}, 'held_out_every: .* >= 2, found 1'),
        (R1LiteConfig, {'held_out_tasks': 'pick_red'}, "list of tasks, found 'pick_red'"),
    ],
)
def test_configuration_out_of_range_is_refused(config, values, message):
    with pytest.raises(ConfigError, match=message):
        config(**values)


@pytest.mark.parametrize('source', [g1, franka, r1_lite])
def test_input_that_is_missing_is_refused_and_what_is_expected_is_said(source, tmp_path):
    config = source.SOURCE.config
    with pytest.raises(ConfigError, match='--input is missing: '):
        source.SOURCE.files(config())
    with pytest.raises(ConfigError, match='nowhere does not exist; expected a'):
        source.SOURCE.files(config(input=str(tmp_path / 'nowhere')))
