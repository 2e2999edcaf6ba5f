"""Real-time priorities: how a process is started with one, and whether this user may do that."""

from __future__ import annotations

import subprocess

from faster_core.errors import ConfigError
from faster_vla_ros.graph_parts import Graph

# SCHED_FIFO of Linux has 1 to 99.
HIGHEST = 99


def prefix(priority: int) -> tuple[str, ...]:
    """Return what stands before a command that is to run under SCHED_FIFO; nothing for 0."""
    return ('chrt', '-f', str(priority)) if priority else ()


def require_priorities(graph: Graph) -> None:
    """Refuse a graph with a priority that this user may not give, before anything is started.

    Raises:
        ConfigError: says how to get the right to it, or that there is no `chrt`.
    """
    for priority in sorted({n.realtime_priority for n in graph.nodes} - {0}):
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                [*prefix(priority), 'true'], capture_output=True, text=True
            )
        except FileNotFoundError as e:
            raise ConfigError(
                f'realtime_priority {priority}: expected the command chrt (util-linux), found '
                'none; install it, or leave the argument out'
            ) from e
        if done.returncode != 0:
            raise ConfigError(
                f'realtime_priority {priority}: expected the right to it, found '
                f'"{done.stderr.strip()}"; give the user a line "USER - rtprio {priority}" in '
                '/etc/security/limits.d/faster_vla.conf and a new login (no capability to chrt: '
                'its process would not end with the one that started it), or leave it out'
            )
