"""`faster-vla doctor`: says what is wrong with the running graph, before anything moves."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

from faster_core.errors import ConfigError
from faster_vla_ros.doctor import report
from faster_vla_ros.graph import _existing, _robot_file
from faster_vla_ros.graph_namespace import parsed_namespace

MAX_SECONDS = 60.0


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        'doctor', help='say what is wrong with the running graph; publishes and changes nothing'
    )
    parser.add_argument(
        '--params',
        default=None,
        help='robot parameter file, or one below config/robots (that of the running dispatcher; '
        'without one, that of the R1 Lite)',
    )
    parser.add_argument(
        '--checkpoint',
        type=pathlib.Path,
        default=None,
        help='folder, or an embodiment file where there is none (that of the running dispatcher; '
        'without one, what ships for the robot file)',
    )
    parser.add_argument(
        '--urdf', type=pathlib.Path, default=None, help='file; else the topic robot_description'
    )
    parser.add_argument('--namespace', type=_namespace, default='', help='of our nodes')
    parser.add_argument(
        '--seconds',
        type=_seconds,
        default=3.0,
        help='of listening, once everybody is found (3)',
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    parser.set_defaults(run=_run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f'expected a number of seconds up to {MAX_SECONDS:g}, found {text!r}'
        )
    return value


def _namespace(text: str) -> str:
    try:
        return parsed_namespace(text)
    except ConfigError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def _run(args: argparse.Namespace) -> int:
    # Here, so that help and usage errors need no ROS.
    from faster_vla_ros.doctor import asking, checks, expected, judged, limits, listener

    # What was named must be there, before anybody waits.
    robot_file = _robot_file(args.params) if args.params else None
    if args.urdf is not None:
        _existing(args.urdf, 'urdf')
    if args.checkpoint is not None:
        expected.embodiment_file(args.checkpoint)
    scope, running = listener.scope(), None
    if robot_file is None or args.checkpoint is None:
        dispatcher = f'{args.namespace}/{expected.DISPATCHER}'
        running = asking.running_parameters(dispatcher, args.namespace)
    against = judged.choose(robot_file, args.checkpoint, running)
    wanted = expected.load(
        against.robot_file, against.source, urdf=args.urdf, namespace=args.namespace
    )
    wanted = dataclasses.replace(wanted, findings=(*against.findings, *wanted.findings))
    total = listener.DISCOVERY + args.seconds
    print(f'listening for {total:g} s ...', file=sys.stderr, flush=True)
    snapshot = listener.look(wanted, args.seconds, scope)
    findings = checks.examine(wanted, snapshot)
    proposal = limits.proposal(wanted, snapshot)
    write = report.to_json if args.json else report.to_table
    print(write(findings, proposal))
    return report.exit_status(findings)
