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
from faster_vla_ros.sensors.images import to_rgb


class PolicyLike(Protocol):
    """What the node needs of `faster_core.policy.Policy`."""

    embodiment: Embodiment

    def predict(self, observation: Observation) -> ActionChunk:
        """Return a chunk."""

    def check_instruction(self, text: str) -> None:
        """Refuse what the policy does not understand (InstructionError)."""

    def reset(self, seed: int | None = None) -> None:
        """Start anew."""

    def warmup(self, iterations: int = 3) -> None:
        """Run a few inferences."""


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
        fatal: the thread has ended.
    """

    job: Job
    started: float
    preprocess_ms: float = 0.0
    chunk: ActionChunk | None = None
    error: Exception | None = None
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
    ) -> None:
        """Start the thread; it waits for `offer`."""
        self._policy, self._started, self._done = policy, started, done
        self._min_period = min_period
        self._condition = threading.Condition()
        self._job: Job | None = None
        self._stopping = False
        self.num_dropped = 0
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def offer(self, job: Job) -> None:
        """Replace the job that waits, if any."""
        with self._condition:
            self.num_dropped += self._job is not None
            self._job = job
            self._condition.notify()

    def stop(self, timeout: float = 10.0) -> bool:
        """End after the inference in progress; False if it did not end in time."""
        with self._condition:
            self._stopping, self._job = True, None
            self._condition.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._job is not None)
                if self._stopping:
                    return
                job, self._job = self._job, None
            start = time.perf_counter()
            self._started(job)
            outcome = self._infer(job, start)
            self._done(outcome)
            if outcome.fatal:
                return
            time.sleep(max(0.0, self._min_period - (time.perf_counter() - start)))

    def _infer(self, job: Job, start: float) -> Outcome:
        try:
            images = {camera: to_rgb(camera, message) for camera, message in job.images.items()}
            decoded = (time.perf_counter() - start) * 1e3
            observation = Observation(
                images=images, state=job.state, instruction=job.instruction, stamp=job.stamp
            )
            chunk = self._policy.predict(observation)
            if not np.isfinite(chunk.values).all():
                raise DecodeError('the policy returned values that are not finite')
        except FasterVlaError as e:
            return Outcome(job=job, started=start, error=e, text=str(e))
        except Exception as e:
            text = traceback.format_exc()
            return Outcome(job=job, started=start, error=e, fatal=True, text=text)
        return Outcome(job=job, started=start, chunk=chunk, preprocess_ms=decoded)
