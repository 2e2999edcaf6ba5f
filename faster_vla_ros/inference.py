"""The one inference thread: newest observation wins, exceptions become reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import threading
import time
import traceback
from typing import Any, Protocol

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.errors import DecodeError, FasterVlaError
from faster_core.observation import Observation
from faster_vla_ros.sensors.images import jpeg_file, to_rgb


class PolicyLike(Protocol):
    """What the node needs of `faster_core.policy.Policy`.

    A policy with `takes_jpeg` gets JPEG files (bytes) undecoded, one with `close` is closed.
    `on_chunk` is given only where coarse chunks are wanted.
    """

    embodiment: Embodiment

    def predict(
        self, observation: Observation, *, on_chunk: Callable[[ActionChunk], None] | None = None
    ) -> ActionChunk:
        """Return a chunk; coarser ones of the same observation are passed on before it."""

    def check_instruction(self, text: str) -> None:
        """Refuse what the policy does not understand (InstructionError)."""

    def reset(self, seed: int | None = None) -> None:
        """Start anew."""

    def warmup(self, iterations: int = 3, *, coarse: bool = False) -> None:
        """Run a few inferences; `coarse`: with `on_chunk`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A synchronised set of messages, not decoded yet.

    Attributes:
        generation: count of instruction changes when it was made; the result counts only if it
            is still the same.
    """

    images: Mapping[str, Any]
    state: np.ndarray
    instruction: str
    stamp: float
    generation: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: a chunk or an error, never both.

    Attributes:
        started: `time.perf_counter` when preprocessing began.
        preprocess_ms: decoding of the images, to be added to the policy's own.
        coarse: the chunk is a first, coarser one; the job goes on.
        fatal: the thread has ended.
    """

    job: Job
    started: float
    preprocess_ms: float = 0.0
    chunk: ActionChunk | None = None
    error: Exception | None = None
    coarse: bool = False
    fatal: bool = False
    text: str = ''


class InferenceThread:
    """Takes jobs, calls `done` with every outcome from its own thread."""

    def __init__(
        self,
        policy: PolicyLike,
        *,
        started: Callable[[Job], None],
        done: Callable[[Outcome], None],
        min_period: float = 0.0,
        coarse: bool = False,
    ) -> None:
        """Start the thread; it waits for `offer`.

        Args:
            policy: what runs.
            started: called with every job when its inference begins.
            done: called with every outcome.
            min_period: seconds from one beginning to the next, at least; may be changed.
            coarse: also report the first coarser chunk of every job, if the policy has any.
        """
        self._policy, self._started, self._done = policy, started, done
        self.min_period, self._coarse = min_period, coarse
        self._condition = threading.Condition()
        self._job: Job | None = None
        self._stopping = self._reset_wanted = False
        self.num_dropped = 0
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def offer(self, job: Job) -> None:
        """Replace the job that waits, if any."""
        with self._condition:
            self.num_dropped += self._job is not None
            self._job = job
            self._condition.notify()

    def discard(self) -> None:
        """Drop the job that waits: its instruction is no more."""
        with self._condition:
            self._job = None

    def reset(self) -> None:
        """Have the policy start anew before the next job.

        A policy is not thread-safe, hence only this thread touches it.
        """
        with self._condition:
            self._reset_wanted = True

    def stop(self) -> None:
        """End after the inference in progress, whose outcome is dropped."""
        with self._condition:
            self._stopping, self._job = True, None
            self._condition.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the end after `stop`; False if it has not come in `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._take()) is not None:
            start = time.perf_counter()
            try:
                self._started(job)
                outcome = self._infer(job, start)
                self._report(outcome)
            except Exception as e:  # a thread that ends in silence looks like one that works
                text = traceback.format_exc()
                outcome = Outcome(job=job, started=start, error=e, fatal=True, text=text)
                self._report(outcome)
            if outcome.fatal:
                return
            with self._condition:
                left = self.min_period - (time.perf_counter() - start)
                self._condition.wait_for(lambda: self._stopping, timeout=max(0.0, left))

    def _take(self) -> Job | None:
        """Wait for the newest job; None when it is time to end."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._job is not None)
            job, self._job = self._job, None
            return None if self._stopping else job

    def _report(self, outcome: Outcome) -> None:
        if not self._stopping:
            self._done(outcome)

    def _infer(self, job: Job, start: float) -> Outcome:
        try:
            self._reset_if_wanted()
            images = {
                camera: self._image(camera, message) for camera, message in job.images.items()
            }
            decoded = (time.perf_counter() - start) * 1e3
            observation = Observation(
                images=images, state=job.state, instruction=job.instruction, stamp=job.stamp
            )
            chunk = self._predict(observation, job, start, decoded)
        except FasterVlaError as e:
            return Outcome(job=job, started=start, error=e, text=str(e))
        return Outcome(job=job, started=start, chunk=chunk, preprocess_ms=decoded)

    def _reset_if_wanted(self) -> None:
        with self._condition:
            wanted, self._reset_wanted = self._reset_wanted, False
        if not wanted:
            return
        try:
            self._policy.reset()
        except FasterVlaError:
            self.reset()  # still to be done: a server that is gone comes back
            raise

    def _predict(
        self, observation: Observation, job: Job, start: float, decoded: float
    ) -> ActionChunk:
        if not self._coarse:
            return self._checked(self._policy.predict(observation))
        reported = False

        def on_chunk(chunk: ActionChunk) -> None:
            nonlocal reported
            if reported:  # one replacement of the plan on the way is enough
                return
            reported, chunk = True, self._checked(chunk)
            self._report(
                Outcome(job=job, started=start, chunk=chunk, preprocess_ms=decoded, coarse=True)
            )

        return self._checked(self._policy.predict(observation, on_chunk=on_chunk))

    def _image(self, camera: str, message: Any) -> np.ndarray | bytes:
        """Decode an image, unless the policy is elsewhere and takes the JPEG file as it is."""
        takes_jpeg = getattr(self._policy, 'takes_jpeg', False)
        jpeg = jpeg_file(message) if takes_jpeg else None
        return to_rgb(camera, message) if jpeg is None else jpeg

    def _checked(self, chunk: ActionChunk) -> ActionChunk:
        """Refuse what must not reach the wire (DecodeError)."""
        shape, width = np.shape(chunk.values), self._policy.embodiment.action_dim
        if len(shape) != 2 or not shape[0] or shape[1] != width:
            raise DecodeError(f'the policy returned values {list(shape)}, expected [H, {width}]')
        with np.errstate(over='ignore'):
            values = np.asarray(chunk.values, dtype=np.float32)  # what is sent
        if not np.isfinite(values).all():
            raise DecodeError('the policy returned values that are not finite')
        return chunk
