"""`faster-vla up GRAPH`: the graph of the launch file, for machines without the launch system."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading

from faster_core.errors import CheckpointError
from faster_vla_ros import realtime
from faster_vla_ros.graph import checkpoint_needed, Graph, GRAPHS
from faster_vla_ros.graph_parts import Argument
from faster_vla_ros.session import Session, SessionError
from faster_vla_ros.supervisor import ProcessEndedError, Supervisor

# Seconds after which somebody is told that the graph is not ready yet: compiling takes minutes.
LATE_AFTER = 120.0


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the `up` command; the options of a graph are its launch file's arguments."""
    parser = subparsers.add_parser('up', help='start a robot graph')
    graphs = parser.add_subparsers(dest='graph', metavar='GRAPH', required=True)
    for graph in GRAPHS.values():
        of_graph = graphs.add_parser(graph.name, help=graph.help, description=graph.help)
        for argument in options(graph.name):
            _add_option(of_graph, argument)
        of_graph.add_argument('--nodes', nargs='+', default=None, help='start only these nodes')
        of_graph.set_defaults(run=_run)


def options(graph: str) -> tuple[Argument, ...]:
    """Return the arguments of a graph that are options here too."""
    return tuple(a for a in GRAPHS[graph].arguments if not a.launch_only)


def _add_option(parser: argparse.ArgumentParser, argument: Argument) -> None:
    flag = f'--{argument.name.replace("_", "-")}'
    settings = {'dest': argument.name, 'default': argument.default, 'help': argument.help}
    if isinstance(argument.default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
    elif argument.choices:
        parser.add_argument(flag, choices=argument.choices, **settings)
    else:
        parser.add_argument(flag, type=type(argument.default), **settings)


def graph_from_args(args: argparse.Namespace) -> Graph:
    """Build the graph the options ask for.

    Raises:
        ConfigError, CheckpointError: see `GraphDescription`, `require_checkpoint` and
            `realtime.require_priorities`.
    """
    values = {a.name: getattr(args, a.name) for a in options(args.graph)}
    graph = GRAPHS[args.graph](nodes=args.nodes, **values)
    require_checkpoint(graph)
    realtime.require_priorities(graph)
    return graph


def require_checkpoint(graph: Graph) -> None:
    """Refuse a graph whose checkpoint is not there, before anything is started.

    Raises:
        CheckpointError: names the folder. What is inside is checked by the policy itself.
    """
    checkpoint = checkpoint_needed(graph)
    if checkpoint is not None and not (checkpoint / 'config.json').is_file():
        raise CheckpointError(
            f'no checkpoint in {checkpoint}: give --checkpoint FOLDER, or train one '
            '(`make train-demo`)'
        )


def _run(args: argparse.Namespace) -> int:
    graph = graph_from_args(args)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return bring_up(graph, stop)


def bring_up(graph: Graph, stop: threading.Event) -> int:
    """Run a graph until `stop` is set or a process ends; returns the exit status."""
    for text in graph.warnings:
        _say(f'warning: {text}')
    supervisor = Supervisor(graph)
    problem = ''
    try:
        supervisor.start()
        _announce_when_ready(graph, supervisor, stop)
        ending = supervisor.wait(stop)
        if ending is not None:
            problem = f'{ending} by itself: ending the others'
    except (ProcessEndedError, SessionError) as e:
        problem = str(e)
    finally:
        try:
            _say(problem or 'ending')
        finally:
            endings = supervisor.stop()
    for ending in endings:
        if not ending.clean:
            problem = problem or str(ending)
            _say(str(ending))
    return 1 if problem else 0


class _Stopped(Exception):  # noqa: N818 - a signal, not an error
    """The user ended the command before the graph was ready."""


def _announce_when_ready(graph: Graph, supervisor: Supervisor, stop: threading.Event) -> None:
    def check() -> None:
        if stop.is_set():
            raise _Stopped
        supervisor.check()

    def tell(missing: str) -> None:
        _say(f'{missing}; still waiting, Ctrl-C ends it')

    try:
        with Session(name='faster_vla_up') as session:
            session.wait_until_ready(graph, LATE_AFTER, check, on_late=tell)
    except _Stopped:
        return
    _say(f'{graph.name} is ready; Ctrl-C ends it')


def _say(text: str) -> None:
    # A terminal that was closed, or `| head`: the graph must be ended in order all the same.
    with contextlib.suppress(OSError, ValueError):
        print(f'[faster-vla] {text}', file=sys.stderr, flush=True)
