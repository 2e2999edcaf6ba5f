"""Our nodes: there once each, made for the same robot, run as the file says, and at rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

from faster_core.embodiment import Embodiment
from faster_core.errors import EmbodimentError
from faster_vla_msgs.msg import DispatcherState, PolicyStatus
from faster_vla_ros.doctor.expected import DISPATCHER, Expected, POLICY
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Snapshot

SERVICES = {
    'enable': 'std_srvs/srv/SetBool',
    'stop': 'std_srvs/srv/Trigger',
    'reset': 'std_srvs/srv/Trigger',
}
_RESTART = 'start both nodes with the same checkpoint'


def check_nodes(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look for our nodes, and for two nodes of one name."""
    ours = [expected.name(n) for n in (DISPATCHER, POLICY)]
    for name in ours:
        if snapshot.nodes.count(name) == 0:
            yield info('node', name.lstrip('/'), 'does not run', 'start it and look again')
    counted = {n: snapshot.nodes.count(n) for n in dict.fromkeys(snapshot.nodes)}
    hidden = {n for n in counted if n.rpartition('/')[2].startswith('_')}
    for name, count in counted.items():
        if count > 1 and name not in hidden:
            judge = fail if name in ours else warn
            yield judge(
                'node',
                name.lstrip('/'),
                f'{count} nodes of this name',
                expected='one: services and parameters reach any of them',
                advice='end the others, or give them another ROS_DOMAIN_ID or namespace',
            )
        elif name in ours:
            yield ok('node', name.lstrip('/'), 'runs')


def check_services(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look for the services with which motion is enabled and stopped."""
    node = expected.name(DISPATCHER)
    if node not in snapshot.nodes:
        return
    wrong = [
        f'{node}/{name}'
        for name, kind in SERVICES.items()
        if snapshot.services.get(f'{node}/{name}', ('', ''))[0] != kind
    ]
    if wrong:
        yield fail(
            'services',
            DISPATCHER,
            f'not offered: {", ".join(wrong)}',
            expected=f'{", ".join(SERVICES)}',
            advice='look at the output of the dispatcher: it may have refused its parameters',
        )
    else:
        yield ok('services', DISPATCHER, ', '.join(SERVICES))


def check_states(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at what our nodes say about themselves."""
    state = snapshot.dispatcher_state
    if state is not None:
        yield _dispatcher_state(state)
    elif expected.name(DISPATCHER) in snapshot.nodes:
        yield fail(
            'state',
            DISPATCHER,
            'says nothing on ~/state',
            expected='a latched state',
            advice='look at the output of the dispatcher',
        )
    status = snapshot.policy_state
    if status is not None and status.state == PolicyStatus.STATE_FAULT:
        yield fail(
            'state',
            POLICY,
            f'fault: {status.message}',
            expected='idle or running',
            advice='look at the output of the policy node; deactivate and activate it',
        )
    elif status is not None:
        yield ok('state', POLICY, status.message or f'instruction: {status.instruction}')


def _dispatcher_state(state: Any) -> Finding:
    if state.action == DispatcherState.ACTION_STOP:
        return warn(
            'state',
            DISPATCHER,
            f'stopped: {state.message}',
            expected='no latched stop',
            advice='faster-vla reset, once the reason is gone',
        )
    if state.enabled:
        return warn(
            'state',
            DISPATCHER,
            'motion is enabled: the robot follows any chunk that comes',
            expected='disabled while somebody looks for mistakes',
            advice='faster-vla disable',
        )
    return ok('state', DISPATCHER, f'motion is disabled{_detail(state.message)}')


def _detail(message: str) -> str:
    detail = message.removeprefix('disabled').lstrip('; ')
    return f' ({detail})' if detail else ''


def check_embodiments(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the embodiment of the checkpoint with those of the running nodes."""
    wanted = f'{expected.embodiment.name} {expected.embodiment.checksum[:12]}, of the checkpoint'
    if found := snapshot.policy_checksum:
        yield _same(POLICY, found, expected.embodiment, wanted)
    parameters = snapshot.parameters.get(expected.name(DISPATCHER), {})
    path = parameters.get('embodiment')
    if path is None:
        return
    try:
        loaded = Embodiment.load(pathlib.Path(path))
    except EmbodimentError as e:
        yield warn(
            'embodiment',
            DISPATCHER,
            f'not compared: {e}',
            expected='a file of this computer',
            advice='run the doctor where the dispatcher runs',
        )
        return
    yield _same(DISPATCHER, loaded.checksum, expected.embodiment, wanted)


def _same(node: str, found: str, embodiment: Embodiment, wanted: str) -> Finding:
    if found != embodiment.checksum:
        return fail(
            'embodiment', node, f'runs with {found[:12]}', expected=wanted, advice=_RESTART
        )
    return ok('embodiment', node, wanted)


def check_wiring(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look whether the dispatcher hears the policy's chunks."""
    policy, dispatcher = expected.name(POLICY), expected.name(DISPATCHER)
    if not {policy, dispatcher} <= set(snapshot.nodes):
        return
    topic = f'{policy}/action_chunk'
    if dispatcher in {s.node for s in snapshot.subscriptions.get(topic, ())}:
        yield ok('chunks', DISPATCHER, f'hears {topic}')
    else:
        yield fail(
            'chunks',
            DISPATCHER,
            f'does not listen to {topic}',
            expected='action_chunk remapped to it',
            advice='start it with faster-vla up or the launch file, or remap action_chunk',
        )


def check_running_parameters(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the parameters of the running nodes with the file."""
    for node in (POLICY, DISPATCHER):
        running = snapshot.parameters.get(expected.name(node))
        if not running:
            continue
        differences = list(_differences(expected.raw[node], running))
        if differences:
            yield warn(
                'running',
                node,
                '; '.join(differences[:3])
                + (f'; {len(differences) - 3} more' if len(differences) > 3 else ''),
                expected='what the parameter file says; the other checks judge the file',
                advice='give the doctor the file the node was started with (--params)',
            )
        else:
            yield ok('running', node, 'with the parameters of the file')


def _differences(file: Mapping[str, Any], running: Mapping[str, Any]) -> Iterator[str]:
    for name, value in file.items():
        if name not in running:
            yield f'{name} is not set'
        elif _plain(running[name]) != _plain(value):
            yield f'{name} is {_plain(running[name])}, in the file {value}'


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, '__iter__') and not isinstance(value, str) else value
