"""`faster-vla demo`: one instruction carried out in simulation, through ROS, before your eyes."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from typing import Any

from faster_core.errors import ConfigError
from faster_core.sim.tasks import task_of_instruction, TASKS
from faster_vla_ros.episodes import EpisodeRunner, RosEpisode, RosJob, wait_ready
from faster_vla_ros.graph import GRAPHS
from faster_vla_ros.observer import ChunkRecord, Observer
from faster_vla_ros.recorder import Recorder
from faster_vla_ros.session import isolated_environment, own_domain, Session
from faster_vla_ros.supervisor import print_line, Supervisor
from faster_vla_ros.up import require_checkpoint

DEFAULT_INSTRUCTION = 'pick up the red block'


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser('demo', help='one instruction in simulation, with video')
    parser.add_argument(
        '--instruction', default=DEFAULT_INSTRUCTION, help=f'default: "{DEFAULT_INSTRUCTION}"'
    )
    parser.add_argument('--graph', choices=['r1lite_wbc'], default='r1lite_wbc')
    parser.add_argument('--seed', type=int, default=1, help='scene')
    parser.add_argument('--out', default='out', help='folder of the video and the contact sheet')
    parser.add_argument('--checkpoint', default='', help='folder; default: the shipped one')
    parser.add_argument('--timeout', type=float, default=15.0, help='seconds for the task')
    parser.add_argument('--json', action='store_true', help='one JSON object as the last line')
    parser.add_argument('--verbose', action='store_true', help='show what the nodes say')
    parser.set_defaults(run=_run)


def chunk_line(record: ChunkRecord) -> str:
    """Return the live line of one chunk."""
    timing, report = record.timing, record.report
    if timing is None or report is None:
        raise ValueError(f'chunk {record.sequence_id} lacks its timing or its report')
    stages = (
        ('preprocess', timing.preprocess_ms),
        ('vision', timing.vision_ms),
        ('prefill', timing.prefill_ms),
        (f'decode x{len(timing.decode_block_ms)}', sum(timing.decode_block_ms)),
        ('detokenize', timing.detokenize_ms),
    )
    parts = '  '.join(f'{name} {ms:.0f}' for name, ms in stages)
    if report.accepted:
        fate = (
            f'{report.num_rows_executed_previous} rows executed, '
            f'{report.num_rows_dropped} of {report.num_rows} too late'
        )
    else:
        fate = f'REJECTED: {report.reason}'
    return (
        f'chunk {record.sequence_id:4d}  total {timing.total_ms:4.0f} ms = {parts}  '
        f'observation {record.observation_age_ms:3.0f} ms old  {fate}'
    )


def task_for(instruction: str) -> str:
    """Return the task that judges an instruction.

    Raises:
        ConfigError: the simulator cannot tell whether it was done.
    """
    task = task_of_instruction(instruction)
    if task is None:
        known = '\n  '.join(t.instruction for t in TASKS.values())
        raise ConfigError(
            f'nothing in the simulator tells whether {instruction[:80]!r} was done; it knows:'
            f'\n  {known}'
        )
    return task.name


def _run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    job = RosJob(
        seed=args.seed, task=task_for(args.instruction), instruction=args.instruction.strip()
    )
    graph = GRAPHS[args.graph](
        checkpoint=args.checkpoint, seed=args.seed, task=job.task, auto_enable='false'
    )
    require_checkpoint(graph)
    recorder, domain = Recorder(), own_domain()
    print(f'starting {", ".join(n.name for n in graph.nodes)} (ROS domain {domain}) ...')
    with (
        Supervisor(
            graph,
            environment=isolated_environment(domain),
            sink=print_line if args.verbose else _warnings_only,
        ) as supervisor,
        Session(domain=domain, name='faster_vla_demo', localhost=True) as session,
    ):
        observer = Observer(
            session,
            on_chunk=lambda record: print(chunk_line(record), flush=True),
            on_frame=recorder.add,
        )
        wait_ready(session, graph, supervisor)
        start_seconds = time.monotonic() - started
        print(f'ready after {start_seconds:.1f} s; instruction: {job.instruction!r}', flush=True)
        runner = EpisodeRunner(session, observer, time_limit=args.timeout, check=supervisor.check)
        recorder.clear()
        result = runner.run(job)
    _print_outcome(result)  # first: it is known even if the pictures cannot be written
    files = _write_files(recorder, pathlib.Path(args.out), result)
    for what, path in files.items():
        print(f'{what.replace("_", " ")}: {path}')
    if args.json:
        print(json.dumps(summary(result, files, start_seconds)), flush=True)
    return 0 if result.success else 1


def _warnings_only(name: str, line: str) -> None:
    if any(level in line for level in ('[WARN]', '[ERROR]', '[FATAL]', 'Error')):
        print_line(name, line)


def _write_files(recorder: Recorder, folder: pathlib.Path, result: RosEpisode) -> dict[str, str]:
    stem = folder / f'{result.task}-{result.seed}'
    video, sheet = stem.with_suffix('.mp4'), stem.with_suffix('.png')
    outcome = 'done' if result.success else 'NOT done'
    recorder.write_video(video)
    recorder.write_contact_sheet(
        sheet, f'{result.instruction}: {outcome} after {result.seconds:.1f} s (seed {result.seed})'
    )
    return {'video': str(video), 'contact_sheet': str(sheet)}


def _print_outcome(result: RosEpisode) -> None:
    outcome = 'task done' if result.success else 'task NOT done'
    print(
        f'{outcome} after {result.seconds:.1f} s, {result.num_chunks} chunks '
        f'({len(result.rejected)} rejected), real-time factor {result.real_time_factor:.2f}',
        flush=True,
    )
    if not result.success:
        print('the task was not done: exit status 1', file=sys.stderr)


def summary(result: RosEpisode, files: dict[str, str], start_seconds: float) -> dict[str, Any]:
    """Return the JSON object of a demonstration."""
    return {
        'robot': 'r1_lite',
        'instruction': result.instruction,
        'task': result.task,
        'seed': result.seed,
        'success': result.success,
        'seconds': round(result.seconds, 2),
        'start_seconds': round(start_seconds, 2),
        'num_chunks': result.num_chunks,
        'rejected': list(result.rejected),
        'rtf': round(result.real_time_factor, 3),
        **files,
    }
