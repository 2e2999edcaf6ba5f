"""Episodes through the ROS graph: reset, instruction, outcome, and what the wire showed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import time

from faster_core.chunk import StageTiming
from faster_core.errors import ConfigError
from faster_core.sim.tasks import scene_task, TASKS
from faster_vla_ros.graph import Graph, GRAPHS
from faster_vla_ros.observer import ChunkRecord, Observer
from faster_vla_ros.session import isolated_environment, own_domain, Session, SessionError
from faster_vla_ros.supervisor import Supervisor
from faster_vla_ros.up import require_checkpoint

READY_TIMEOUT = 120.0
FRAMES_AFTER_RESET = 2
# The dispatcher says where to stay for a while after it was disabled; silent for so long (s), it
# has finished.
SILENCE = 0.2
SILENCE_TIMEOUT = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RosJob:
    """One episode to run.

    Attributes:
        seed: scene.
        task: key of `TASKS`; its predicate decides. Empty: chosen by the seed.
        instruction: what is said; empty: the task's own.
        first_instruction: said at first, replaced by `instruction` after `swap_after` seconds.
        swap_after: seconds of motion before the instruction is changed.
    """

    seed: int
    task: str = ''
    instruction: str = ''
    first_instruction: str = ''
    swap_after: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unknown tasks and half-given swaps (ConfigError)."""
        if self.task and self.task not in TASKS:
            raise ConfigError(f'unknown task {self.task!r}; known: {", ".join(TASKS)}')
        if self.seed < 0:
            raise ConfigError(f'seed: expected >= 0, found {self.seed}')
        if bool(self.first_instruction) != (self.swap_after > 0):
            raise ConfigError('first_instruction and swap_after > 0 belong together')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RosEpisode:
    """What came out of one episode; the first fields are those of `EpisodeResult`.

    Attributes:
        seconds: from the (last) instruction to success, or the time limit.
        rejected: reasons of rejected chunks.
        timings: stages of every inference.
        observation_age_ms: age of the observation at the start of every inference.
        first_command_ms: per accepted chunk, observation stamp to the first command computed from
            it as seen on the wire, minus inference.
        real_time_factor: mean over the episode; 1.0 if it was shorter than a second.
        flush_ms: milliseconds from the changed instruction to the dispatcher dropping the old
            plan; None without a change, or if that was never seen.
    """

    seed: int
    task: str
    instruction: str
    success: bool
    seconds: float
    num_chunks: int
    rejected: tuple[str, ...]
    timings: tuple[StageTiming, ...]
    observation_age_ms: tuple[float, ...]
    first_command_ms: tuple[float, ...]
    rows_executed: tuple[int, ...]
    real_time_factor: float
    flush_ms: float | None = None


class EpisodeRunner:
    """Runs jobs one after the other through a graph that is up."""

    def __init__(
        self,
        session: Session,
        observer: Observer,
        *,
        time_limit: float = 15.0,
        check: Callable[[], None] | None = None,
        has_policy: bool = True,
    ) -> None:
        """Take a session in the graph's domain.

        Args:
            session: asks and sends.
            observer: on the same session.
            time_limit: seconds after the last instruction.
            check: raises when a process of the graph has ended.
            has_policy: False leaves out what only a policy answers.
        """
        self._session, self._observer = session, observer
        self._time_limit, self._check, self._has_policy = time_limit, check, has_policy

    def prepare(self, job: RosJob) -> str:
        """Bring policy, robot and dispatcher into the initial state; returns the instruction.

        Raises:
            SessionError: a node does not answer or refuses.
        """
        session = self._session
        session.enable(False)
        if self._has_policy:
            session.say('')
            session.trigger('/policy_node/reset')
        # Or the robot, put back into its initial posture, would be told to stay in the last one.
        if not session.spin_until(
            lambda: time.monotonic() - self._observer.last_command_at > SILENCE,
            SILENCE_TIMEOUT,
            self._check,
        ):
            raise SessionError('the dispatcher was disabled and still commands the arms')
        own = session.reset_episode(job.seed, job.task)
        # Feedback and pictures of the old episode are still on their way for a moment.
        seen = self._observer.num_frames
        if not session.spin_until(
            lambda: self._observer.num_frames >= seen + FRAMES_AFTER_RESET, 10.0, self._check
        ):
            raise SessionError('no picture of the head camera after the reset')
        self._observer.clear()
        session.trigger('/action_dispatcher/reset')
        session.enable(True)
        return job.instruction or own

    def run(self, job: RosJob) -> RosEpisode:
        """Run one episode from reset to success or the time limit (errors: `prepare`)."""
        instruction = self.prepare(job)
        session, observer = self._session, self._observer
        swapped_at: int | None = None
        if job.first_instruction:
            session.say(job.first_instruction)
            session.spin_until(lambda: False, job.swap_after, self._check)
        start = session.say(instruction)
        if job.first_instruction:
            swapped_at = start
        session.spin_until(lambda: observer.success, self._time_limit, self._check)
        success, end = observer.success, session.now_ns()
        session.enable(False)
        if self._has_policy:
            session.say('')
        return self._result(job, instruction, success, (end - start) / 1e9, swapped_at)

    def _result(
        self, job: RosJob, instruction: str, success: bool, seconds: float, swapped_at: int | None
    ) -> RosEpisode:
        observer = self._observer
        chunks = observer.chunks
        reports = [c.report for c in chunks if c.report is not None]
        flush = None
        if swapped_at is not None:
            flush = next((at for at in observer.flushes_ns if at >= swapped_at), None)
        factors = observer.real_time_factors
        return RosEpisode(
            seed=job.seed,
            task=job.task or scene_task(job.seed).name,
            instruction=instruction,
            success=success,
            seconds=seconds,
            num_chunks=len(chunks),
            rejected=tuple(r.reason for r in reports if not r.accepted),
            timings=_present(c.timing for c in chunks),
            observation_age_ms=_present(c.observation_age_ms for c in chunks),
            first_command_ms=_present(c.first_command_ms for c in chunks),
            rows_executed=tuple(r.num_rows_executed_previous for r in reports),
            real_time_factor=sum(factors) / len(factors) if factors else 1.0,
            flush_ms=None if flush is None else (flush - swapped_at) / 1e6,
        )


def _present(values: Iterable) -> tuple:
    return tuple(v for v in values if v is not None)


def run_ros_episodes(
    jobs: Iterable[RosJob],
    checkpoint: str = '',
    *,
    graph: str = 'r1lite_wbc',
    time_limit: float = 15.0,
    params_file: str = '',
    on_result: Callable[[RosEpisode], None] | None = None,
    on_chunk: Callable[[ChunkRecord], None] | None = None,
    sink: Callable[[str, str], None] | None = None,
) -> list[RosEpisode]:
    """Start a graph once and run all jobs through it. Call it from the main thread.

    Args:
        jobs: in this order.
        checkpoint: folder; empty: the shipped one.
        graph: key of `GRAPHS`.
        time_limit: seconds per episode.
        params_file: robot parameters; empty: the shipped ones.
        on_result: called after every episode.
        on_chunk: called for every chunk.
        sink: takes the node names and lines of the processes' output; None drops it.

    Raises:
        CheckpointError: no checkpoint there.
        ProcessEndedError: a process of the graph ended; carries its last lines.
        SessionError: a node does not answer or refuses.
    """
    description = GRAPHS[graph](
        checkpoint=checkpoint, params_file=params_file, auto_enable='false'
    )
    require_checkpoint(description)
    results = []
    domain = own_domain()
    with (
        Supervisor(
            description, environment=isolated_environment(domain), sink=sink or _drop
        ) as supervisor,
        Session(domain=domain, name='faster_vla_eval', localhost=True) as session,
    ):
        observer = Observer(session, on_chunk=on_chunk)
        wait_ready(session, description, supervisor)
        runner = EpisodeRunner(session, observer, time_limit=time_limit, check=supervisor.check)
        for job in jobs:
            results.append(runner.run(job))
            if on_result is not None:
                on_result(results[-1])
    return results


def wait_ready(session: Session, graph: Graph, supervisor: Supervisor) -> None:
    """Wait until every node of the graph works (errors: `Session.wait_until_ready`)."""
    session.wait_until_ready(graph, READY_TIMEOUT, supervisor.check)


def _drop(name: str, line: str) -> None:
    """Drop a line of a process; its last ones are in `ProcessEndedError`."""
