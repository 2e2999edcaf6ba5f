"""`faster-vla data`: a set is prepared once, and again when anything that decides it changes."""

import dataclasses
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from faster_core.data import prepare as module
from faster_core.data.motions import Motion, MotionError, MotionSet, TRAIN
from faster_core.data.prepare import configuration, prepare, recipe_of
from faster_core.data.sources import SOURCES
from faster_core.data.sources.source import shipped, Source
from faster_core.errors import ConfigError
from faster_vla_ros import cli

G1 = pathlib.Path(__file__).parent / 'data' / 'g1_extract'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SineConfig:
    input: str = ''
    length: int = 40
    tasks: tuple[str, ...] = ('swing',)


class Sine(Source):
    """A source of our own: reads a number from every file and counts how often it is built."""

    def __init__(self, **changes):
        fields = {
            'about': 'a sine',
            'version': 1,
            'config': SineConfig,
            'build': self.make,
            'embodiment': 'franka',
            'files': lambda config: sorted(pathlib.Path(config.input).glob('*.txt')),
            'packages': ('numpy', 'no-such-distribution'),
        }
        super().__init__(**fields | changes)
        object.__setattr__(self, 'built', [])

    def make(self, config, track):
        self.built.append(config)
        motions = tuple(
            Motion(
                episode=path.stem,
                task=config.tasks[0],
                action=np.sin(np.arange(config.length * 7).reshape(-1, 7) + len(path.read_text())),
            )
            for path in track(self.files(config))
        )
        return MotionSet(
            name='sine',
            embodiment=shipped('franka'),
            rate=30.0,
            source='a sine',
            licence='Apache-2.0',
            rests=False,
            motions=motions,
            splits=(TRAIN,) * len(motions),
            provenance={'attempts': 3, 'failed': ['one']},
        )


@pytest.fixture
def sine(monkeypatch):
    source = Sine()
    monkeypatch.setattr(module, 'SOURCES', {**SOURCES, 'sine': source})
    return source


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / 'recordings'
    folder.mkdir()
    for name in ('a', 'bb'):
        (folder / f'{name}.txt').write_text(name)
    return folder


def _prepare(recordings, out, **changes):
    return prepare('sine', SineConfig(input=str(recordings), **changes), out)


def test_second_run_does_nothing_and_gives_the_same_set(sine, recordings, tmp_path):
    first, kept = _prepare(recordings, tmp_path / 'out')
    assert not kept
    written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'out').iterdir()}
    second, kept = _prepare(recordings, tmp_path / 'out')
    assert kept
    assert len(sine.built) == 1
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'out').iterdir()} == written
    for one, other in zip(first.motions, second.motions, strict=True):
        assert np.array_equal(one.action, other.action)


def test_two_folders_of_one_recipe_are_the_same_bytes(sine, recordings, tmp_path):
    for name in 'xy':
        _prepare(recordings, tmp_path / name)
    assert len(sine.built) == 2
    for path in (tmp_path / 'x').iterdir():
        assert path.read_bytes() == (tmp_path / 'y' / path.name).read_bytes()


def test_where_the_recordings_are_does_not_count(sine, recordings, tmp_path):
    _prepare(recordings, tmp_path / 'out')
    moved = shutil.copytree(recordings, tmp_path / 'elsewhere')
    assert _prepare(moved, tmp_path / 'out')[1]


def _grow(path):
    path.write_text('much longer')


@pytest.mark.parametrize(
    'change',
    [
        lambda folder: _grow(folder / 'a.txt'),
        lambda folder: (folder / 'a.txt').rename(folder / 'c.txt'),
        lambda folder: (folder / 'd.txt').write_text('d'),
        lambda folder: (folder / 'bb.txt').unlink(),
    ],
    ids=['another size', 'another name', 'one more', 'one less'],
)
def test_changed_recordings_are_read_again(sine, recordings, tmp_path, change):
    _prepare(recordings, tmp_path / 'out')
    change(recordings)
    motions, kept = _prepare(recordings, tmp_path / 'out')
    assert not kept
    assert [m.episode for m in motions.motions] == [
        p.stem for p in sorted(recordings.glob('*.txt'))
    ]


def test_another_configuration_version_or_package_is_another_recipe(
    sine, recordings, tmp_path, monkeypatch
):
    out = tmp_path / 'out'
    _prepare(recordings, out)
    assert not _prepare(recordings, out, length=50)[1]
    assert _prepare(recordings, out, length=50)[1]
    monkeypatch.setattr(module, '_version', lambda package: '9')
    assert not _prepare(recordings, out, length=50)[1]
    monkeypatch.setitem(module.SOURCES, 'sine', Sine(version=2))
    assert not _prepare(recordings, out, length=50)[1]
    monkeypatch.setattr(module, 'shipped', lambda name: shipped('aloha'))
    assert not _prepare(recordings, out, length=50)[1]


def test_damaged_set_is_made_again(sine, recordings, tmp_path):
    _prepare(recordings, tmp_path / 'out')
    (tmp_path / 'out' / 'motions.npz').write_bytes(b'PK')
    assert not _prepare(recordings, tmp_path / 'out')[1]
    assert len(MotionSet.load(tmp_path / 'out').motions) == 2


def test_recipe_is_kept_with_the_set(sine, recordings, tmp_path):
    motions, _ = _prepare(recordings, tmp_path / 'out')
    recipe = recipe_of('sine', SineConfig(input=str(recordings)))
    assert motions.provenance['config'] == {'length': 40, 'tasks': ['swing']}
    assert recipe['files'] == [['a.txt', 1], ['bb.txt', 2]]
    assert recipe['packages'] == {'numpy': np.__version__, 'no-such-distribution': 'missing'}
    assert MotionSet.load(tmp_path / 'out').provenance == motions.provenance
    assert motions.provenance['attempts'] == 3


def test_failed_build_leaves_an_older_set_alone(sine, recordings, tmp_path):
    _prepare(recordings, tmp_path / 'out')
    with pytest.raises(MotionError, match='expected'):
        _prepare(recordings, tmp_path / 'out', length=0)
    assert len(MotionSet.load(tmp_path / 'out').motions) == 2


def test_unknown_source_and_unknown_field_are_refused():
    with pytest.raises(ConfigError, match="no source 'bridge'; known: metaworld, aloha"):
        configuration('bridge', {}, source='x')
    with pytest.raises(ConfigError, match='x: unknown keys episode; known: tasks, '):
        configuration('aloha', {'episode': 3}, source='x')
    with pytest.raises(ConfigError, match='y: unknown keys input'):
        configuration('metaworld', {'input': 'here'}, source='y')


# --- the command ------------------------------------------------------------------------------


def test_command_prepares_once_says_so_and_tells_what_a_folder_holds(tmp_path, capsys):
    pytest.importorskip('pyarrow', reason='reads parquet: pip install .[data]')
    (tmp_path / 'changes.yaml').write_text('held_out_share: 0.5\n')
    out = str(tmp_path / 'set')
    command = ['data', 'prepare', 'g1', '--input', str(G1), '--out', out, '--json']
    command += ['--config', str(tmp_path / 'changes.yaml')]
    assert cli.main(command) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (first['kept'], first['folder'], first['splits']['train']['steps']) == (False, out, 60)
    assert cli.main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f'{out} holds this set already; nothing done'
    second = json.loads(said[-1])
    assert second | {'seconds': 0, 'kept': 0} == first | {'seconds': 0, 'kept': 0}
    assert second['kept']
    assert cli.main(['data', 'info', out]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told['licence'], len(told['columns'])) == (first['licence'], 26)


def test_command_shows_failed_attempts_of_a_generated_set(sine, recordings, tmp_path, capsys):
    options = ['--input', str(recordings), '--out', str(tmp_path / 'out')]
    assert cli.main(['data', 'prepare', 'sine', *options, '--json']) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told['attempts'], told['failed']) == (3, ['one'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['prepare', 'bridge', '--out', 'x'], "no source 'bridge'"),
        (['prepare', 'g1', '--out', 'x'], '--input is missing: a LeRobot v2.1 folder'),
        (['prepare', 'aloha', '--input', 'y', '--out', 'x'], 'unknown keys input'),
        (['prepare', 'aloha', '--config', 'absent.yaml', '--out', 'x'], 'absent.yaml'),
        (['info', 'nowhere'], 'nowhere: no set of motions'),
    ],
)
def test_command_that_cannot_be_carried_out_says_why_and_writes_nothing(
    options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(['data', *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('text', ['- a list', 'a: [1', '"text"'])
def test_configuration_file_that_is_no_mapping_is_refused(tmp_path, capsys, text):
    path = tmp_path / 'changes.yaml'
    path.write_text(text)
    command = ['data', 'prepare', 'aloha', '--config', str(path), '--out', str(tmp_path / 'x')]
    assert cli.main(command) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ('missing', 'advice'),
    [
        ('metaworld', "pip install '.[data]' && pip install --no-deps metaworld==3.1.1"),
        ('gym_aloha', "gym_aloha is missing: pip install '.[data]'"),
    ],
)
def test_missing_simulator_is_told_with_the_way_to_get_it(
    tmp_path, monkeypatch, capsys, missing, advice
):
    pytest.importorskip('dm_control', reason='stands before gym_aloha: pip install .[data]')
    for name in [n for n in sys.modules if n.split('.')[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    source = {'metaworld': 'metaworld', 'gym_aloha': 'aloha'}[missing]
    assert cli.main(['data', 'prepare', source, '--out', str(tmp_path / 'x')]) == 2
    assert advice in capsys.readouterr().err


def test_help_on_data_needs_none_of_the_packages_it_uses(monkeypatch, capsys):
    for name in ('tqdm', 'pyarrow', 'rosbags', 'metaworld', 'gym_aloha', 'mujoco'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as ending:
        cli.main(['data', 'prepare', '--help'])
    assert ending.value.code == 0
    assert '--input' in capsys.readouterr().out
