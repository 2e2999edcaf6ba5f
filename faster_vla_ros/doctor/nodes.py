"""Our nodes: there once each, made for the same robot, run as the file says, and at rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

from faster_core.embodiment import Embodiment
from faster_core.errors import EmbodimentError
from faster_vla_msgs.msg import DispatcherState, PolicyStatus
from faster_vla_ros.doctor.expected import DISPATCHER, Expected, GUARD, POLICY
from faster_vla_ros.doctor.report import fail, Finding, ok, warn
from faster_vla_ros.doctor.snapshot import Snapshot

SERVICES = {
    'enable': 'std_srvs/srv/SetBool',
    'stop': 'std_srvs/srv/Trigger',
    'reset': 'std_srvs/srv/Trigger',
}
_RESTART = 'start both nodes with the same checkpoint'
# State in which not all is well -> verdict, its name, what is expected, advice.
_NOT_WELL = {
    PolicyStatus.STATE_FAULT: (
        fail,
        'fault',
        'idle or running',
        'look at the output of the policy node; deactivate and activate it',
    ),
    PolicyStatus.STATE_STALE_OBSERVATION: (
        fail,
        'no chunk',
        'fresh inputs',
        'look at the rows of this input; if all are OK, at sync_slop and the clocks',
    ),
    PolicyStatus.STATE_WARMING_UP: (warn, 'warming up', 'idle or running', 'wait and look again'),
}


def check_nodes(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look for our nodes, and for two nodes of one name."""
    ours = [expected.name(n) for n in (DISPATCHER, POLICY, GUARD)]
    for name in ours[: 3 if expected.guarded else 2]:
        if snapshot.nodes.count(name) == 0:
            yield _missing(name, expected)
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


def _missing(name: str, expected: Expected) -> Finding:
    judge, wanted = warn, 'a node: what it does itself is not looked at'
    advice = 'start it and look again'
    if name == expected.name(GUARD):
        judge = fail
        wanted = 'a guard, as the parameter file says: the base drives on when commands stop'
        advice = 'ros2 run faster_vla_ros guard --ros-args --params-file FILE'
    return judge('node', name.lstrip('/'), 'does not run', expected=wanted, advice=advice)


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
        yield _mute(DISPATCHER, '~/state', 'look at the output of the dispatcher')
    status = snapshot.policy_state
    if status is not None:
        yield _policy_state(status)
    elif expected.name(POLICY) in snapshot.nodes:
        yield _mute(
            POLICY,
            '~/status',
            'wait until it is configured; look at its output and at '
            f'`ros2 lifecycle get {expected.name(POLICY)}`',
        )


def _mute(node: str, topic: str, advice: str) -> Finding:
    return fail(
        'state', node, f'says nothing on {topic}', expected='a latched state', advice=advice
    )


def _policy_state(status: Any) -> Finding:
    if status.state not in _NOT_WELL:
        return ok('state', POLICY, status.message or f'instruction: {status.instruction}')
    judge, name, expected, advice = _NOT_WELL[status.state]
    return judge('state', POLICY, f'{name}: {status.message}', expected=expected, advice=advice)


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
        if found := list(differences(expected.raw[node], running)):
            yield warn(
                'running',
                node,
                '; '.join(found[:3]) + (f'; {len(found) - 3} more' if len(found) > 3 else ''),
                expected='what the parameter file says; the other checks judge the file',
                advice='give the doctor the file the node was started with (--params)',
            )
        else:
            yield ok('running', node, 'with the parameters of the file')


def differences(file: Mapping[str, Any], running: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for every parameter of a file that a node runs without."""
    for name, value in file.items():
        if name not in running:
            yield f'{name} is not set'
        elif _plain(running[name]) != _plain(value):
            yield f'{name} is {_plain(running[name])}, in the file {value}'


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, '__iter__') and not isinstance(value, str) else value
