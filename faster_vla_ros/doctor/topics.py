"""Inputs: is every topic there, of the right type, heard by us, and often enough?"""

from __future__ import annotations

from collections.abc import Iterator
import itertools

from faster_vla_ros import qos
from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.inputs import Input, streams
from faster_vla_ros.doctor.report import fail, Finding, ok, warn
from faster_vla_ros.doctor.snapshot import Heard, message_type, Snapshot

MIN_STATE_RATE = 10.0
# Seconds of silence at the end that a quick driver on a loaded computer may need.
MAX_SILENCE = 1.0
NUM_CANDIDATES = 3


def check_topics(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at the publishers of every input."""
    for each in expected.inputs:
        yield _topic(each, expected, snapshot)


def _topic(each: Input, expected: Expected, snapshot: Snapshot) -> Finding:
    wanted = message_type(each.kind)
    publishers = snapshot.publishers.get(each.topic, ())
    if not publishers:
        return fail(
            'topic',
            each.subject,
            f'nobody publishes {each.topic}',
            expected=f'a publisher of {wanted}',
            advice='start the driver, or correct the topic in the parameter file'
            + _candidates(wanted, expected, snapshot),
        )
    nodes = ', '.join(sorted({p.node for p in publishers}))
    if other := [p for p in publishers if p.type != wanted]:
        return fail(
            'topic',
            each.subject,
            f'{other[0].node} publishes {other[0].type} on {each.topic}',
            expected=wanted,
            advice='correct `transport` or `type` in the parameter file, or choose another topic',
        )
    for publisher, (node, profile) in itertools.product(publishers, each.qos.items()):
        if why := qos.incompatible(publisher.qos, profile):
            return fail(
                'topic',
                each.subject,
                f'{each.topic}: QoS of {publisher.node} and of {node} do not match: {why}',
                expected=f'a publisher that the subscription of {node} can hear',
                advice='change the QoS of the driver, or `qos_overrides` of the parameter file',
            )
    if len(publishers) > 1 and (each.camera or _by_index(each)):
        return warn(
            'topic',
            each.subject,
            f'{len(publishers)} publishers on {each.topic}: {nodes}',
            expected='one: their messages cannot be told apart',
            advice='end the one that does not belong to the robot',
        )
    return ok('topic', each.subject, f'{each.topic} of {nodes}')


def _by_index(each: Input) -> bool:
    return any(s.config.mapping == 'by_index' for s in each.sources.values())


def _candidates(wanted: str, expected: Expected, snapshot: Snapshot) -> str:
    """Return topics of the right type that are published and that nothing else of ours reads."""
    used = {i.topic for i in expected.inputs}
    found = sorted(
        topic
        for topic, types in snapshot.topics.items()
        if wanted in types and topic not in used and snapshot.publishers.get(topic)
    )
    if not found:
        return ''
    more = f' and {len(found) - NUM_CANDIDATES} more' if len(found) > NUM_CANDIDATES else ''
    return f'; of this type there are {", ".join(found[:NUM_CANDIDATES])}{more}'


def check_rates(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the rate of every input that has a publisher with what the policy needs."""
    for each in expected.inputs:
        if snapshot.publishers.get(each.topic):
            for part, heard in streams(each, snapshot.of(each.topic)):
                yield _rate(part, heard, expected, snapshot)


def _rate(each: Input, heard: Heard, expected: Expected, snapshot: Snapshot) -> Finding:
    steps = expected.embodiment.action_frequency
    least = MIN_STATE_RATE
    wanted = f'at least {least:.1f} Hz'
    if each.camera:
        ratio = expected.policy['input_rate.warn_ratio']
        least = ratio * steps
        wanted = f'at least {least:.1f} Hz ({ratio:g} of the {steps:g} steps per second)'
    silence = heard.silence(snapshot.end)
    if heard.arrivals and silence > max(each.timeout, MAX_SILENCE):
        return fail(
            'rate',
            each.subject,
            f'silent for the last {silence:.1f} s on {each.topic}',
            expected=wanted,
            advice='look at the driver: it has stopped',
        )
    if len(heard.arrivals) < 2:
        return fail(
            'rate',
            each.subject,
            f'{len(heard.arrivals)} messages in {snapshot.duration:g} s on {each.topic}',
            expected=wanted,
            advice='look at the driver; large images may be lost with the default Fast DDS '
            'profile: set config/fastdds_shm.xml for it too, or use compressed images',
        )
    found = f'{heard.rate:.1f} Hz'
    if heard.rate * each.timeout < 1:
        return fail(
            'rate',
            each.subject,
            found,
            expected=f'{wanted}; silence of {each.timeout:g} s makes the input stale',
            advice='make the driver faster, or raise `timeout` if the robot may move that blindly',
        )
    gap = heard.largest_gap(snapshot.end)
    if heard.rate < least or gap > each.timeout:
        return warn(
            'rate',
            each.subject,
            f'{found}, longest silence {gap:.2f} s',
            expected=f'{wanted} and no silence of {each.timeout:g} s',
            advice='look at driver, network and load of the computers',
        )
    return ok('rate', each.subject, found)
