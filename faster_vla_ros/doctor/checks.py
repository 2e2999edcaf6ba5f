"""All checks, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from faster_vla_ros.doctor import (
    cameras,
    clocks,
    commands,
    interlocks,
    limits,
    nodes,
    stamps,
    topics,
    values,
)
from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.report import Finding
from faster_vla_ros.doctor.snapshot import Snapshot

Check = Callable[[Expected, Snapshot], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    clocks.check_environment,
    clocks.check_sim_time,
    nodes.check_nodes,
    nodes.check_services,
    nodes.check_states,
    nodes.check_embodiments,
    nodes.check_running_parameters,
    nodes.check_wiring,
    topics.check_topics,
    topics.check_rates,
    stamps.check_stamps,
    stamps.check_sets,
    cameras.check_pictures,
    cameras.check_sides,
    values.check_values,
    values.check_order,
    values.check_agreement,
    values.check_statistics,
    limits.check_limits,
    limits.check_measured,
    commands.check_commands,
    commands.check_controllers,
    commands.check_trajectory_controllers,
    interlocks.check_interlocks,
)


def examine(expected: Expected, snapshot: Snapshot) -> list[Finding]:
    """Return what reading the files showed, then the rows of every check."""
    findings = list(expected.findings)
    for check in CHECKS:
        findings += check(expected, snapshot)
    return findings
