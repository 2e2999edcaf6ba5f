"""Video and contact sheet from JPEGs as a camera sends them. Without ROS."""

import cv2
import numpy as np
import pytest

from faster_vla_ros import recorder as module
from faster_vla_ros.recorder import FRAME_RATE, Recorder, RecordingError, SHEET

imageio = pytest.importorskip('imageio')


def jpeg(red, *, width=96, height=96):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = red  # OpenCV's order: blue, green, red
    return cv2.imencode('.jpg', image)[1].tobytes()


def recording(reds, *, times=None):
    """Return a recorder whose frame i is as red as `reds[i]`."""
    made = Recorder()
    for i, red in enumerate(reds):
        made.add(100.0 + (i / FRAME_RATE if times is None else times[i]), jpeg(red))
    return made


def reds_of(path):
    return [frame[..., 0].mean() for frame in imageio.get_reader(path)]


def test_the_video_shows_every_frame_once_in_rgb_at_the_cameras_rate(tmp_path):
    path = tmp_path / 'new' / 'v.mp4'
    recording([0, 60, 120, 180, 240]).write_video(path, height=96)
    assert reds_of(path) == pytest.approx([0, 60, 120, 180, 240], abs=12)
    reader = imageio.get_reader(path)
    assert reader.get_meta_data()['fps'] == FRAME_RATE
    frame = reader.get_data(4)
    assert frame.shape == (96, 96, 3)
    assert frame[..., 1].mean() < 20 and frame[..., 2].mean() < 20


def test_a_missing_frame_repeats_the_one_before_it(tmp_path):
    path = tmp_path / 'v.mp4'
    step = 1 / FRAME_RATE
    recording([0, 100, 200], times=[0, step, 4 * step]).write_video(path, height=96)
    assert reds_of(path) == pytest.approx([0, 100, 100, 100, 200], abs=12)


def test_one_frame_is_a_video_too(tmp_path):
    recording([80]).write_video(tmp_path / 'v.mp4', height=96)
    assert len(reds_of(tmp_path / 'v.mp4')) == 1


def test_sizes_are_what_a_video_encoder_wants(tmp_path):
    made = Recorder()
    made.add(0.0, jpeg(100, width=1280, height=720))
    made.write_video(tmp_path / 'v.mp4', height=384)
    height, width, _ = imageio.get_reader(tmp_path / 'v.mp4').get_data(0).shape
    assert (width % 16, height % 16) == (0, 0)
    assert width / height == pytest.approx(1280 / 720, rel=0.05)


def test_the_contact_sheet_runs_from_the_first_to_the_last_frame(tmp_path):
    path = tmp_path / 'new' / 'sheet.png'
    reds = np.linspace(0, 250, 60)
    recording(reds).write_contact_sheet(path, 'pick up the red block', height=96)
    sheet = cv2.imread(str(path))
    columns, rows = SHEET
    head = sheet.shape[0] - rows * 96
    assert head > 0 and sheet.shape[1] == columns * 96
    # Below the time written into each tile.
    found = [
        sheet[head + r * 96 + 40 : head + (r + 1) * 96, c * 96 : (c + 1) * 96, 2].mean()
        for r in range(rows)
        for c in range(columns)
    ]
    assert found == pytest.approx(np.linspace(0, 250, columns * rows), abs=12)
    assert sheet[:head].min() < 80, 'no caption'


def test_fewer_frames_than_tiles_fill_the_sheet_all_the_same(tmp_path):
    recording([10, 200]).write_contact_sheet(tmp_path / 's.png', 'short', height=96)
    assert cv2.imread(str(tmp_path / 's.png')).shape[1] == SHEET[0] * 96


def test_frames_are_copied_because_the_message_may_be_reused(tmp_path):
    made, buffer = Recorder(), bytearray(jpeg(200))
    made.add(0.0, memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    made.write_video(tmp_path / 'v.mp4', height=96)
    assert reds_of(tmp_path / 'v.mp4') == pytest.approx([200], abs=12)


def test_a_recording_has_an_upper_bound(monkeypatch):
    monkeypatch.setattr(module, 'MAX_FRAMES', 3)
    assert recording([0] * 5).num_frames == 3


def test_clear_forgets_all_frames():
    made = recording([0, 0])
    made.clear()
    assert made.num_frames == 0


@pytest.mark.parametrize('write', ['write_video', 'write_contact_sheet'])
class TestErrors:
    def _write(self, made, write, path):
        getattr(made, write)(path, *(['caption'] if write == 'write_contact_sheet' else []))

    def test_nothing_received(self, write, tmp_path):
        with pytest.raises(RecordingError, match='no camera frame'):
            self._write(Recorder(), write, tmp_path / 'file.mp4')

    def test_not_a_jpeg(self, write, tmp_path):
        made = Recorder()
        made.add(0.0, b'no picture at all')
        with pytest.raises(RecordingError, match='not a JPEG'):
            self._write(made, write, tmp_path / 'file.mp4')

    def test_a_folder_that_cannot_be_made(self, write, tmp_path):
        (tmp_path / 'file').write_text('in the way')
        with pytest.raises(RecordingError, match=r'could not write .*out.mp4'):
            self._write(recording([0]), write, tmp_path / 'file' / 'out.mp4')

    def test_a_path_that_is_a_folder(self, write, tmp_path):
        (tmp_path / 'out.mp4').mkdir()
        with pytest.raises(RecordingError, match=r'could not write .*out.mp4'):
            self._write(recording([0]), write, tmp_path / 'out.mp4')
