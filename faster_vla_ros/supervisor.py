"""Starts the processes of a graph, shows what they say and ends them in order. Imports no ROS.

No orphans, whatever happens: every process leads a session of its own (a Ctrl-C in the terminal
reaches only the supervisor, which passes it on in the right order) and carries a parent-death
signal; what does not end when asked is killed with its whole group.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import contextlib
import ctypes
import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import yaml

from faster_core.errors import FasterVlaError
from faster_vla_ros import realtime
from faster_vla_ros.graph import Graph, NodeSpec, PACKAGE

PR_SET_PDEATHSIG = 1
# Seconds a process gets to answer each signal before the next, harder one.
PATIENCE = ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))
_ASKING_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NUM_LAST_LINES = 30
POLL_PERIOD = 0.05

_LIBC = ctypes.CDLL(None, use_errno=True)


class ProcessEndedError(FasterVlaError, RuntimeError):
    """A process of the graph ended although nobody asked it to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """How one process ended: `status` as of `subprocess` (negative: signal number)."""

    name: str
    status: int

    @property
    def clean(self) -> bool:
        """Whether it ended by itself or by a signal it may answer, not by force or failure."""
        return self.status in (0, -signal.SIGINT, -signal.SIGTERM)

    def __str__(self) -> str:
        """Say it in words."""
        if self.status < 0:
            return f'{self.name} was ended by {signal.Signals(-self.status).name}'
        return f'{self.name} ended with status {self.status}'


def command_line(spec: NodeSpec, overrides: pathlib.Path | None = None) -> list[str]:
    """Return the command of one node; rclpy itself reads what follows `--ros-args`.

    Args:
        spec: the node.
        overrides: file with `spec.parameters` (`write_overrides`), applied last.
    """
    command = [*realtime.prefix(spec.realtime_priority)]
    command += [sys.executable, '-m', f'{PACKAGE}.{spec.executable}', '--ros-args']
    command += ['-r', f'__node:={spec.name}']
    files = [*spec.parameter_files, *([overrides] if overrides else [])]
    for path in files:
        command += ['--params-file', str(path)]
    for source, target in spec.remappings:
        command += ['-r', f'{source}:={target}']
    return command


def write_overrides(spec: NodeSpec, folder: pathlib.Path) -> pathlib.Path | None:
    """Write the node's parameters as a ROS parameter file; None if it has none."""
    if not spec.parameters:
        return None
    path = folder / f'{spec.name}.yaml'
    values = {'/**': {spec.name: {'ros__parameters': dict(spec.parameters)}}}
    path.write_text(yaml.dump(values, Dumper=_Dumper), encoding='utf-8')
    return path


class _Dumper(yaml.SafeDumper):
    """Quotes every string: ROS reads `y`, `1e3` or `inf` without quotes as something else."""


def _quoted(dumper: yaml.Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar('tag:yaml.org,2002:str', text, style='"')


_Dumper.add_representer(str, _quoted)


def environment_of(graph: Graph, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the processes: what is set and not empty wins over the graph."""
    environment = dict(os.environ)
    for name, value in graph.environment.items():
        environment[name] = environment.get(name) or value
    return environment | dict(extra or {})


def print_line(name: str, line: str) -> None:
    """Default sink of what the processes say."""
    print(f'[{name}] {line}', flush=True)


class Supervisor:
    """The running processes of a graph; use it as a context manager from the main thread.

    (The kernel sends the parent-death signal when the *thread* that started a process ends.)
    """

    def __init__(
        self,
        graph: Graph,
        *,
        environment: Mapping[str, str] | None = None,
        sink: Callable[[str, str], None] = print_line,
        command: Callable[[NodeSpec, pathlib.Path | None], list[str]] = command_line,
    ) -> None:
        """Prepare; `start` starts.

        Args:
            graph: what to run.
            environment: variables added to `environment_of(graph)`.
            sink: called with node name and line for every line a process writes.
            command: makes the command of a node; tests put stubs here.
        """
        self._graph, self._sink, self._command = graph, sink, command
        self._environment = environment_of(graph, environment)
        self._folder = tempfile.TemporaryDirectory(prefix='faster_vla_')
        self._processes: dict[str, subprocess.Popen] = {}
        self._readers: list[threading.Thread] = []
        self._last_lines: dict[str, collections.deque[str]] = {}

    def __enter__(self) -> Supervisor:
        """Start all processes."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        self.stop()

    def start(self) -> None:
        """Start all processes in the graph's order."""
        for spec in self._graph.nodes:
            self._start(spec)

    def pid(self, name: str) -> int:
        """Return the process id of a node."""
        return self._processes[name].pid

    def last_lines(self, name: str) -> list[str]:
        """Return the last lines a node wrote."""
        return list(self._last_lines[name])

    def ended(self) -> Ending | None:
        """Return the first process found ended, None while all run."""
        for name, process in self._processes.items():
            status = process.poll()
            if status is not None:
                return Ending(name=name, status=status)
        return None

    def check(self) -> None:
        """Raise `ProcessEndedError`, with the node's last lines, if a process has ended."""
        ending = self.ended()
        if ending is not None:
            self._join_readers()
            told = '\n  '.join(['', *self.last_lines(ending.name)[-8:]])
            raise ProcessEndedError(f'{ending} by itself{told}')

    def wait(self, stop: threading.Event) -> Ending | None:
        """Wait until `stop` is set (None) or a process ends by itself."""
        # Not `stop.wait`: it holds a lock that the signal handler which sets `stop` would need.
        while not stop.is_set():
            ending = self.ended()
            if ending is not None:
                return ending
            time.sleep(POLL_PERIOD)
        return None

    def stop(self) -> list[Ending]:
        """End all processes in the graph's stop order; returns how each ended.

        SIGINT and SIGTERM to the supervisor itself are ignored meanwhile: the safe commands come
        first. Takes at most the sum of `PATIENCE` for each process.
        """
        with _signals_ignored():
            order = [n for n in self._graph.stop_order if n in self._processes]
            order += [n for n in self._processes if n not in order]
            endings = [self._end(name) for name in order]
            self._join_readers()
            self._processes.clear()
            self._folder.cleanup()
        return endings

    def _start(self, spec: NodeSpec) -> None:
        overrides = write_overrides(spec, pathlib.Path(self._folder.name))
        # What has commands to send is asked to end; anything else need not live a moment longer.
        death_signal = signal.SIGTERM if spec.safe_stop else signal.SIGKILL
        process = subprocess.Popen(  # noqa: S603 - our own modules
            self._command(spec, overrides),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            start_new_session=True,
            preexec_fn=functools.partial(_in_child, death_signal, os.getpid()),
        )
        self._processes[spec.name] = process
        self._last_lines[spec.name] = collections.deque(maxlen=NUM_LAST_LINES)
        reader = threading.Thread(target=self._read, args=(spec.name, process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, process: subprocess.Popen) -> None:
        for line in process.stdout:
            self._last_lines[name].append(line.rstrip('\n'))
            # Nobody may read what we print any more (`| head`), or no encoding have a word for it,
            # but the pipe must be emptied: a node that waits for it no longer answers.
            with contextlib.suppress(OSError, ValueError):
                self._sink(name, line.rstrip('\n'))

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join(0.5)

    def _end(self, name: str) -> Ending:
        process = self._processes[name]
        for number, patience in PATIENCE:
            if process.poll() is not None:
                break
            _signal_group(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        # Whatever it may have started itself.
        _signal_group(process.pid, signal.SIGKILL)
        status = process.poll()
        # The kernel may still be busy with it; the others must be ended all the same.
        return Ending(name=name, status=-signal.SIGKILL if status is None else status)


def _in_child(death_signal: int, parent: int) -> None:
    """Run in the new process before its program."""
    # A shell's background job ignores SIGINT, and so would all its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl(PR_SET_PDEATHSIG)')
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


@contextlib.contextmanager
def _signals_ignored():
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in _ASKING_TO_END}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for(condition: Callable[[], bool], timeout: float) -> bool:
    """Poll until `condition` holds; False after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_PERIOD)
    return True
