"""Pictures of an episode: keeps the JPEGs as they came and writes a video and a contact sheet."""

from __future__ import annotations

import pathlib

import cv2
import numpy as np

from faster_core.errors import FasterVlaError

FRAME_RATE = 15.0
# Frames of the contact sheet: columns, rows.
SHEET = (4, 3)
MAX_FRAMES = 15 * 600


class RecordingError(FasterVlaError, RuntimeError):
    """There is nothing to write, or it cannot be written."""


class Recorder:
    """Frames of one camera: (seconds, JPEG)."""

    def __init__(self) -> None:
        """Start empty."""
        self._frames: list[tuple[float, bytes]] = []

    @property
    def num_frames(self) -> int:
        """Number of frames kept."""
        return len(self._frames)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def add(self, seconds: float, jpeg: bytes) -> None:
        """Keep a frame; more than ten minutes are not kept."""
        if len(self._frames) < MAX_FRAMES:
            self._frames.append((seconds, bytes(jpeg)))

    def write_video(self, path: pathlib.Path, height: int = 384) -> None:
        """Write an H.264 video at `FRAME_RATE`; a missing frame repeats the one before it.

        Raises:
            RecordingError: there are no frames, one is no JPEG, or the file cannot be written.
        """
        import imageio

        self._need_frames()
        start, end = self._frames[0][0], self._frames[-1][0]
        times = np.array([t for t, _ in self._frames])
        wanted = start + np.arange(round((end - start) * FRAME_RATE) + 1) / FRAME_RATE
        indices = np.searchsorted(times, wanted + 0.5 / FRAME_RATE, side='right') - 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with imageio.get_writer(
                path, fps=FRAME_RATE, codec='libx264', macro_block_size=16, quality=7
            ) as writer:
                for index in indices:
                    writer.append_data(_scaled(_decode(self._frames[index][1]), height))
        except OSError as e:
            raise RecordingError(f'could not write {path}: {e}') from e
        if not path.is_file():  # the encoder is another process: it only prints its error
            raise RecordingError(f'could not write {path}')

    def write_contact_sheet(self, path: pathlib.Path, caption: str, height: int = 192) -> None:
        """Write a PNG of frames evenly spread over the episode, each with its time.

        Raises:
            RecordingError: there are no frames, one is no JPEG, or the file cannot be written.
        """
        self._need_frames()
        columns, rows = SHEET
        picks = np.linspace(0, len(self._frames) - 1, columns * rows).round().astype(int)
        start = self._frames[0][0]
        tiles = [
            _labelled(_scaled(_decode(jpeg), height), f'{seconds - start:.1f} s')
            for seconds, jpeg in (self._frames[i] for i in picks)
        ]
        grid = np.concatenate(
            [np.concatenate(tiles[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
        )
        head = np.full((36, grid.shape[1], 3), 255, np.uint8)
        _write(head, caption, (8, 25), (0, 0, 0), 0.55)
        sheet = np.concatenate([head, grid])
        # Not `imwrite`: it reports an error of the file system as False.
        _, png = cv2.imencode('.png', sheet[:, :, ::-1])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png.tobytes())
        except OSError as e:
            raise RecordingError(f'could not write {path}: {e}') from e

    def _need_frames(self) -> None:
        if not self._frames:
            raise RecordingError('no camera frame was received')


def _decode(jpeg: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise RecordingError('a camera frame is not a JPEG')
    return np.ascontiguousarray(image[:, :, ::-1])


def _scaled(image: np.ndarray, height: int) -> np.ndarray:
    """Scale to a height, width a multiple of 16 (what video encoders want)."""
    width = max(16, round(image.shape[1] * height / image.shape[0] / 16) * 16)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def _labelled(image: np.ndarray, text: str) -> np.ndarray:
    _write(image, text, (6, 18), (0, 0, 0), 0.5, thickness=3)
    _write(image, text, (6, 18), (255, 255, 255), 0.5)
    return image


def _write(image, text, at, colour, scale, thickness=1) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
