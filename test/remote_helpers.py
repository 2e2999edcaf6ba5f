"""A policy server in this process, and what the tests of it send."""

import contextlib
import dataclasses
import threading

import cv2
from fake_policy import FakePolicy
import numpy as np

from faster_core.observation import Observation
from faster_core.remote.client import RemotePolicy
from faster_core.remote.server import PolicyServer

CAMERAS = ('head', 'wrist_left', 'wrist_right')
STATE_DIM = 21


class ServedFake(FakePolicy):
    """A fake policy with what a server needs beside.

    Attributes:
        threads: names of the threads that ran `predict`.
        overlaps: how often one inference began inside another.
        num_levels: of the newest inference.
    """

    image_size = 96

    def __init__(self):
        super().__init__()
        self.threads, self.overlaps, self.num_levels = set(), 0, None
        self._busy = threading.Lock()

    def predict(self, observation, num_levels=None, on_chunk=None):
        self.threads.add(threading.current_thread().name)
        self.num_levels = num_levels
        if not self._busy.acquire(blocking=False):
            self.overlaps += 1
            return super().predict(observation)
        try:
            chunk = super().predict(observation)
            if on_chunk is not None:
                for level in (1, 2):
                    on_chunk(dataclasses.replace(chunk, num_levels=level))
            return chunk
        finally:
            self._busy.release()

    def make_example(self):
        return observation(size=(self.image_size, self.image_size), instruction='an example')


def picture(seed=0, size=(48, 64)):
    """Return a smooth RGB image uint8 [height, width, 3]."""
    dots = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(dots, size[::-1], interpolation=cv2.INTER_CUBIC)


def observation(seed=0, size=(48, 64), instruction='grasp the cup', stamp=12.5, **fields):
    """Return an observation of the R1 Lite."""
    state = np.random.default_rng(seed).normal(size=STATE_DIM).astype(np.float32)
    images = {c: picture(seed + i, size) for i, c in enumerate(CAMERAS)}
    return Observation(
        **{'images': images, 'state': state, 'instruction': instruction, 'stamp': stamp} | fields
    )


@contextlib.contextmanager
def serving(policy=None, **options):
    """A server on a free port; gives (server, its policy)."""
    policy = policy or ServedFake()
    with PolicyServer(policy, **{'port': 0} | options) as server:
        try:
            yield server, policy
        finally:
            getattr(policy, 'gate', threading.Event()).set()


@contextlib.contextmanager
def connected(policy=None, *, timeout=20.0, **options):
    """A server and a client of it; gives (client, policy of the server)."""
    with serving(policy) as (server, served):
        with RemotePolicy(server.address, timeout=timeout, **options) as client:
            yield client, served
