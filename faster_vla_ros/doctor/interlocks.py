"""Interlocks: who hears the brake, and does whoever can forbid motion speak?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from faster_vla_ros import qos
from faster_vla_ros.doctor.commands import nodes, partners, START
from faster_vla_ros.doctor.expected import DISPATCHER, Expected
from faster_vla_ros.doctor.report import fail, Finding, ok, warn
from faster_vla_ros.doctor.snapshot import Snapshot, Spoken
from faster_vla_ros.interlocks.any_topic import message_class

BOOL = 'std_msgs/msg/Bool'


def check_interlocks(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at the topics beside the commands: brake, remote control, teleoperation, ..."""
    if expected.dispatcher is None:
        return
    # What the dispatcher was started with wins: a simulation has no remote control.
    running = snapshot.parameters.get(expected.name(DISPATCHER), {})
    values = expected.dispatcher.values | {
        k: v for k, v in running.items() if k in expected.dispatcher.values
    }
    for key in ('brake.topic', 'acceleration_limit.topic'):
        if values[key]:
            yield _heard(key.split('.')[0], expected.name(values[key]), expected, snapshot)
    if values['permit.topic']:
        topic = expected.name(values['permit.topic'])
        yield _unspoken('permit', topic, snapshot) or _permit(topic, values, snapshot)
    if values['estop.enable']:
        topic = expected.name('estop')
        yield _unspoken('estop', topic, snapshot) or _estop(topic, values, expected, snapshot)
    if values['guard.topic'] and not values['dry_run']:
        yield from _guard(expected.name(values['guard.topic']), values, expected, snapshot)
    elif expected.guarded and not values['dry_run']:
        yield warn(
            'interlock',
            'guard',
            'the dispatcher does not ask whether the guard hears it',
            expected='`guard.topic`: without it the base may move before the guard would stop it',
            advice='set `guard.topic: "guard/state"` in the part of the dispatcher',
        )
    for topic in values['takeover.topics']:
        yield _takeover(expected.name(topic), snapshot)
    for topic in values['exclusive_topics']:
        if publishers := snapshot.publishers.get(expected.name(topic)):
            yield fail(
                'interlock',
                'exclusive',
                f'{nodes(publishers)} publishes on {topic}',
                expected='no publisher; motion is not enabled while there is one',
                advice='end it',
            )


def _heard(key: str, topic: str, expected: Expected, snapshot: Snapshot) -> Finding:
    if listeners := partners(snapshot.subscriptions.get(topic, ()), expected):
        return ok('interlock', key, f'{topic} heard by {nodes(listeners)}')
    return warn(
        'interlock',
        key,
        f'nobody listens to {topic}',
        expected='the driver it is meant for',
        advice=START,
    )


def _unspoken(key: str, topic: str, snapshot: Snapshot) -> Finding | None:
    """Return what is wrong if nobody publishes."""
    if snapshot.publishers.get(topic):
        return None
    return fail(
        'interlock',
        key,
        f'nobody publishes {topic}',
        expected='whoever may forbid motion',
        advice=START,
    )


def _takeover(topic: str, snapshot: Snapshot) -> Finding:
    """Judge a topic of teleoperation: whoever speaks there must be heard."""
    publishers = snapshot.publishers.get(topic, ())
    if not publishers:
        return warn(
            'interlock',
            'takeover',
            f'nobody publishes {topic}',
            expected='teleoperation: without it nobody can take over there',
            advice=START,
        )
    for each in publishers:
        try:
            message_class(each.type)
        except ImportError as e:
            return fail(
                'interlock',
                'takeover',
                f'{topic} of {each.node}: {each.type} is not installed ({e})',
                expected='a type that the dispatcher can read; else motion stays disabled',
                advice='install the package of its messages',
            )
    return ok('interlock', 'takeover', f'{topic} of {nodes(publishers)}')


def _permit(topic: str, values: Mapping[str, Any], snapshot: Snapshot) -> Finding:
    """Judge the remote control as `interlocks.permit` does."""
    who = nodes(snapshot.publishers[topic])
    wanted = f'{values["permit.field"]} is {values["permit.value"]}'
    said = snapshot.spoken.get(topic)
    if said is None:  # the file knows nothing of it: not listened to
        return ok('interlock', 'permit', f'{topic} of {who}')
    if said.problem or said.message is None or _age(said, snapshot) > values['permit.timeout']:
        return _silent('permit', topic, who, said, snapshot)
    found: Any = said.message
    for name in values['permit.field'].split('.'):
        if not hasattr(found, name):
            return fail(
                'interlock',
                'permit',
                f'{topic} of {who}: its messages have no field {values["permit.field"]}',
                expected=wanted,
                advice='correct `permit.topic` or `permit.field` in the parameter file',
            )
        found = getattr(found, name)
    if found != values['permit.value']:
        return warn(
            'interlock',
            'permit',
            f'{values["permit.field"]} of {topic} is {found}',
            expected=f'{wanted}: motion is not enabled before',
            advice='put the remote control into the mode in which programs may move the robot',
        )
    return ok('interlock', 'permit', f'{topic} of {who}: {wanted}')


def _estop(
    topic: str, values: Mapping[str, Any], expected: Expected, snapshot: Snapshot
) -> Finding:
    """Judge the emergency stop as `interlocks.estop` does."""
    publishers = snapshot.publishers[topic]
    who = nodes(publishers)
    profile = expected.qos(DISPATCHER, topic, 'subscription', qos.REPORT)
    for each in publishers:
        if each.type != BOOL:
            return fail(
                'interlock',
                'estop',
                f'{each.node} publishes {each.type} on {topic}',
                expected=BOOL,
                advice='correct the driver, or remap the topic',
            )
        if why := qos.incompatible(each.qos, profile):
            return fail(
                'interlock',
                'estop',
                f'{topic}: QoS of {each.node} and ours do not match: {why}',
                expected='a reliable publisher',
                advice='change the QoS of the driver',
            )
    said = snapshot.spoken.get(topic)
    if said is None:
        return ok('interlock', 'estop', f'{topic} of {who}')
    timeout = values['estop.timeout']
    if timeout and not _age(said, snapshot) <= timeout:
        return _silent('estop', topic, who, said, snapshot)
    if said.message is None:
        return warn(
            'interlock',
            'estop',
            f'{who} said nothing on {topic}: whether it works is not known',
            expected='a message, be it only when it is pressed',
            advice='press it while the doctor listens; better: `estop.timeout`, and a driver that '
            'goes on telling',
        )
    if said.message.data:
        return warn(
            'interlock',
            'estop',
            f'{topic} of {who}: pressed',
            expected='released, before anything moves',
            advice='release it',
        )
    return ok('interlock', 'estop', f'{topic} of {who}: released')


def _guard(
    topic: str, values: Mapping[str, Any], expected: Expected, snapshot: Snapshot
) -> Iterator[Finding]:
    """Judge what the guard says; whether it hears the dispatcher is in the state of that."""
    publishers = snapshot.publishers.get(topic)
    if not publishers:
        yield fail(
            'interlock',
            'guard',
            f'nobody publishes {topic}',
            expected='a guard: motion is not enabled before it says that it hears the dispatcher',
            advice='start the guard, or correct `guard.topic`',
        )
        return
    who = nodes(publishers)
    said = snapshot.spoken.get(topic)
    if said is None:  # the file knows nothing of it: not listened to
        yield ok('interlock', 'guard', f'{topic} of {who}')
        return
    if said.problem or said.message is None or _age(said, snapshot) > values['guard.timeout']:
        yield _silent('guard', topic, who, said, snapshot)
        return
    message = said.message
    driving = {expected.name(t) for t in expected.dispatcher.driving}
    if unwatched := sorted(driving - set(message.topics)):
        yield fail(
            'interlock',
            'guard',
            f'{who} does not watch {", ".join(unwatched)}',
            expected='every topic of velocities; motion is not enabled before',
            advice='correct `guard.topics`, or give the guard the same file and namespace',
        )
    elif message.zeroing:
        yield warn(
            'interlock',
            'guard',
            f'{who} sends zeros on {", ".join(message.zeroing)}',
            expected='none: commands that move the base have ceased without a last zero',
            advice='look at the output of the guard, and why the dispatcher ended',
        )
    else:
        yield ok('interlock', 'guard', f'{who} watches {", ".join(message.topics)}')


def _silent(key: str, topic: str, who: str, said: Spoken, snapshot: Snapshot) -> Finding:
    since = (
        f'nothing in {snapshot.duration:g} s'
        if said.message is None
        else f'nothing for the last {_age(said, snapshot):.1f} s'
    )
    return fail(
        'interlock',
        key,
        said.problem or f'{who} publishes {topic} and said {since}',
        expected='messages that go on: the dispatcher takes silence for "forbidden"',
        advice='install the package of its messages' if said.problem else 'look at the driver',
    )


def _age(said: Spoken, snapshot: Snapshot) -> float:
    """Return seconds since the newest message; NaN without one."""
    return snapshot.end - said.at
