"""`faster-vla doctor`: says what is wrong with the running graph, before anything moves."""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

from faster_core import paths
from faster_vla_ros.doctor import report

MAX_SECONDS = 60.0


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        'doctor', help='say what is wrong with the running graph; publishes and changes nothing'
    )
    parser.add_argument(
        '--params',
        type=pathlib.Path,
        default=None,
        help='robot parameter file (config/robots/r1_lite.yaml)',
    )
    parser.add_argument(
        '--checkpoint',
        type=pathlib.Path,
        default=None,
        help='folder, or an embodiment file where there is none (the shipped checkpoint)',
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
    name = '/'.join(['', *text.strip('/').split('/')]) if text.strip('/') else ''
    if name and not re.fullmatch(r'(/[A-Za-z_][A-Za-z0-9_]*)+', name):
        raise argparse.ArgumentTypeError(f'expected a ROS namespace, found {text!r}')
    return name


def _run(args: argparse.Namespace) -> int:
    # Here, so that help and usage errors need no ROS.
    from faster_vla_ros.doctor import checks, expected, limits, listener

    wanted = expected.load(
        args.params or paths.share_dir() / 'config' / 'robots' / 'r1_lite.yaml',
        args.checkpoint or paths.demo_checkpoint(),
        urdf=args.urdf,
        namespace=args.namespace,
    )
    total = listener.DISCOVERY + args.seconds
    print(f'listening for {total:g} s ...', file=sys.stderr, flush=True)
    snapshot = listener.look(wanted, args.seconds)
    findings = checks.examine(wanted, snapshot)
    proposal = limits.proposal(wanted, snapshot)
    write = report.to_json if args.json else report.to_table
    print(write(findings, proposal))
    return report.exit_status(findings)
