"""`faster-vla eval GRAPH`: success and latency over many episodes, without ROS or through it.

Everything of ROS is imported only for `--ros`; what the episodes add up to is
`faster_core.evaluation.report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
import dataclasses
import pathlib
import sys
import time
from typing import Any, TYPE_CHECKING

from faster_core import paths
from faster_core.errors import CheckpointError, ConfigError, FasterVlaError

if TYPE_CHECKING:
    from faster_core.evaluation.records import EpisodeRecord
    from faster_vla_ros.episodes import RosJob

# graph -> name of the embodiment it moves
ROBOTS = {'r1lite_wbc': 'r1_lite'}
PARTS = ('policy', 'swapped', 'other_images', 'baselines')
# Seconds of motion before the instruction is changed.
SWAP_AFTER = 1.5
FAILED = 1


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `eval` command."""
    parser = subparsers.add_parser('eval', help='success and latency over many episodes')
    parser.add_argument('graph', choices=sorted(ROBOTS))
    parser.add_argument('--episodes', type=_positive, default=50, help='per instruction')
    parser.add_argument('--seed', type=_not_negative, default=10000, help='first scene')
    parser.add_argument('--tasks', type=_names, default=None, help='a,b,c; default: all')
    parser.add_argument(
        '--only',
        action='append',
        choices=PARTS,
        help='evaluate this, may be repeated; default: all, with --ros the policy',
    )
    parser.add_argument('--checkpoint', default='', help='folder; default: the shipped one')
    parser.add_argument('--time-limit', type=_above_zero, default=15.0, help='seconds per episode')
    parser.add_argument('--out', default=None, help='file that gets one line per episode (JSONL)')
    parser.add_argument('--paired', default=None, help='such a file of another run to compare to')
    parser.add_argument(
        '--min-success', type=_rate, default=None, help='exit status 1 below this success rate'
    )
    parser.add_argument('--json', action='store_true', help='one JSON object as the last line')
    offline = parser.add_argument_group('without ROS')
    offline.add_argument('--workers', type=_positive, default=None, help='processes; default: all')
    offline.add_argument(
        '--latency',
        type=_not_negative_seconds,
        default=None,
        help='simulated seconds from observation to chunk; default: 0.12',
    )
    offline.add_argument('--engine', default=None, help='of the policy, see docs/policy.md')
    offline.add_argument('--dtype', default=None, help='auto, float32 or bfloat16')
    ros = parser.add_argument_group('through ROS')
    ros.add_argument('--ros', action='store_true', help='through the graph, in real time')
    ros.add_argument(
        '--swap-during-motion',
        type=_positive,
        default=0,
        metavar='N',
        help=f'N more episodes whose instruction is changed after {SWAP_AFTER} s',
    )
    parser.set_defaults(run=_run)


class _Run:
    """What was asked for, what came out so far, and the bar that shows it."""

    def __init__(self, args: argparse.Namespace) -> None:
        from faster_core.sim.tasks import TASKS

        self.args, self.parts = args, _parts(args)
        self.tasks = args.tasks or tuple(TASKS)
        if unknown := [t for t in self.tasks if t not in TASKS]:
            raise ConfigError(f'--tasks: unknown {", ".join(unknown)}; known: {", ".join(TASKS)}')
        if len(set(self.tasks)) < len(self.tasks):
            raise ConfigError('--tasks: a task is named twice')
        self.seeds = range(args.seed, args.seed + args.episodes)
        self.checkpoint = pathlib.Path(args.checkpoint or paths.demo_checkpoint())
        asked = {'engine': args.engine, 'dtype': args.dtype}
        self.policy_options = {name: value for name, value in asked.items() if value is not None}
        self.results: dict[str, list[Any]] = {}
        self.records: list[EpisodeRecord] = []
        self.real_seconds: float | None = None
        self.error: str | None = None

    def take(self, who: str, result: Any, write: Callable[[EpisodeRecord], None]) -> None:
        from faster_core.evaluation.records import EpisodeRecord

        self.results.setdefault(who, []).append(result)
        self.records.append(EpisodeRecord.of(result, who=who, via_ros=self.args.ros))
        write(self.records[-1])


def _run(args: argparse.Namespace) -> int:
    run = _Run(args)
    from tqdm import tqdm

    from faster_core.evaluation import records, report

    there = None if args.paired is None else records.read_records(args.paired)
    if args.paired is not None and args.out is not None and _same_file(args.paired, args.out):
        raise ConfigError('--out would replace the file of --paired')
    checkpoint_sha = _checkpoint_sha(run)
    todo = _ros_jobs(run) if args.ros else _offline_jobs(run)
    total = sum(map(len, todo.values()))
    with (
        records.record_writer(args.out) as write,
        tqdm(total=total, unit='episode', file=sys.stderr) as bar,
    ):

        def on_result(who: str, result: Any) -> None:
            run.take(who, result, write)
            done = run.results[who]
            bar.set_description(who, refresh=False)
            bar.set_postfix_str(f'{sum(r.success for r in done)}/{len(done)} done', refresh=False)
            bar.update()

        try:
            (_through_ros if args.ros else _offline)(run, todo, on_result)
        except FasterVlaError as e:
            if not run.records:
                raise
            run.error = f'after {len(run.records)} of {total} episodes: {e}'
    result = report.build_report(
        run.results,
        robot=ROBOTS[args.graph],
        seeds=run.seeds,
        via_ros=args.ros,
        checkpoint_sha=checkpoint_sha,
        policy_options=run.policy_options,
        real_seconds=run.real_seconds,
        paired=None if there is None else records.paired(run.records, there),
        error=run.error,
    )
    print(report.to_json(result) if args.json else report.to_table(result), flush=True)
    return _status(result, args.min_success)


def _status(report: dict[str, Any], min_success: float | None) -> int:
    if report['error'] is not None:
        print(f'faster-vla eval: {report["error"]}', file=sys.stderr)
        return FAILED
    if min_success is not None and report['success_rate'] < min_success:
        rate = report['success_rate']
        print(f'faster-vla eval: success rate {rate} < {min_success}', file=sys.stderr)
        return FAILED
    return 0


def _parts(args: argparse.Namespace) -> tuple[str, ...]:
    """Return what to evaluate; refuses options that do not go together (ConfigError)."""
    if args.ros:
        if args.latency is not None or args.workers is not None:
            raise ConfigError('--latency and --workers are for episodes without ROS')
        if args.engine is not None or args.dtype is not None:
            raise ConfigError(
                '--engine and --dtype are for episodes without ROS: through it they are '
                'parameters of policy_node'
            )
        if wrong := set(args.only or ()) - {'policy'}:
            raise ConfigError(f'--only {min(wrong)} runs without ROS only')
        return ('policy',)
    if args.swap_during_motion:
        raise ConfigError('--swap-during-motion needs --ros')
    parts = tuple(args.only or PARTS)
    if 'policy' not in parts and (args.min_success is not None or args.paired is not None):
        raise ConfigError('--min-success and --paired are about the policy: add --only policy')
    return parts


def _checkpoint_sha(run: _Run) -> str | None:
    """Return the checkpoint's sha256, None if no policy runs; CheckpointError if it is missing."""
    if set(run.parts) <= {'baselines'}:
        return None
    if not (run.checkpoint / 'metadata.json').is_file():
        raise CheckpointError(
            f'no checkpoint in {run.checkpoint}: give --checkpoint FOLDER, or train one '
            '(`make train-demo`)'
        )
    from faster_core.policy.checkpoint import checkpoint_sha256

    return checkpoint_sha256(run.checkpoint)


def _offline_jobs(run: _Run) -> dict[str, list[Any]]:
    from faster_core.evaluation.run import planned_jobs

    return planned_jobs(run.parts, run.tasks, run.seeds)


def _offline(run: _Run, todo: dict[str, list[Any]], on_result: Callable[[str, Any], None]) -> None:
    from faster_core.evaluation.machine import num_cores
    from faster_core.evaluation.run import DEFAULT_SETTINGS, POLICY, run_jobs

    args = run.args
    settings = dataclasses.replace(DEFAULT_SETTINGS, time_limit=args.time_limit)
    if args.latency is not None:
        settings = dataclasses.replace(settings, latency=args.latency)
    workers = args.workers or num_cores()
    for who, jobs in todo.items():
        start = time.perf_counter()
        for result in run_jobs(
            jobs,
            run.checkpoint,
            settings=settings,
            workers=workers,
            policy_options=run.policy_options,
        ):
            on_result(who, result)
        if who == POLICY:
            run.real_seconds = time.perf_counter() - start


def _ros_jobs(run: _Run) -> dict[str, list[RosJob]]:
    from faster_core.evaluation.report import CHANGED
    from faster_core.evaluation.run import jobs, neighbour, POLICY
    from faster_core.sim.tasks import TASKS
    from faster_vla_ros.episodes import RosJob

    count = run.args.swap_during_motion
    scenes = range(run.args.seed, run.args.seed + count)
    changed = [
        RosJob(
            seed=job.seed,
            task=job.task,
            first_instruction=TASKS[neighbour(job.task, -1)].instruction,
            swap_after=SWAP_AFTER,
        )
        for job in jobs(run.tasks, scenes)[:count]
    ]
    plain = [RosJob(seed=job.seed, task=job.task) for job in jobs(run.tasks, run.seeds)]
    return {POLICY: plain} | ({CHANGED: changed} if changed else {})


def _through_ros(
    run: _Run, todo: dict[str, list[RosJob]], on_result: Callable[[str, Any], None]
) -> None:
    from faster_vla_ros.episodes import run_ros_episodes

    # One graph for all of them; results come in the order of the jobs.
    who = iter([name for name, jobs in todo.items() for _ in jobs])
    run_ros_episodes(
        [job for jobs in todo.values() for job in jobs],
        str(run.checkpoint),
        graph=run.args.graph,
        time_limit=run.args.time_limit,
        on_result=lambda result: on_result(next(who), result),
    )


def _same_file(first: str, second: str) -> bool:
    return pathlib.Path(first).resolve() == pathlib.Path(second).resolve()


# --- argument types: a wrong value ends with argparse's own message --------------------------


def _checked(kind: type, text: str, fine: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fine(value):
        raise argparse.ArgumentTypeError(f'expected {expected}, found {text!r}')
    return value


def _positive(text: str) -> int:
    return _checked(int, text, lambda v: v > 0, 'a whole number > 0')


def _not_negative(text: str) -> int:
    return _checked(int, text, lambda v: v >= 0, 'a whole number >= 0')


def _above_zero(text: str) -> float:
    return _checked(float, text, lambda v: 0 < v < float('inf'), 'seconds > 0')


def _not_negative_seconds(text: str) -> float:
    return _checked(float, text, lambda v: 0 <= v < float('inf'), 'seconds >= 0')


def _rate(text: str) -> float:
    return _checked(float, text, lambda v: 0 <= v <= 1, 'a number from 0 to 1')


def _names(text: str) -> tuple[str, ...]:
    names: Iterable[str] = (part.strip() for part in text.split(','))
    return tuple(n for n in names if n)
