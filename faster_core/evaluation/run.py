"""Many episodes on several processes, and what they add up to."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
import dataclasses
import multiprocessing
import pathlib
import signal
from typing import Any

from faster_core import paths
from faster_core.chunk import StageTiming
from faster_core.embodiment import Embodiment
from faster_core.errors import FasterVlaError
from faster_core.evaluation.baselines import load_means, MeanTrajectoryPolicy, ZeroActionPolicy
from faster_core.evaluation.closed_loop import ClosedLoop, EpisodeResult, EpisodeSettings
from faster_core.evaluation.statistics import percentiles, stage_percentiles, wilson_interval
from faster_core.execution.config import DispatcherConfig
from faster_core.sim.tasks import TASKS

DEFAULT_SETTINGS = EpisodeSettings()
# Far from every seed in use: what the cameras show is another scene.
OTHER_IMAGES_OFFSET = 1_000_000
POLICY, SWAPPED, OTHER_IMAGES = 'policy', 'swapped', 'other_images'
ZERO_ACTION, MEAN_TRAJECTORY = 'zero_action', 'mean_trajectory'
BASELINES = 'baselines'
# What can be asked for -> what is run for it.
PARTS = {
    POLICY: (POLICY,),
    SWAPPED: (SWAPPED,),
    OTHER_IMAGES: (OTHER_IMAGES,),
    BASELINES: (ZERO_ACTION, MEAN_TRAJECTORY),
}


class WorkerError(FasterVlaError, RuntimeError):
    """A process that ran episodes ended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One episode.

    Attributes:
        seed: scene.
        task: what is asked for.
        original_task: with another instruction than the scene's: what must not happen.
        who: 'policy', 'other_images' (the policy sees another scene), 'zero_action' or
            'mean_trajectory'.
    """

    seed: int
    task: str
    original_task: str | None = None
    who: str = POLICY


def jobs(tasks: Sequence[str], seeds: Sequence[int], who: str = POLICY) -> list[Job]:
    """Return an episode per task and seed; a prefix holds all tasks."""
    return [Job(seed=s, task=t, who=who) for s in seeds for t in tasks]


def swapped_jobs(tasks: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return episodes in which every task's scene gets the instruction of the next task."""
    return [Job(seed=s, task=neighbour(t), original_task=t) for s in seeds for t in tasks]


def neighbour(task: str, offset: int = 1) -> str:
    """Return another task: the one `offset` places further in `TASKS`, round and round."""
    names = list(TASKS)
    return names[(names.index(task) + offset) % len(names)]


def planned_jobs(
    parts: Collection[str], tasks: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[Job]]:
    """Return what to run for some of `PARTS`, by what is evaluated, in the order of `PARTS`."""
    names = [name for part, names in PARTS.items() if part in parts for name in names]
    return {
        name: swapped_jobs(tasks, seeds) if name == SWAPPED else jobs(tasks, seeds, name)
        for name in names
    }


def run_jobs(
    todo: Sequence[Job],
    checkpoint: str | pathlib.Path,
    *,
    robot_file: str | pathlib.Path | None = None,
    settings: EpisodeSettings = DEFAULT_SETTINGS,
    workers: int = 2,
    policy_options: Mapping[str, str] | None = None,
) -> Iterator[EpisodeResult]:
    """Run episodes in closed loop without ROS, in any order.

    Args:
        todo: the episodes.
        checkpoint: folder of the policy.
        robot_file: limits and rules of execution; None for the R1 Lite's.
        settings: of every episode.
        workers: processes.
        policy_options: `engine` and `dtype` of `Policy.from_pretrained`.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError: an engine or a dtype is unknown or cannot run here.
        WorkerError: a process was killed; results it had not given back are lost.
    """
    robot_file = robot_file or paths.share_dir() / 'config' / 'robots' / 'r1_lite.yaml'
    args = (str(checkpoint), str(robot_file), settings, dict(policy_options or {}))
    if workers == 1:
        _start(*args)
        try:
            yield from map(_run, todo)
        finally:
            _RUNNER.close()
        return
    executor = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context('spawn'), _start_process, args
    )
    try:
        for future in futures.as_completed([executor.submit(_run, job) for job in todo]):
            yield future.result()
    except BrokenProcessPool as e:
        raise WorkerError(f'a process that ran episodes ended: {e}') from e
    finally:
        executor.shutdown(cancel_futures=True)


class _Runner:
    """Policies and simulators of one process, made when first needed."""

    def __init__(
        self,
        checkpoint: str,
        robot_file: str,
        settings: EpisodeSettings,
        policy_options: Mapping[str, str],
    ) -> None:
        self._checkpoint, self._settings = checkpoint, settings
        self._policy_options = policy_options
        self._embodiment = Embodiment.load(paths.embodiment_file('r1_lite'))
        self._config = DispatcherConfig.load(robot_file, self._embodiment)
        self._loops: dict[str, ClosedLoop] = {}

    def run(self, job: Job) -> EpisodeResult:
        if job.who not in self._loops:
            self._loops[job.who] = self._make(job.who)
        return self._loops[job.who].run(
            seed=job.seed, task=job.task, original_task=job.original_task
        )

    def close(self) -> None:
        for loop in self._loops.values():
            loop.close()

    def _make(self, who: str) -> ClosedLoop:
        settings = self._settings
        if who == ZERO_ACTION:
            return ClosedLoop(ZeroActionPolicy(self._embodiment), self._config, settings)
        if who == MEAN_TRAJECTORY:
            means = load_means(self._embodiment)
            return ClosedLoop(
                MeanTrajectoryPolicy(self._embodiment, means), self._config, settings
            )
        if who == OTHER_IMAGES:
            settings = dataclasses.replace(settings, other_images_seed=OTHER_IMAGES_OFFSET)
        from faster_core.policy import Policy

        policy = Policy.from_pretrained(self._checkpoint, **self._policy_options)
        policy.warmup()
        return ClosedLoop(policy, self._config, settings)


_RUNNER: _Runner | None = None


def _start(*args: Any) -> None:
    global _RUNNER
    _RUNNER = _Runner(*args)
    import torch

    torch.set_num_threads(1)


def _start_process(*args: Any) -> None:
    # Ctrl-C reaches every process of the terminal; the first one ends the others in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _start(*args)


def _run(job: Job) -> EpisodeResult:
    return _RUNNER.run(job)


def summarize(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Return success per instruction and overall, mean time, chunks and latency."""
    by_text: dict[str, list[EpisodeResult]] = collections.defaultdict(list)
    for r in results:
        by_text[TASKS[r.task].instruction].append(r)
    timings: list[StageTiming] = [t for r in results for t in r.timings]
    rejected = collections.Counter(reason for r in results for reason in r.rejected)
    return {
        **rates(results),
        'per_instruction': {text: rates(rs) for text, rs in sorted(by_text.items())},
        'chunks': sum(r.num_chunks for r in results),
        'rejected_chunks': dict(sorted(rejected.items())),
        'latency_ms': percentiles([t.total_ms for t in timings]),
        'stages_ms': stage_percentiles(timings),
    }


def summarize_swapped(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Return how often the given task was done, and how often the scene's original one."""
    given = rates(results)
    original = sum(r.original_success for r in results)
    return {
        'episodes': given['episodes'],
        'given_rate': given['success_rate'],
        'given_wilson': given['wilson'],
        'original_rate': round(original / len(results), 4),
        'original_wilson': _wilson(original, len(results)),
    }


def rates(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Return episodes, success rate with its interval, and the mean time of the successes."""
    successes = sum(r.success for r in results)
    seconds = [r.seconds for r in results if r.success]
    return {
        'episodes': len(results),
        'success_rate': round(successes / len(results), 4),
        'wilson': _wilson(successes, len(results)),
        'mean_seconds': round(sum(seconds) / len(seconds), 2) if seconds else None,
    }


def _wilson(successes: int, trials: int) -> list[float]:
    return [round(v, 4) for v in wilson_interval(successes, trials)]
