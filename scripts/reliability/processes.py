"""Processes of a measurement: nodes with parameters, ended with their starter whatever happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, TextIO

import yaml

from faster_vla_ros.compat.fastdds import local_udp_environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1
FIFO_HELP = (
    'real-time priority of dispatcher, guard and this process, which plays the robot and '
    'observes; 0: none'
)
_LIBC = ctypes.CDLL(None, use_errno=True)


def take_priority(fifo: int) -> None:
    """Run this process, and the threads it starts, under SCHED_FIFO; 0: as it is.

    Raises:
        PermissionError: the user may not.
    """
    if fifo:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(fifo))


def take_domain(domain: int) -> TextIO:
    """Have a ROS domain to oneself among the measurements of this machine.

    Returns:
        what holds it, until it is closed or this process ends.

    Raises:
        SystemExit: another measurement runs in it, and each would move the other's robot.
    """
    path = pathlib.Path(tempfile.gettempdir()) / f'faster_vla_reliability_domain_{domain}.lock'
    lock = path.open('a+', encoding='ascii')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        who = f'process {lock.read().strip()}'
        lock.close()
        raise SystemExit(
            f'{who} measures in ROS domain {domain}: wait for its end, or use another --domain '
            '(two at a time disturb each other all the same)'
        ) from None
    lock.truncate(0)
    lock.write(f'{os.getpid()}\n')
    lock.flush()
    return lock


class Processes:
    """Starts `python -m MODULE` by name; use it as a context manager."""

    def __init__(self, domain: int, environment: Mapping[str, str] | None = None) -> None:
        """Take the ROS domain and variables all of them get."""
        self._environment = dict(
            os.environ,
            ROS_DOMAIN_ID=str(domain),
            OMP_NUM_THREADS='1',
            PYTHONUNBUFFERED='1',
            # Of those that are killed, shared memory would hold up whoever speaks to them.
            **local_udp_environment(),
        ) | dict(environment or {})
        self._folder = tempfile.TemporaryDirectory(prefix='faster_vla_reliability_')
        self.folder = pathlib.Path(self._folder.name)
        self._running: dict[str, subprocess.Popen] = {}
        self.ending: subprocess.Popen | None = None  # signalled last

    def __enter__(self) -> Processes:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        self.close()

    def start(
        self,
        name: str,
        module: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        files: Sequence[pathlib.Path] = (),
        remappings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        nice: int = 0,
        fifo: int = 0,
    ) -> subprocess.Popen:
        """Start a node; `name` is also that of the node whose parameters these are.

        Args:
            name: what the process is called here.
            module: run with `python -m`.
            parameters: applied after the files.
            files: ROS parameter files.
            remappings: from -> to.
            arguments: before the ROS arguments.
            environment: variables of this process only.
            nice: added to its niceness.
            fifo: priority under SCHED_FIFO; 0: none, although its starter may have one.
        """
        command = [sys.executable, '-m', module, *arguments]
        if parameters is not None or files or remappings:
            command.append('--ros-args')
        if parameters is not None:
            own = self.folder / f'{name}.yaml'
            own.write_text(yaml.safe_dump({'/**': {name: {'ros__parameters': dict(parameters)}}}))
            files = [*files, own]
        for file in files:
            command += ['--params-file', str(file)]
        for source, target in (remappings or {}).items():
            command += ['-r', f'{source}:={target}']

        def in_child() -> None:
            _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if nice:
                os.nice(nice)
            if fifo:
                take_priority(fifo)
            elif os.sched_getscheduler(0) == os.SCHED_FIFO:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

        log = (self.folder / f'{name}.log').open('ab')
        with log:
            process = subprocess.Popen(  # noqa: S603 - our own modules
                command,
                cwd=ROOT,
                env=self._environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=in_child,
            )
        self._running[name] = process
        return process

    def __getitem__(self, name: str) -> subprocess.Popen:
        """Return a process that was started and not ended here."""
        return self._running[name]

    def __contains__(self, name: str) -> bool:
        """Whether a process was started and not ended here."""
        return name in self._running

    def log(self, name: str) -> str:
        """Return what processes of that name have written so far."""
        return (self.folder / f'{name}.log').read_text(errors='replace')

    def check(self) -> None:
        """Raise RuntimeError, with its last words, if a process ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(
                    f'{name} ended with status {process.returncode}:\n{self.log(name)[-3000:]}'
                )

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal that ends a process, and forget it; returns when (ns)."""
        process = self._running.pop(name)
        at = time.time_ns()
        process.send_signal(number)
        self.ending = process
        return at

    def end(self, name: str, patience: float = 10.0) -> int:
        """Ask a process to end, wait and forget it; returns its status."""
        process = self._running.pop(name)
        return _end(process, patience)

    def end_all(self) -> None:
        """End everything, last started first."""
        for name in reversed(list(self._running)):
            self.end(name)

    def close(self) -> None:
        """End everything and remove all files."""
        self.end_all()
        self._folder.cleanup()


def _end(process: subprocess.Popen, patience: float) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(patience)
