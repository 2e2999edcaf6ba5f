"""Sets of motions on disk: what a folder holds, and what is noticed when it is damaged."""

import json
import zipfile

from motion_helpers import motion_set, TEXT
import numpy as np
import pytest

from faster_core.data.motions import MotionError, MotionSet, SPLITS


@pytest.mark.parametrize('state', [True, False])
def test_set_is_read_back_as_it_was_written(tmp_path, state):
    written = motion_set(splits=SPLITS, state=state, rests=True, provenance={'seed': [1, 'ä']})
    written.save(tmp_path / 'new' / 'folder')
    read = MotionSet.load(tmp_path / 'new' / 'folder')
    for field in ('name', 'rate', 'source', 'licence', 'rests', 'splits', 'provenance'):
        assert getattr(read, field) == getattr(written, field)
    assert read.embodiment.source == written.embodiment.source
    for one, other in zip(read.motions, written.motions, strict=True):
        assert (one.episode, one.task) == (other.episode, other.task)
        assert np.array_equal(one.action, other.action)
        assert (one.state is None) == (not state)
        assert one.state is None or np.array_equal(one.state, other.state)


def test_same_set_gives_the_same_bytes_and_no_time_stamps(tmp_path):
    for name in 'ab':
        motion_set().save(tmp_path / name)
    files = sorted(p.name for p in (tmp_path / 'a').iterdir())
    assert files == ['dataset.json', 'embodiment.yaml', 'motions.npz']
    for name in files:
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
    with zipfile.ZipFile(tmp_path / 'a' / 'motions.npz') as archive:
        assert {m.date_time for m in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert (tmp_path / 'a' / 'embodiment.yaml').read_text() == TEXT.format(horizon=4)


def test_numpy_reads_the_arrays_without_pickle(tmp_path):
    motions = motion_set()
    motions.save(tmp_path)
    with np.load(tmp_path / 'motions.npz', allow_pickle=False) as file:
        assert file['lengths'].tolist() == [6, 9, 7]
        assert np.array_equal(file['action'], np.concatenate([m.action for m in motions.motions]))
        assert file['state'].shape == (22, 2)


def test_smaller_set_replaces_a_larger_one(tmp_path):
    motion_set().save(tmp_path)
    motion_set((5,)).save(tmp_path)
    assert [m.num_steps for m in MotionSet.load(tmp_path).motions] == [5]


@pytest.mark.parametrize('name', ['motions.npz', 'embodiment.yaml'])
def test_one_changed_byte_is_noticed(tmp_path, name):
    motion_set().save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MotionError, match=rf'{name} has sha256 .* dataset.json says') as caught:
        MotionSet.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize('name', ['motions.npz', 'embodiment.yaml', 'dataset.json'])
def test_missing_file_is_named(tmp_path, name):
    motion_set().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MotionError, match=rf'{tmp_path}.*{name}'):
        MotionSet.load(tmp_path)


def test_set_whose_writing_was_interrupted_is_no_set(tmp_path, monkeypatch):
    motion_set().save(tmp_path)

    def fail(*args, **kwargs):
        raise OSError('no space left')

    monkeypatch.setattr('pathlib.Path.write_bytes', fail)
    with pytest.raises(OSError, match='no space'):
        motion_set((5,)).save(tmp_path)
    with pytest.raises(MotionError, match='no set of motions'):
        MotionSet.load(tmp_path)


def _described(folder, **changes):
    path = folder / 'dataset.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'format': 2}, 'format 2, expected 1'),
        ({'rate': 30.0}, 'recorded at 30 Hz, the embodiment toy has 10 Hz'),
        ({'motions': []}, 'disagree about the lengths'),
        ({'motions': [{'episode': 'a'}] * 3}, "malformed: KeyError: 'steps'"),
        ({'sha256': {}}, "malformed: KeyError: 'embodiment.yaml'"),
    ],
)
def test_description_that_does_not_fit_the_arrays_is_refused(tmp_path, changes, message):
    motion_set().save(tmp_path)
    _described(tmp_path, **changes)
    with pytest.raises(MotionError, match=message):
        MotionSet.load(tmp_path)


@pytest.mark.parametrize('text', ['', '[]', 'null', '{"format": 1'])
def test_description_that_is_none_is_refused(tmp_path, text):
    motion_set().save(tmp_path)
    (tmp_path / 'dataset.json').write_text(text)
    with pytest.raises(MotionError, match=str(tmp_path)):
        MotionSet.load(tmp_path)
