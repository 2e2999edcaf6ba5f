"""Many episodes on several processes, and what they add up to."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
import dataclasses
import multiprocessing
import pathlib
from typing import Any

from faster_core import paths
from faster_core.chunk import StageTiming
from faster_core.embodiment import Embodiment
from faster_core.evaluation.baselines import load_means, MeanTrajectoryPolicy, ZeroActionPolicy
from faster_core.evaluation.closed_loop import (
    ClosedLoop,
    EpisodeResult,
    EpisodeSettings,
    mean_timing,
)
from faster_core.evaluation.statistics import percentiles, wilson_interval
from faster_core.execution.config import DispatcherConfig
from faster_core.sim.tasks import TASKS

DEFAULT_SETTINGS = EpisodeSettings()
# Far from every seed in use: what the cameras show is another scene.
OTHER_IMAGES_OFFSET = 1_000_000
POLICY, OTHER_IMAGES, ZERO_ACTION, MEAN_TRAJECTORY = (
    'policy',
    'other_images',
    'zero_action',
    'mean_trajectory',
)


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
    following = dict(zip(tasks, [*tasks[1:], tasks[0]], strict=True))
    return [Job(seed=s, task=following[t], original_task=t) for s in seeds for t in tasks]


def run_jobs(
    todo: Sequence[Job],
    checkpoint: str | pathlib.Path,
    *,
    robot_file: str | pathlib.Path | None = None,
    settings: EpisodeSettings = DEFAULT_SETTINGS,
    workers: int = 2,
) -> Iterator[EpisodeResult]:
    """Run episodes in closed loop without ROS, in any order.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    robot_file = robot_file or paths.share_dir() / 'config' / 'robots' / 'r1_lite.yaml'
    args = (str(checkpoint), str(robot_file), settings)
    if workers == 1:
        _start(*args)
        yield from map(_run, todo)
        return
    with multiprocessing.get_context('spawn').Pool(workers, _start, args) as pool:
        yield from pool.imap_unordered(_run, todo)


class _Runner:
    """Policies and simulators of one process, made when first needed."""

    def __init__(self, checkpoint: str, robot_file: str, settings: EpisodeSettings) -> None:
        self._checkpoint, self._settings = checkpoint, settings
        self._embodiment = Embodiment.load(paths.embodiment_file('r1_lite'))
        self._config = DispatcherConfig.load(robot_file, self._embodiment)
        self._loops: dict[str, ClosedLoop] = {}

    def run(self, job: Job) -> EpisodeResult:
        if job.who not in self._loops:
            self._loops[job.who] = self._make(job.who)
        return self._loops[job.who].run(
            seed=job.seed, task=job.task, original_task=job.original_task
        )

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

        policy = Policy.from_pretrained(self._checkpoint)
        policy.warmup()
        return ClosedLoop(policy, self._config, settings)


_RUNNER: _Runner | None = None


def _start(checkpoint: str, robot_file: str, settings: EpisodeSettings) -> None:
    global _RUNNER
    import torch

    torch.set_num_threads(1)
    _RUNNER = _Runner(checkpoint, robot_file, settings)


def _run(job: Job) -> EpisodeResult:
    return _RUNNER.run(job)


def summarize(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Return success per instruction and overall, mean time, chunks and latency."""
    by_text: dict[str, list[EpisodeResult]] = collections.defaultdict(list)
    for r in results:
        by_text[TASKS[r.task].instruction].append(r)
    successes = sum(r.success for r in results)
    timings: list[StageTiming] = [t for r in results for t in r.timings]
    rejected = collections.Counter(reason for r in results for reason in r.rejected)
    return {
        'episodes': len(results),
        'success_rate': round(successes / len(results), 4),
        'wilson': [round(v, 4) for v in wilson_interval(successes, len(results))],
        'per_instruction': {text: _rates(rs) for text, rs in sorted(by_text.items())},
        'mean_seconds': _mean([r.seconds for r in results if r.success]),
        'chunks': sum(r.num_chunks for r in results),
        'rejected_chunks': dict(sorted(rejected.items())),
        'latency_ms': percentiles([t.total_ms for t in timings]),
        'stages_ms': mean_timing(timings),
    }


def summarize_swapped(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Return how often the given task was done, and how often the scene's original one."""
    count = len(results)
    return {
        'episodes': count,
        'given_rate': round(sum(r.success for r in results) / count, 4),
        'original_rate': round(sum(r.original_success for r in results) / count, 4),
    }


def _rates(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    successes = sum(r.success for r in results)
    return {
        'success_rate': round(successes / len(results), 4),
        'episodes': len(results),
        'wilson': [round(v, 4) for v in wilson_interval(successes, len(results))],
        'mean_seconds': _mean([r.seconds for r in results if r.success]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None
