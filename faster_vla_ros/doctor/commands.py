"""Commands: does the robot listen, does nobody else command it, are its controllers active?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from faster_vla_ros import qos
from faster_vla_ros.doctor.expected import DISPATCHER, Expected
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Endpoint, message_type, Snapshot
from faster_vla_ros.doctor.topics import incompatible
from faster_vla_ros.interlocks.takeover import GUARD
from faster_vla_ros.outputs.protocol import is_action

_START = 'start the driver or controller, or correct the name in the parameter file'


def check_commands(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at whoever listens to, and publishes, the commands of every component."""
    if expected.dispatcher is None:
        return
    for c in expected.dispatcher.embodiment.action:
        if c.name not in expected.dispatcher.outputs:
            yield info('command', c.name, 'sent nowhere (output: none)')
            continue
        output, config = expected.dispatcher.outputs[c.name]
        if is_action(output):
            yield _action(c.name, expected.name(config.action), snapshot)
        else:
            topic = expected.name(config.topic)
            yield _listener(c.name, topic, message_type(output.message_type), expected, snapshot)
            yield from _rivals(c.name, topic, expected, snapshot)


def _action(name: str, action: str, snapshot: Snapshot) -> Finding:
    kind, node = snapshot.services.get(f'{action}/_action/send_goal', ('', ''))
    if node:
        return ok('command', name, f'{action} ({kind.removesuffix("_SendGoal")}) of {node}')
    return fail(
        'command',
        name,
        f'nobody offers the action {action}',
        expected='a controller that takes goals',
        advice=_START + _controllers(snapshot),
    )


def _listener(
    name: str, topic: str, wanted: str, expected: Expected, snapshot: Snapshot
) -> Finding:
    own = expected.name(DISPATCHER)
    listeners = [s for s in snapshot.subscriptions.get(topic, ()) if s.node != own]
    if not listeners:
        return fail(
            'command',
            name,
            f'nobody listens to {topic}',
            expected=f'a subscription of {wanted}',
            advice=_START + _controllers(snapshot),
        )
    for listener in listeners:
        if listener.type != wanted:
            return fail(
                'command',
                name,
                f'{listener.node} wants {listener.type} on {topic}',
                expected=wanted,
                advice=f'choose another `{name}.output` in the parameter file',
            )
        if why := incompatible(qos.COMMAND, listener.qos):
            return fail(
                'command',
                name,
                f'{topic}: QoS of {listener.node} and ours do not match: {why}',
                expected='a subscription that hears a reliable, volatile publisher',
                advice='change the QoS of the driver',
            )
    return ok('command', name, f'{topic} heard by {_nodes(listeners)}')


def _controllers(snapshot: Snapshot) -> str:
    """Return what is known about controllers, for a sentence about a missing one."""
    if snapshot.controllers is None:
        return ''
    known = ', '.join(f'{c.name} ({c.state})' for c in snapshot.controllers)
    return f'; controllers: {known or "none loaded"}'


def _rivals(name: str, topic: str, expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    ours = {expected.name(DISPATCHER), expected.name(GUARD)}
    rivals = [p for p in snapshot.publishers.get(topic, ()) if p.node not in ours]
    if rivals:
        yield fail(
            'rivals',
            name,
            f'{_nodes(rivals)} publishes on {topic} too',
            expected=f'{DISPATCHER} alone',
            advice='end it: two sources of commands tear at the robot, and the dispatcher yields',
        )


def check_controllers(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look whether the controllers we command are active."""
    if expected.dispatcher is None:
        return
    if snapshot.controllers is None:
        if snapshot.controllers_problem:
            yield warn(
                'controller',
                'ros2_control',
                f'states are not known: {snapshot.controllers_problem}',
                expected='the list of controllers; one that is inactive may listen all the same',
                advice='ros2 control list_controllers, or install controller_manager_msgs',
            )
        return
    states = {c.name: c for c in snapshot.controllers}
    for name, (_, config) in expected.dispatcher.outputs.items():
        # A controller's topics and actions stand below its name.
        parts = expected.name(config.topic or config.action).split('/')
        controller = states.get(parts[-2]) if len(parts) > 2 else None
        if controller is None:
            continue
        if controller.state != 'active':
            yield fail(
                'controller',
                name,
                f'{controller.name} ({controller.type}) is {controller.state}',
                expected='active',
                advice=f'ros2 control set_controller_state {controller.name} active',
            )
        else:
            yield ok('controller', name, f'{controller.name} is active')


def check_interlocks(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at the topics beside the commands: brake, remote control, emergency stop."""
    if expected.dispatcher is None:
        return
    # What the dispatcher was started with wins: a simulation has no remote control.
    running = snapshot.parameters.get(expected.name(DISPATCHER), {})
    values = expected.dispatcher.values | {
        k: v for k, v in running.items() if k in expected.dispatcher.values
    }
    for key in ('brake.topic', 'acceleration_limit.topic'):
        if values[key]:
            yield _heard(key.split('.')[0], expected.name(values[key]), snapshot)
    if values['permit.topic']:
        yield _spoken('permit', expected.name(values['permit.topic']), snapshot)
    if values['estop.enable']:
        yield _spoken('estop', expected.name('estop'), snapshot)
    for topic in values['exclusive_topics']:
        if publishers := snapshot.publishers.get(expected.name(topic)):
            yield fail(
                'interlock',
                'exclusive',
                f'{_nodes(publishers)} publishes on {topic}',
                expected='no publisher; motion is not enabled while there is one',
                advice='end it',
            )


def _heard(key: str, topic: str, snapshot: Snapshot) -> Finding:
    if listeners := snapshot.subscriptions.get(topic):
        return ok('interlock', key, f'{topic} heard by {_nodes(listeners)}')
    return warn(
        'interlock',
        key,
        f'nobody listens to {topic}',
        expected='the driver it is meant for',
        advice=_START,
    )


def _spoken(key: str, topic: str, snapshot: Snapshot) -> Finding:
    if publishers := snapshot.publishers.get(topic):
        return ok('interlock', key, f'{topic} of {_nodes(publishers)}')
    return fail(
        'interlock',
        key,
        f'nobody publishes {topic}',
        expected='whoever may forbid motion',
        advice=_START,
    )


def _nodes(endpoints: Any) -> str:
    found: list[Endpoint] = list(endpoints)
    return ', '.join(sorted({e.node for e in found}))
