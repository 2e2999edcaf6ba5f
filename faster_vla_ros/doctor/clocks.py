"""Simulated time, and who is seen at all: domain, discovery range, middleware."""

from __future__ import annotations

from collections.abc import Iterator

from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Snapshot

# variable -> what the table calls it, and what holds if it is not set
SCOPE = {
    'ROS_DOMAIN_ID': ('domain', '0'),
    'ROS_AUTOMATIC_DISCOVERY_RANGE': ('discovery', 'SUBNET'),
    'ROS_STATIC_PEERS': ('peers', 'none'),
    'RMW_IMPLEMENTATION': ('middleware', ''),
}


def check_sim_time(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare `use_sim_time` of our nodes with who publishes /clock."""
    del expected
    publishers = [p.node for p in snapshot.publishers.get('/clock', ())]
    told = {n: bool(p.get('use_sim_time', False)) for n, p in snapshot.parameters.items()}
    using = [n for n, uses in told.items() if uses]
    if len(publishers) > 1:
        yield fail(
            'clock',
            '/clock',
            f'published by {", ".join(publishers)}',
            expected='one clock: time would run to and fro',
            advice='end one of them',
        )
    elif using and not publishers:
        yield fail(
            'clock',
            '/clock',
            f'{", ".join(using)} waits for simulated time and nobody publishes it',
            expected='a publisher of /clock',
            advice='start the simulation, or set use_sim_time: false',
        )
    elif using and len(using) < len(told):
        others = [n for n in told if n not in using]
        yield fail(
            'clock',
            '/clock',
            f'{", ".join(using)} uses simulated time, {", ".join(others)} does not',
            expected='one clock for all',
            advice='set use_sim_time alike',
        )
    elif publishers and told and not using:
        yield warn(
            'clock',
            '/clock',
            f'{publishers[0]} publishes it and our nodes do not use it',
            expected='use_sim_time: true, if the stamps are simulated time',
            advice='set use_sim_time, or end the simulation',
        )
    else:
        simulated = f'simulated, of {publishers[0]}' if publishers else 'wall'
        yield ok('clock', '/clock', f'{simulated} time')


def check_environment(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Say what decides which nodes are seen."""
    del expected
    for name, value in snapshot.environment.items():
        if name in SCOPE:
            subject, default = SCOPE[name]
            yield info('scope', subject, f'{name} {value or f"not set: {default}"}')
        elif value:
            yield info('scope', 'profile', f'{name} {value}')
        else:
            yield info(
                'scope',
                'profile',
                f'{name} not set: nodes started from this shell may lose large images',
                'set it to config/fastdds_shm.xml, for the drivers too',
            )
    yield info('scope', 'nodes', f'{len(snapshot.nodes)} seen')
