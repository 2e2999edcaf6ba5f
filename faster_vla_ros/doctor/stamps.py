"""Stamps: set, growing, and of the same clock as ours."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
import itertools
import math
from typing import Any

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from faster_vla_ros.compat.message_filters import SimpleFilter
from faster_vla_ros.conversions import stamp_from_seconds
from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.inputs import Input, streams
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Arrival, Heard, Snapshot
from faster_vla_ros.policy_parameters import PolicyNodeConfig
from faster_vla_ros.sensors.inputs import SYNC_QUEUE, synchronizer_of

WARN_AGE = 0.02
FAIL_AGE = 0.5
FAIL_FUTURE = 0.05
_SYNCHRONISE = 'synchronise the clocks of the computers (chrony, PTP)'


def check_stamps(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look at the stamps of every input whose stamps are used."""
    for each in expected.inputs:
        for part, heard in streams(each, snapshot.of(each.topic)):
            if not heard.arrivals:
                continue
            if not part.stamped:
                unused = info('stamps', part.subject, 'not used: the time of arrival is')
                yield (_stuck(part, heard) if part.measured else None) or unused
                continue
            yield _order(part, heard) or _age(part, heard, snapshot)


def check_sets(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Let the synchroniser of the policy node make sets of the images; one is enough."""
    policy = expected.policy
    if policy is None or policy['use_receive_time']:
        return
    pictures = [(i, snapshot.of(i.topic)) for i in expected.inputs if i.camera]
    if any(heard.silence(snapshot.end) > each.timeout for each, heard in pictures):
        return  # one that has stopped is told of as such
    cameras = {each.camera: heard.arrivals for each, heard in pictures}
    if min(map(len, cameras.values()), default=0) < SYNC_QUEUE or _make_set(cameras, policy):
        return
    reference = cameras[policy['reference_camera']]
    apart = {name: _nearest(own, reference) for name, own in cameras.items()}
    last = max(apart, key=apart.__getitem__)
    yield fail(
        'stamps',
        last,
        f'no set of images: {_seconds(apart[last])} from those of the reference camera at best',
        expected=f'all of a set within {_seconds(policy["sync_slop"])} (sync_slop)',
        advice=f'{_SYNCHRONISE}, look whether a driver was restarted, or raise sync_slop',
    )


def _make_set(cameras: Mapping[str, list[Arrival]], policy: PolicyNodeConfig) -> bool:
    """Return whether a synchroniser as the policy node's makes a set of what came."""
    sets: list[tuple[Any, ...]] = []
    filters = {name: SimpleFilter() for name in cameras}
    synchronizer = synchronizer_of(filters.values(), policy['sync_slop'])
    synchronizer.registerCallback(lambda *messages: sets.append(messages))
    arrivals = [(a.wall, a.sent_at, name) for name, own in cameras.items() for a in own]
    for _, stamp, name in sorted(arrivals):
        filters[name].signalMessage(Image(header=Header(stamp=stamp_from_seconds(stamp))))
    return bool(sets)


def _nearest(one: list[Arrival], other: list[Arrival]) -> float:
    """Return how near two stamps come while the synchroniser holds both (s); inf: never two."""
    queues = collections.deque(maxlen=SYNC_QUEUE), collections.deque(maxlen=SYNC_QUEUE)
    nearest = math.inf
    arrivals = [(a.wall, a.sent_at, k) for k, of in enumerate((one, other)) for a in of]
    for _, stamp, k in sorted(arrivals):
        queues[k].append(stamp)
        nearest = min(nearest, *(abs(stamp - s) for s in queues[1 - k]), math.inf)
    return nearest


def _stuck(each: Input, heard: Heard) -> Finding | None:
    """Return what the dispatcher has against stamps that never change; zeros are none."""
    stamps = {a.sent_at for a in heard.arrivals}
    if len(heard.arrivals) < 2 or len(stamps) > 1 or stamps == {0.0}:
        return None
    return fail(
        'stamps',
        each.subject,
        f'all {len(heard.arrivals)} messages have the same stamp',
        expected='stamps that change, or zeros: the same stamp again is the same message again',
        advice='correct the driver, or look whether it hangs; the dispatcher stops meanwhile',
    )


def _order(each: Input, heard: Heard) -> Finding | None:
    """Return what is wrong with the stamps among themselves."""
    stamps = [a.sent_at for a in heard.arrivals]
    total = len(stamps)
    if zeros := stamps.count(0.0):
        return fail(
            'stamps',
            each.subject,
            f'{zeros} of {total} stamps were never set',
            expected='the time of the measurement in every header',
            advice='correct the driver; if it cannot be, use_receive_time: true',
        )
    steps = [b - a for a, b in itertools.pairwise(stamps)]
    same, back = sum(s == 0 for s in steps), sum(s < 0 for s in steps)
    if not (same or back):
        return None
    # What does not grow is refused by the policy; the rest is enough unless it is a habit.
    judge = fail if same + back > total / 2 else warn
    return judge(
        'stamps',
        each.subject,
        f'of {total} stamps {same} repeat the one before and {back} run backwards',
        expected='stamps that grow; the others are refused',
        advice='look for a second publisher, or a driver that sends an old message again',
    )


def _age(each: Input, heard: Heard, snapshot: Snapshot) -> Finding:
    """Judge the smallest difference between arrival and stamp: clock offset plus latency."""
    ages = [_now(a, snapshot) - a.sent_at for a in heard.arrivals]
    known = [a for a in ages if math.isfinite(a)]
    if not known:
        return fail(
            'stamps',
            each.subject,
            'cannot be judged: no message on /clock yet',
            expected='simulated time, as use_sim_time says',
            advice='start what publishes /clock, or set use_sim_time: false',
        )
    age = min(known)
    if age < -FAIL_FUTURE:
        return fail(
            'stamps',
            each.subject,
            f'{_seconds(-age)} in the future',
            expected=f'at most {_seconds(FAIL_FUTURE)}',
            advice=_SYNCHRONISE,
        )
    if age > FAIL_AGE:
        return fail(
            'stamps',
            each.subject,
            f'{_seconds(age)} old at best',
            expected=f'at most {_seconds(FAIL_AGE)}',
            advice=_SYNCHRONISE + '; stamps must count seconds since 1970, or be simulated time '
            'with use_sim_time',
        )
    if age < -WARN_AGE:
        return warn(
            'stamps',
            each.subject,
            f'{_seconds(-age)} in the future: clocks are at least so far apart',
            expected=f'at most {_seconds(WARN_AGE)}',
            advice=_SYNCHRONISE,
        )
    # An image is exposed, read out and packed before it can be sent.
    allowed = WARN_AGE + (1 / heard.rate if each.camera and heard.rate else 0.0)
    if age > allowed:
        return warn(
            'stamps',
            each.subject,
            f'{_seconds(age)} old at best: clock offset or latency',
            expected=f'at most {_seconds(allowed)}',
            advice=_SYNCHRONISE + ', or look at the network',
        )
    return ok('stamps', each.subject, f'grow, {_seconds(age)} old at best')


def _now(arrival: Arrival, snapshot: Snapshot) -> float:
    return arrival.simulated if snapshot.sim_time else arrival.wall


def _seconds(value: float) -> str:
    return f'{value * 1000:.0f} ms' if abs(value) < 1 else f'{value:.4g} s'
