"""Cameras of the simulated robot: one thread renders and encodes while physics goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import queue
import threading
from typing import Any

import cv2
import numpy as np

from faster_core.sim.robot import make_robot, SimulatedRobot


class CameraThread:
    """Renders all cameras of one instant; when it falls behind, the newest instant wins.

    It owns a simulator of its own that only ever shows poses of the real one, so physics never
    waits for a picture, and the renderers live and die in this thread.
    """

    def __init__(
        self,
        sizes: Mapping[str, tuple[int, int]],
        quality: int | None,
        deliver: Callable[[str, Any, bytes | np.ndarray], None],
        failed: Callable[[Exception], None],
        make_sim: Callable[[], SimulatedRobot] = lambda: make_robot('r1_lite'),
    ) -> None:
        """Start the thread and render once, so that the first real frame is not late.

        Args:
            sizes: camera -> (width, height) in pixels.
            quality: of the JPEG, 1 to 100; None delivers RGB arrays [height, width, 3].
            deliver: called in the thread with camera, stamp and every picture.
            failed: called in the thread with what ended it; no picture comes afterwards.
            make_sim: builds the simulator of the robot that is shown.
        """
        self._sizes, self._quality = dict(sizes), quality
        self._deliver, self._failed = deliver, failed
        self._make_sim = make_sim
        self._inbox: queue.Queue[tuple[Any, Any] | None] = queue.Queue(maxsize=1)
        self._ready = threading.Event()
        self.num_skipped = 0
        self._thread = threading.Thread(target=self._run, name='cameras', daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait until the renderers exist (or the thread gave up); False after `timeout` s."""
        return self._ready.wait(timeout)

    def show(self, pose: Any, stamp: Any) -> None:
        """Ask for pictures of `pose`; replaces an instant that is still waiting."""
        try:
            self._inbox.put_nowait((pose, stamp))
        except queue.Full:
            try:
                self._inbox.get_nowait()
                self.num_skipped += 1
            except queue.Empty:
                pass  # the thread took it meanwhile
            self._inbox.put_nowait((pose, stamp))

    def close(self, timeout: float = 5.0) -> None:
        """End the thread; its renderers are freed in it."""
        try:
            self._inbox.get_nowait()
        except queue.Empty:
            pass  # nothing waits
        self._inbox.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            sim = self._make_sim()
            try:
                self._render_once(sim)
                self._ready.set()
                while (job := self._inbox.get()) is not None:
                    self._render(sim, *job)
            finally:
                sim.close()
        except Exception as e:  # a dead camera must be heard of, not only seen
            self._failed(e)
        finally:
            self._ready.set()

    def _render_once(self, sim: SimulatedRobot) -> None:
        for camera, size in self._sizes.items():
            sim.render(camera, size)

    def _render(self, sim: SimulatedRobot, pose: Any, stamp: Any) -> None:
        sim.show(pose)
        for camera, size in self._sizes.items():
            image = sim.render(camera, size)
            quality = self._quality
            self._deliver(camera, stamp, image if quality is None else encode_jpeg(image, quality))


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode an RGB image [h, w, 3] as a camera driver does.

    Raises:
        ValueError: the image cannot be encoded.
    """
    try:
        ok, data = cv2.imencode('.jpg', image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        ok = False
    if not ok:
        raise ValueError(f'could not encode an image of shape {list(image.shape)}')
    return data.tobytes()
