"""Demonstrations on disk: read back as written, never half, never with pickle; chunk labels."""

import pathlib

import numpy as np
import pytest

from faster_core.data.episodes import (
    chunk_labels,
    Episode,
    EpisodeError,
    load_episode,
    load_episodes,
    load_motions,
    save_episode,
)
from faster_core.embodiment import Embodiment
from faster_core.paths import embodiment_file


@pytest.fixture(scope='module')
def embodiment():
    return Embodiment.load(embodiment_file('r1_lite'))


def _episode(steps=5, seed=3, **changes):
    rng = np.random.default_rng(seed)
    values = {
        'images': {
            camera: rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8)
            for camera in ('head', 'wrist_left')
        },
        'state': rng.normal(size=(steps, 21)).astype(np.float32),
        'action': rng.normal(size=(steps, 21)).astype(np.float32),
        'instruction': 'hebe den "roten" Würfel auf',
        'task': 'pick_red',
        'seed': seed,
        'embodiment_checksum': 'ab' * 32,
    }
    return Episode(**(values | changes))


def _write(path, **arrays):
    with path.open('wb') as file:
        np.savez(file, **arrays)


def test_episode_is_read_back_as_it_was_written(tmp_path):
    episode, path = _episode(), tmp_path / 'new' / 'a.npz'
    save_episode(path, episode)
    back = load_episode(path)
    assert back.images.keys() == episode.images.keys()
    for camera, images in episode.images.items():
        assert np.array_equal(back.images[camera], images)
        assert back.images[camera].dtype == np.uint8
    for name in ('state', 'action'):
        assert np.array_equal(getattr(back, name), getattr(episode, name))
        assert getattr(back, name).dtype == np.float32
    for name in ('instruction', 'task', 'seed', 'embodiment_checksum', 'num_steps'):
        assert getattr(back, name) == getattr(episode, name)


def test_writing_that_fails_half_way_leaves_the_old_episode(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    save_episode(path, _episode(seed=1))

    def fail(file, **arrays):
        file.write(b'PK half of it')
        raise OSError('disk full')

    monkeypatch.setattr(np, 'savez', fail)
    with pytest.raises(OSError, match='disk full'):
        save_episode(path, _episode(seed=2))
    with pytest.raises(OSError, match='disk full'):
        save_episode(tmp_path / 'b.npz', _episode(seed=2))
    assert [p.name for p in tmp_path.glob('*.npz')] == ['a.npz']
    assert load_episode(path).seed == 1


@pytest.mark.parametrize('keep', [0.0, 0.02, 0.5, 0.99])
def test_truncated_file_is_an_error_that_names_it(tmp_path, keep):
    path = tmp_path / 'cut.npz'
    save_episode(path, _episode())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    for load in (load_episode, lambda _: load_motions(tmp_path)):
        with pytest.raises(EpisodeError, match=r'cut\.npz'):
            load(path)


def test_bit_flipped_in_the_middle_is_noticed(tmp_path):
    path = tmp_path / 'flipped.npz'
    save_episode(path, _episode())
    content = bytearray(path.read_bytes())
    content[content.index(b'state.npy') + 400] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(EpisodeError, match=r'flipped\.npz'):
        load_episode(path)


@pytest.mark.parametrize('content', [b'', b'not an episode', b'PK\x03\x04', b'\x80\x04K\x01.'])
def test_file_that_is_no_episode_is_an_error(tmp_path, content):
    path = tmp_path / 'strange.npz'
    path.write_bytes(content)
    with pytest.raises(EpisodeError, match=r'strange\.npz'):
        load_episode(path)


def test_bare_array_under_the_name_of_an_episode_is_an_error(tmp_path):
    path = tmp_path / 'bare.npz'
    with path.open('wb') as file:
        np.save(file, np.zeros(3))
    for load in (load_episode, lambda _: load_motions(tmp_path)):
        with pytest.raises(EpisodeError, match=r'bare\.npz'):
            load(path)


def test_absent_file_and_folder_are_errors_that_name_them(tmp_path):
    with pytest.raises(EpisodeError, match=r'absent\.npz'):
        load_episode(tmp_path / 'absent.npz')
    for load in (load_episodes, load_motions):
        with pytest.raises(EpisodeError, match='no episodes'):
            load(tmp_path / 'nowhere')


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize('name', ['meta', 'state', 'action', 'image.head'])
def test_pickled_object_in_an_episode_is_refused_and_never_run(tmp_path, name):
    path, trace = tmp_path / 'pickled.npz', tmp_path / 'it_ran'
    good = np.zeros((5, 21), dtype=np.float32)
    arrays = {'meta': np.frombuffer(b'{}', dtype=np.uint8), 'state': good, 'action': good}
    bomb = np.array([_Bomb(trace)] * 5, dtype=object)
    _write(path, **(arrays | {name: bomb}))
    with pytest.raises(EpisodeError, match='allow_pickle'):
        load_episode(path)
    assert not trace.exists()


@pytest.mark.parametrize('meta', ['{}', '[]', '{"seed": 1', '{"colour": "red"}'])
def test_missing_or_unknown_description_is_an_error(tmp_path, meta):
    path, values = tmp_path / 'odd.npz', np.zeros((5, 21), dtype=np.float32)
    _write(path, meta=np.frombuffer(meta.encode(), dtype=np.uint8), state=values, action=values)
    with pytest.raises(EpisodeError, match=r'odd\.npz'):
        load_episode(path)


@pytest.mark.parametrize(
    'changes',
    [
        {'state': np.zeros((4, 21))},
        {'action': np.zeros((6, 21))},
        {'images': {'head': np.zeros((4, 8, 8, 3), dtype=np.uint8)}},
        {'images': {}, 'state': np.zeros((0, 21)), 'action': np.zeros((0, 21))},
    ],
)
def test_arrays_of_different_lengths_or_none_are_refused(changes):
    with pytest.raises(EpisodeError, match='lengths differ or are zero'):
        _episode(**changes)


def test_folder_is_read_in_the_order_of_names_up_to_a_limit(tmp_path):
    for seed in (2, 0, 1):
        save_episode(tmp_path / f'{seed:06d}.npz', _episode(seed=seed))
    assert [e.seed for e in load_episodes(tmp_path)] == [0, 1, 2]
    assert [e.seed for e in load_episodes(tmp_path, limit=2)] == [0, 1]
    motions = load_motions(tmp_path)
    assert [(s.shape, a.shape) for s, a in motions] == [((5, 21), (5, 21))] * 3
    assert np.array_equal(motions[2][0], _episode(seed=2).state)
    assert np.array_equal(motions[2][1], _episode(seed=2).action)


def test_episodes_of_different_embodiments_do_not_mix(tmp_path):
    save_episode(tmp_path / 'a.npz', _episode())
    save_episode(tmp_path / 'b.npz', _episode(embodiment_checksum='cd' * 32))
    with pytest.raises(EpisodeError, match='different embodiments'):
        load_episodes(tmp_path)


@pytest.mark.parametrize('steps', [1, 5, 32, 60])
def test_chunk_of_a_step_begins_with_the_set_point_one_period_later(embodiment, steps):
    # Row t of an episode's action is the set-point due at t + 1, so it is row 0 of chunk t.
    action = _episode(steps=steps).action
    labels = chunk_labels(action, embodiment)
    assert (labels.shape, labels.dtype) == ((steps, 32, 21), np.float32)
    assert np.array_equal(labels[:, 0], action)
    for t in range(steps):
        inside = min(32, steps - t)
        assert np.array_equal(labels[t, :inside], action[t : t + inside])


def test_rows_past_the_end_hold_positions_and_stop_velocities(embodiment):
    action = _episode(steps=5).action
    assert (action[-1] != 0).all()
    past = chunk_labels(action, embodiment)[2, 3:]
    for c in embodiment.action:
        columns = embodiment.action_slices[c.name]
        expected = action[-1, columns] if c.kind.is_position else np.zeros(c.size)
        assert np.array_equal(past[:, columns], np.tile(expected, (29, 1)).astype(np.float32))


def test_labels_leave_the_episode_as_it_was(embodiment):
    action = _episode(steps=5).action
    before = action.copy()
    chunk_labels(action, embodiment)[:] = 7.0
    assert np.array_equal(action, before)
