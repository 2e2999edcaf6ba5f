"""One episode in simulation: observation -> policy -> dispatcher -> robot, on one simulated clock.

The policy's answer reaches the dispatcher `latency` simulated seconds after the observation it was
made from, and the next inference starts at the next camera frame after that, as in `policy_node`.
So an episode is a function of seed, policy and latency and does not depend on the machine's speed.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from faster_core.chunk import ActionChunk, StageTiming
from faster_core.execution.dispatcher import Dispatcher, DispatcherConfig
from faster_core.observation import Observation
from faster_core.sim.demos import through_jpeg
from faster_core.sim.r1_lite import R1LiteSim
from faster_core.sim.tasks import TASKS

JPEG_QUALITY = 90


class ChunkPolicy(Protocol):
    """What the evaluator needs of a policy."""

    def reset(self, seed: int | None = None) -> None:
        """Forget the last episode."""

    def predict(self, observation: Observation) -> ActionChunk:
        """Return a chunk for an observation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """How an episode is run.

    Attributes:
        latency: simulated seconds from the observation to the chunk's arrival.
        time_limit: seconds after which the episode has failed.
        tick_rate: Hz of the dispatcher.
        image_size: square size of the rendered cameras, pixels.
        other_images_seed: if set, the cameras show another scene (seed offset) in which the same
            commands are executed: what is left is what the policy does without seeing.
    """

    latency: float = 0.12
    time_limit: float = 15.0
    tick_rate: float = 50.0
    image_size: int = 96
    other_images_seed: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """What came out of one episode.

    Attributes:
        task: task whose predicate decided.
        success: the predicate held for a second within the time limit.
        original_success: the scene's own task was done instead (swapped instructions only).
        seconds: simulated time until success or the limit.
        rejected: reasons of rejected chunks.
        timings: stage timings of every inference.
    """

    seed: int
    task: str
    success: bool
    original_success: bool
    seconds: float
    num_chunks: int
    rejected: tuple[str, ...]
    timings: tuple[StageTiming, ...]


class ClosedLoop:
    """Runs episodes with one simulator (two if the images come from another scene)."""

    def __init__(
        self,
        policy: ChunkPolicy,
        config: DispatcherConfig,
        settings: EpisodeSettings = EpisodeSettings(),
    ) -> None:
        """Take a policy and the dispatcher configuration of the robot file."""
        self._policy, self._config, self._settings = policy, config, settings
        self._sim = R1LiteSim(image_size=settings.image_size)
        self._eyes = self._sim
        if settings.other_images_seed is not None:
            self._eyes = R1LiteSim(image_size=settings.image_size)

    def close(self) -> None:
        """Free the simulators' renderers."""
        self._sim.close()
        self._eyes.close()

    def run(self, *, seed: int, task: str, original_task: str | None = None) -> EpisodeResult:
        """Run one episode.

        Args:
            seed: scene.
            task: key of `TASKS`; gives instruction and predicate.
            original_task: with a swapped instruction, the task that must *not* happen.
        """
        settings, sim, eyes = self._settings, self._sim, self._eyes
        sim.reset(seed, task)
        if eyes is not sim:
            eyes.reset(settings.other_images_seed + seed, task)
        self._policy.reset(seed)
        dispatcher = Dispatcher(sim.embodiment, self._config)
        self._feed(dispatcher)
        answer = dispatcher.enable(True, sim.time)
        if not answer.success:
            raise RuntimeError(f'the dispatcher refused to be enabled: {answer.message}')
        original = TASKS[original_task] if original_task else None
        original_since, original_done = None, False
        rejected: list[str] = []
        timings: list[StageTiming] = []
        pending: tuple[float, ActionChunk] | None = None
        frame_due, sequence = 0.0, 0
        while sim.time < settings.time_limit and not sim.succeeded():
            now = sim.time
            self._feed(dispatcher)
            if pending is not None and now >= pending[0]:
                report = dispatcher.on_chunk(pending[1], now)
                if not report.accepted:
                    rejected.append(report.reason)
                pending = None
            if now >= frame_due - 1e-9:
                frame_due += sim.embodiment.step_period
                if pending is None:
                    sequence += 1
                    chunk = self._policy.predict(self._observe())
                    timings.append(chunk.timing)
                    chunk = dataclasses.replace(chunk, sequence_id=sequence)
                    pending = (now + settings.latency, chunk)
            commands = dispatcher.tick(now).commands
            for body in {id(sim): sim, id(eyes): eyes}.values():
                for name, values in commands.items():
                    if values is not None:
                        body.set_command(name, values)
                body.step(1.0 / settings.tick_rate)
            if original is not None and not original_done:
                original_since = (original_since or now) if original.predicate(sim) else None
                original_done = original_since is not None and now - original_since >= 1.0
        return EpisodeResult(
            seed=seed,
            task=task,
            success=sim.succeeded(),
            original_success=original_done,
            seconds=sim.time,
            num_chunks=sequence,
            rejected=tuple(rejected),
            timings=tuple(timings),
        )

    def _feed(self, dispatcher: Dispatcher) -> None:
        for c in self._sim.embodiment.action:
            position, velocity = self._sim.feedback(c.name)
            measured = position if c.kind.is_position else velocity
            if len(measured) == c.size:
                dispatcher.on_feedback(c.name, measured, self._sim.time)

    def _observe(self) -> Observation:
        size = self._settings.image_size
        images = {
            camera: through_jpeg(self._eyes.render(camera, size), JPEG_QUALITY)
            for camera in self._sim.embodiment.cameras
        }
        return Observation(
            images=images,
            state=self._sim.state(),
            instruction=self._sim.instruction,
            stamp=self._sim.time,
        )
