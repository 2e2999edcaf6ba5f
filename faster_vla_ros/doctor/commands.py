"""Commands: does the robot listen, does nobody else command it, are its controllers active?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from faster_vla_ros import qos
from faster_vla_ros.doctor.expected import DISPATCHER, Expected, GUARD, POLICY
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Endpoint, message_type, Snapshot
from faster_vla_ros.outputs import ways_in
from faster_vla_ros.outputs.protocol import is_action

# Parameters of joint_trajectory_controller, the first from Jazzy on, the second in Humble.
FROM_COMMAND = ('interpolate_from_desired_state', 'open_loop_control')
START = 'start the driver or controller, or correct the name in the parameter file'


def check_commands(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at whoever listens to, and publishes, the commands of every component."""
    if expected.dispatcher is None:
        return
    for c in expected.dispatcher.embodiment.action:
        if c.name not in expected.dispatcher.outputs:
            yield info('command', c.name, 'sent nowhere (output: none)')
            continue
        output, config = expected.dispatcher.outputs[c.name]
        name = expected.name(config.topic or config.action)
        if is_action(output):
            yield _action(c.name, name, message_type(output.action_type), snapshot)
        else:
            yield _listener(c.name, name, message_type(output.message_type), expected, snapshot)
        for topic in ways_in(output, name).topics:
            yield from _rivals(c.name, topic, expected, snapshot)


def _action(name: str, action: str, wanted: str, snapshot: Snapshot) -> Finding:
    kind, node = snapshot.services.get(f'{action}/_action/send_goal', ('', ''))
    kind = kind.removesuffix('_SendGoal')
    if not node:
        return fail(
            'command',
            name,
            f'nobody offers the action {action}',
            expected='a controller that takes goals',
            advice=START + _controllers(snapshot),
        )
    if kind != wanted:
        return fail(
            'command',
            name,
            f'{node} offers {kind} as {action}',
            expected=wanted,
            advice=f'choose another `{name}.output` in the parameter file',
        )
    return ok('command', name, f'{action} ({kind}) of {node}')


def _listener(
    name: str, topic: str, wanted: str, expected: Expected, snapshot: Snapshot
) -> Finding:
    listeners = partners(snapshot.subscriptions.get(topic, ()), expected)
    profile = expected.qos(DISPATCHER, topic, 'publisher', qos.COMMAND)
    if not listeners:
        return fail(
            'command',
            name,
            f'nobody listens to {topic}',
            expected=f'a subscription of {wanted}',
            advice=START + _controllers(snapshot),
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
        if why := qos.incompatible(profile, listener.qos):
            return fail(
                'command',
                name,
                f'{topic}: QoS of {listener.node} and ours do not match: {why}',
                expected='a subscription that hears our publisher',
                advice='change the QoS of the driver, or `qos_overrides` of the parameter file',
            )
    return ok('command', name, f'{topic} heard by {nodes(listeners)}')


def partners(endpoints: Iterable[Endpoint], expected: Expected) -> list[Endpoint]:
    """Return those of the robot: not of our own nodes, and not of a look by hand.

    The guard listens to what it guards and moves nothing; `ros2 topic echo` neither.
    """
    ours = {expected.name(n) for n in (DISPATCHER, POLICY, GUARD)}
    return [
        e
        for e in endpoints
        if e.node not in ours and not e.node.rpartition('/')[2].startswith('_')
    ]


def _controllers(snapshot: Snapshot) -> str:
    """Return what is known about controllers, for a sentence about a missing one."""
    if snapshot.controllers is None:
        return ''
    known = ', '.join(f'{c.full_name.lstrip("/")} ({c.state})' for c in snapshot.controllers)
    return f'; controllers: {known or "none loaded"}'


def _rivals(name: str, topic: str, expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    ours = {expected.name(DISPATCHER), expected.name(GUARD)}
    rivals = [p for p in snapshot.publishers.get(topic, ()) if p.node not in ours]
    if rivals:
        yield fail(
            'rivals',
            name,
            f'{nodes(rivals)} publishes on {topic} too',
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
    states = {c.full_name: c for c in snapshot.controllers}
    for name, (_, config) in expected.dispatcher.outputs.items():
        controller = states.get(controller_of(expected, config))
        if controller is None:
            continue
        if controller.state != 'active':
            yield fail(
                'controller',
                name,
                f'{controller.full_name.lstrip("/")} ({controller.type}) is {controller.state}',
                expected='active',
                advice=f'ros2 control set_controller_state -c {controller.manager} '
                f'{controller.name} active',
            )
        else:
            yield ok('controller', name, f'{controller.full_name.lstrip("/")} is active')


def check_trajectory_controllers(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look whether a joint_trajectory_controller goes on from what it commanded last."""
    if expected.dispatcher is None:
        return
    for name, (_, config) in expected.dispatcher.outputs.items():
        node = controller_of(expected, config)
        parameters = snapshot.controller_parameters.get(node, {})
        found = {flag: parameters[flag] for flag in FROM_COMMAND if flag in parameters}
        if not found:
            continue
        if any(found.values()):
            yield ok('trajectory', name, f'{node.lstrip("/")} goes on from its last command')
            continue
        flag = next(iter(found))
        yield warn(
            'trajectory',
            name,
            f'{node.lstrip("/")} begins every trajectory where the robot is measured: a step back '
            'with every chunk',
            expected=f'{flag}: true',
            advice=f'set it in the parameters of {node.lstrip("/")} and start that again',
        )


def controller_of(expected: Expected, config: Any) -> str:
    """Return the full name of the controller that is commanded, if it is one.

    Its topics and actions stand below its name.
    """
    return expected.name(config.topic or config.action).rpartition('/')[0]


def nodes(endpoints: Iterable[Endpoint]) -> str:
    """Return the names of their nodes."""
    return ', '.join(sorted({e.node for e in endpoints}))
