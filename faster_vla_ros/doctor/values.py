"""Joint values that come in: names, order, length, and whether the policy has seen such states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from faster_core.embodiment import Component
from faster_core.errors import ObservationError
from faster_vla_ros.doctor.checkpoint import REFUSED_ABS
from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Heard, Snapshot
from faster_vla_ros.sensors.joint_states import OtherJointsError
from faster_vla_ros.sensors.state import StateSource

WARN_HALF_RANGES = 1.5
# The same numbers, but for rounding.
_SAME = 1e-6


def read(source: StateSource, heard: Heard) -> np.ndarray:
    """Return the newest values [d] of a component (SI).

    Raises:
        ObservationError: no message can be used; says why.
    """
    problem: ObservationError | None = None
    for message in heard.messages.values():
        try:
            return source.parse(message)
        except ObservationError as e:
            # What another publisher sends about other joints explains nothing if there is more.
            if problem is None or not isinstance(e, OtherJointsError):
                problem = e
    raise problem or ObservationError('no message')


def check_values(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Read every component as policy node and dispatcher do, and compare the order of names."""
    for each in expected.inputs:
        heard = snapshot.of(each.topic)
        if each.camera or not heard.messages:
            continue
        told = set()
        for name, source in each.sources.items():
            finding = _values(name, source, heard)
            component = source.component.name
            # Policy and dispatcher mostly read the same: one row says it.
            if (component, finding.verdict, finding.found) not in told:
                yield finding
            told.add((component, finding.verdict, finding.found))


def _values(name: str, source: StateSource, heard: Heard) -> Finding:
    try:
        values = read(source, heard)
    except ObservationError as e:
        found = '; '.join(', '.join(names) for names in heard.messages if names)
        return fail(
            'values',
            name,
            str(e) + (f'; the messages name {found}' if found else ''),
            expected=_wanted(source),
            advice='correct `joints`, `mapping`, `size` or `field` in the parameter file',
        )
    if wrong := _order_of_names(source, heard):
        return fail(
            'values',
            name,
            f'by_index, but the messages name {", ".join(wrong)}',
            expected=', '.join(source.component.names),
            advice='use mapping: by_name',
        )
    return ok('values', name, _listed(values))


def _wanted(source: StateSource) -> str:
    config = source.config
    if config.joints and config.mapping == 'by_name':
        return f'{config.field} of {", ".join(config.joints)}'
    if config.size:
        return f'{" or ".join(map(str, config.size))} values of {config.field}'
    return f'finite values of {", ".join(source.component.names)}'


def _order_of_names(source: StateSource, heard: Heard) -> tuple[str, ...]:
    """Return names in a message that contradict an order taken by index; empty if none do.

    Placeholders prove nothing, names of the embodiment in another order do.
    """
    wanted = source.component.names
    for names in heard.messages:
        in_message = tuple(n for n in names if n in wanted)
        by_index = source.config.mapping == 'by_index' and source.config.size
        if by_index and set(in_message) == set(wanted) and names[: len(wanted)] != wanted:
            return names
    return ()


def check_order(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare names and order of joints in embodiment, policy part and dispatcher part."""
    del snapshot
    if expected.dispatcher is None:
        return
    for c in expected.dispatcher.embodiment.action:
        if c.kind.is_position:
            yield from _order(c, expected)


def _order(c: Component, expected: Expected) -> Iterator[Finding]:
    lists: dict[str, Sequence[str]] = {'embodiment': c.names}
    if c.name in expected.sources:
        lists[f'{c.name}.joints of policy_node'] = expected.sources[c.name].config.joints
    lists[f'{c.name}.feedback.joints'] = expected.dispatcher.sources[c.name].config.joints
    output = expected.dispatcher.outputs.get(c.name)
    lists[f'{c.name}.joints of action_dispatcher'] = output[1].joints if output else ()
    given = {where: tuple(names) for where, names in lists.items() if names}
    if len(given) < 2:
        yield info('order', c.name, 'only the embodiment names the joints: taken by index')
        return
    fine = True
    (first, names), *rest = given.items()
    # Names of the embodiment may be the model's own; those that the robot knows must agree.
    for i, (where, found) in enumerate(rest):
        against = [(first, names), *rest[:i]]
        for other, reference in against:
            if set(found) == set(reference) and found != reference:
                fine = False
                yield fail(
                    'order',
                    c.name,
                    f'{where}: {", ".join(found)}',
                    expected=f'the order of {other}: {", ".join(reference)}',
                    advice='put the joints into one order everywhere',
                )
            elif other != 'embodiment' and set(found) != set(reference):
                fine = False
                yield warn(
                    'order',
                    c.name,
                    f'{where}: {", ".join(found)}',
                    expected=f'the joints of {other}: {", ".join(reference)}',
                    advice='what is measured and what is commanded should be the same joints',
                )
    if fine:
        yield ok('order', c.name, ', '.join(rest[0][1]))


def check_agreement(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare what policy and dispatcher read of a component: units and signs are given twice."""
    if expected.dispatcher is None:
        return
    topics = {n: i.topic for i in expected.inputs for n in i.sources}
    for name, feedback in expected.dispatcher.sources.items():
        source = expected.sources.get(name)
        if source is None or source.component.kind is not feedback.component.kind:
            continue
        topic, other = topics[name], topics[f'{name} feedback']
        try:
            seen = read(source, snapshot.of(topic))
            measured = read(feedback, snapshot.of(other))
        except ObservationError:
            continue  # `check_values` says why
        # Two topics are heard at two times.
        allowed = expected.dispatcher.rules.components[name].max_start_offset
        allowed = _SAME if topic == other else allowed
        if len(seen) != len(measured) or np.abs(seen - measured).max() > allowed:
            yield fail(
                'agreement',
                name,
                f'the policy reads {_listed(seen)}, the dispatcher {_listed(measured)}',
                expected='the same',
                advice='give both parts of the parameter file the same scale, offset and joints',
            )


def check_statistics(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the state with what the checkpoint was trained on."""
    statistics = expected.checkpoint.statistics
    if statistics is None:
        yield info('statistics', 'state', 'not compared: no checkpoint, or a remote one')
        return
    topics = {n: i.topic for i in expected.inputs for n in i.sources}
    for name, columns in expected.embodiment.state_slices.items():
        if name not in expected.sources:
            continue
        try:
            values = read(expected.sources[name], snapshot.of(topics[name]))
        except ObservationError:
            continue  # `check_values` says why
        centre, half = statistics.centre[columns], statistics.half_range[columns]
        yield _distance(expected.sources[name].component, values, centre, half)


def _distance(c: Component, values: Any, centre: Any, half: Any) -> Finding:
    distances = np.abs(values - centre) / half
    i = int(np.argmax(distances))
    found = f'{c.names[i]} is {values[i]:.4g}, {distances[i]:.1f} half ranges from the centre'
    wanted = f'{centre[i] - half[i]:.4g} to {centre[i] + half[i]:.4g}, as in the data'
    if distances[i] >= REFUSED_ABS:
        return fail(
            'statistics',
            c.name,
            found,
            expected=f'{wanted}; the policy refuses {REFUSED_ABS:g} half ranges',
            advice='look at units (`scale`), at the order of joints and at the sensor',
        )
    if distances[i] > WARN_HALF_RANGES:
        return warn(
            'statistics',
            c.name,
            found,
            expected=wanted,
            advice='move the robot to where the data begin; look at scale and zero of the joint',
        )
    return ok('statistics', c.name, f'at most {distances[i]:.1f} half ranges from the centre')


def _listed(values: np.ndarray) -> str:
    return ', '.join(f'{v:.3f}' for v in values)
