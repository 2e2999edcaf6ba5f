"""Motions from a rosbag2 recording of joint states."""

import pathlib
import shutil
import sqlite3

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from faster_core.data.motions import HELD_OUT, MotionError, TRAIN
from faster_core.data.sources import franka
from faster_core.data.sources.franka import FrankaConfig, resample
from faster_core.data.sources.source import quietly

FRANKA = pathlib.Path(__file__).parent / 'data' / 'franka_extract'


@pytest.fixture
def franka_folder(tmp_path):
    return shutil.copytree(FRANKA, tmp_path / 'franka')


@pytest.fixture
def rosbags():
    return pytest.importorskip('rosbags.typesys', reason='reads bags: pip install .[data]')


def _build_franka(path, **changes):
    return franka.build(FrankaConfig(input=str(path), **changes), quietly)


def test_franka_recording_is_cut_in_time_with_a_horizon_between_the_parts(rosbags):
    motions = _build_franka(FRANKA)
    whole = _build_franka(FRANKA, train_share=0.5)
    assert motions.splits == (TRAIN, HELD_OUT)
    train, held_out = motions.motions
    # 100 messages over 3.30 s: 100 rows at 30 Hz, and the last has no following one.
    assert (train.num_steps, held_out.num_steps) == (25, 99 - 25 - 30)
    assert np.array_equal(whole.motions[0].action[:25], train.action)
    assert np.array_equal(whole.motions[1].action, held_out.action[-19:])


def test_franka_set_point_is_the_position_measured_one_period_later(rosbags):
    for motion in _build_franka(FRANKA).motions:
        assert np.array_equal(motion.action[:-1], motion.state[1:])
        assert (np.abs(np.diff(motion.action, axis=0)).max(axis=0) > 1e-4).all()


def test_lone_database_reads_like_its_folder_and_its_folder_is_left_as_it_was(
    rosbags, franka_folder
):
    folder = _build_franka(franka_folder)
    before = sorted(p.name for p in franka_folder.iterdir())
    alone = _build_franka(franka_folder / 'bag.db3')
    assert sorted(p.name for p in franka_folder.iterdir()) == before
    for one, other in zip(folder.motions, alone.motions, strict=True):
        assert np.array_equal(one.action, other.action)
    assert alone.provenance['messages'] == 100


def _rewrite(rosbags, folder, change):
    """Pass every message through `change` (in place)."""
    store = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)
    bag = sqlite3.connect(folder / 'bag.db3')
    for key, data in bag.execute('SELECT id, data FROM messages').fetchall():
        message = store.deserialize_cdr(data, franka.TYPE)
        change(key, message)
        data = bytes(store.serialize_cdr(message, franka.TYPE))
        bag.execute('UPDATE messages SET data = ? WHERE id = ?', (data, key))
    bag.commit()
    bag.close()


def test_joints_are_found_by_name_whatever_their_order_in_the_message(rosbags, franka_folder):
    plain = _build_franka(franka_folder)

    def shuffle(key, message):
        order = np.random.default_rng(key).permutation(7)
        message.name = [message.name[i] for i in order]
        message.position = message.position[order]

    _rewrite(rosbags, franka_folder, shuffle)
    for one, other in zip(_build_franka(franka_folder).motions, plain.motions, strict=True):
        assert np.array_equal(one.action, other.action)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda k, m: m.name.__setitem__(2, 'elbow'), 'no position of fer_joint3 among'),
        (lambda k, m: setattr(m, 'position', m.position[:5]), 'no position of fer_joint6'),
        (lambda k, m: setattr(m.header.stamp, 'nanosec', 0), 'stamps do not rise: 0.0'),
        (
            lambda k, m: setattr(m.header.stamp, 'sec', 9) if k == 100 else None,
            'no message for 6.*at most 0.1 s',
        ),
        (lambda k, m: setattr(m, 'position', m.position * np.nan), 'episode train: .* is nan'),
    ],
)
def test_recording_that_is_not_one_motion_of_this_arm_is_refused(
    rosbags, franka_folder, change, message
):
    _rewrite(rosbags, franka_folder, change)
    with pytest.raises(MotionError, match=message):
        _build_franka(franka_folder)


@pytest.mark.parametrize(
    ('statement', 'message'),
    [
        ("UPDATE topics SET name = '/states'", 'no topic /joint_states, only /states'),
        ("UPDATE topics SET type = 'std_msgs/msg/String'", "'std_msgs/msg/String'.*expected"),
        ("UPDATE topics SET serialization_format = 'json'", "'json'.*expected"),
        ("UPDATE messages SET data = x'00010000' WHERE id = 7", 'a message of 4 bytes is no'),
        ('DELETE FROM messages', '0 messages, expected at least 2'),
        ('DELETE FROM messages WHERE id > 20', 'leave none for split'),
        ('DROP TABLE topics', 'no such table: topics'),
    ],
)
def test_database_without_the_joint_states_is_refused(rosbags, franka_folder, statement, message):
    bag = sqlite3.connect(franka_folder / 'bag.db3')
    bag.execute(statement)
    bag.commit()
    bag.close()
    with pytest.raises(MotionError, match=message):
        _build_franka(franka_folder)


def test_file_that_is_no_database_and_folder_without_one_are_refused(rosbags, tmp_path):
    (tmp_path / 'note.db3').write_text('not a database, however long this text may be' * 50)
    with pytest.raises(MotionError, match=r'note\.db3: file is not a database'):
        _build_franka(tmp_path)
    (tmp_path / 'other.db3').touch()
    with pytest.raises(MotionError, match=r'2 files \*\.db3, expected one'):
        _build_franka(tmp_path)


@given(
    st.lists(st.floats(0.001, 0.09), min_size=1, max_size=40),
    st.floats(-5, 5),
    st.floats(-5, 5),
    st.floats(0.005, 0.05),
)
def test_straight_line_stays_one_at_any_stamps(steps, slope, offset, period):
    stamps = 1000.0 + np.cumsum([0.0, *steps])
    positions = np.stack([offset + slope * (stamps - stamps[0]), -stamps], axis=1)
    rows = resample(stamps, positions, period, 0.1, 'x')
    length = stamps[-1] - stamps[0]
    assert (len(rows) - 1) * period <= length + 1e-6 < (len(rows) + 1e-3) * period + 1e-6
    assert np.allclose(rows[:, 0], offset + slope * period * np.arange(len(rows)), atol=1e-4)
