"""Limits of the parameter file against those of the URDF and the measured positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from faster_core.embodiment import Component, Kind
from faster_core.errors import ConfigError, ObservationError
from faster_vla_ros.doctor.expected import DISPATCHER, Expected
from faster_vla_ros.doctor.report import fail, Finding, info, ok, warn
from faster_vla_ros.doctor.snapshot import Snapshot
from faster_vla_ros.doctor.values import read
from faster_vla_ros.draft import urdf
from faster_vla_ros.draft.urdf import Joint

# Parameter files round to three digits.
TOLERANCE = 1e-3
_FINGERS = ('finger', 'gripper', 'hand')
_OF_JOINTS = (Kind.JOINT_POSITION, Kind.JOINT_VELOCITY, Kind.GRIPPER_POSITION)


def check_limits(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Compare joints and limits of every component that has joints with the URDF."""
    text = expected.urdf or snapshot.robot_description
    if not text:
        yield info(
            'limits',
            'URDF',
            'none: joint names and limits are not compared',
            'give --urdf FILE, or start robot_state_publisher',
        )
        return
    try:
        joints = _motors(text)
    except ConfigError as e:
        yield fail(
            'limits', 'URDF', str(e), expected='a URDF', advice='look at the file (xacro done?)'
        )
        return
    for c in expected.embodiment.action:
        if c.kind in _OF_JOINTS:
            yield _against_urdf(c, joints, expected)


def _motors(text: str) -> dict[str, Joint]:
    """Return the joints of a URDF that move by themselves (ConfigError)."""
    return {name: j for name, j in urdf.parse(text).joints.items() if j.moves}


def _names(c: Component, expected: Expected) -> tuple[tuple[str, ...], bool]:
    """Return the joints of a component, and whether the parameter file names them."""
    raw = expected.raw[DISPATCHER]
    given = raw.get(f'{c.name}.joints') or raw.get(f'{c.name}.feedback.joints')
    return (tuple(given), True) if isinstance(given, list) else (c.names, False)


def _against_urdf(c: Component, joints: Mapping[str, Joint], expected: Expected) -> Finding:
    names, given = _names(c, expected)
    missing = [n for n in names if n not in joints]
    if missing and not given:
        return _against_guess(c, missing, joints, expected)
    if missing:
        return fail(
            'limits',
            c.name,
            f'the URDF has no {", ".join(missing)}',
            expected=f'some of {", ".join(joints) or "no joints at all"}',
            advice='correct the joints in the parameter file, or give the URDF of this robot',
        )
    if expected.dispatcher is None:
        return ok('limits', c.name, 'all joints are in the URDF; limits: see `parameters`')
    if wide := _wider(c, names, joints, expected):
        return fail(
            'limits',
            c.name,
            '; '.join(found for found, _ in wide),
            expected='within ' + '; '.join(allowed for _, allowed in wide),
            advice='narrow position_limits and max_velocity in the parameter file',
        )
    return ok('limits', c.name, 'within those of the URDF')


def _against_guess(
    c: Component, missing: Sequence[str], joints: Mapping[str, Joint], expected: Expected
) -> Finding:
    """Compare with the joints a component probably has: never more than a warning."""
    found = f'not compared: the URDF has no {", ".join(missing)}'
    names = _guess(c, joints)
    if names and expected.dispatcher is not None:
        wide = _wider(c, names, joints, expected)
        found = f'the URDF has no {", ".join(missing)}; if they are {", ".join(names)}: ' + (
            'wider than the URDF: ' + '; '.join(f'{a}, not {b}' for a, b in wide)
            if wide
            else 'within those of the URDF'
        )
    return warn(
        'limits',
        c.name,
        found,
        expected=f'{c.name}.joints with the names of the URDF',
        advice='see the proposal below',
    )


def _wider(
    c: Component, names: Sequence[str], joints: Mapping[str, Joint], expected: Expected
) -> list[tuple[str, str]]:
    """Return what the parameter file allows and the URDF does not, with what this one allows.

    Velocities have no range in the parameter file.
    """
    limits, wide = expected.dispatcher.rules.components[c.name], []
    for i, name in enumerate(names):
        joint = joints[name]
        lower, upper = limits.lower[i], limits.upper[i]
        beyond = lower < joint.lower - TOLERANCE or upper > joint.upper + TOLERANCE
        if c.kind.is_position and beyond:
            wide.append(
                (
                    f'{name} from {lower:.4g} to {upper:.4g}',
                    f'{name} from {joint.lower:.4g} to {joint.upper:.4g}',
                )
            )
        if limits.max_velocity[i] > joint.velocity + TOLERANCE:
            wide.append(
                (
                    f'{name} at {limits.max_velocity[i]:.4g} per second',
                    f'{name} at {joint.velocity:.4g} per second',
                )
            )
    return wide


def check_measured(expected: Expected, snapshot: Snapshot) -> Iterator[Finding]:
    """Look whether every measured position lies within the limits commands are held to."""
    if expected.dispatcher is None:
        return
    topics = {n: i.topic for i in expected.inputs for n in i.sources}
    for name, source in expected.dispatcher.sources.items():
        limits = expected.dispatcher.rules.components[name]
        try:
            values = read(source, snapshot.of(topics[f'{name} feedback']))
        except ObservationError:
            continue  # `check_values` says why
        outside = (values < limits.lower - TOLERANCE) | (values > limits.upper + TOLERANCE)
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            yield warn(
                'measured',
                name,
                f'{source.component.names[i]} is at {values[i]:.4g}',
                expected=f'{limits.lower[i]:.4g} to {limits.upper[i]:.4g}: beyond, motion starts '
                'with a way back into the limits or is rejected',
                advice='move the joint by hand, or look at position_limits, scale and offset',
            )
        else:
            yield ok('measured', name, 'within position_limits')


def proposal(expected: Expected, snapshot: Snapshot) -> list[str]:
    """Return lines for the parameter file: what it leaves out and the URDF knows.

    Limits are the robot's own: the largest values that can be right, not those to begin with.
    """
    try:
        joints = _motors(expected.urdf or snapshot.robot_description)
    except ConfigError:
        return []
    lines = []
    for c in expected.embodiment.action:
        lines += _proposed(c, joints, expected)
    return lines


def _proposed(c: Component, joints: Mapping[str, Joint], expected: Expected) -> list[str]:
    raw, lines = expected.raw[DISPATCHER], []
    if c.kind not in _OF_JOINTS:
        if c.kind is Kind.TWIST and not raw.get(f'{c.name}.axes'):
            lines.append(f'{c.name}.axes: [{_quoted(c.names)}]')
        if not raw.get(f'{c.name}.max_velocity'):
            lines.append(f'# {c.name}.max_velocity: not in a URDF; see the data sheet of the base')
        return lines
    names, _ = _names(c, expected)
    if any(n not in joints for n in names):
        names = _guess(c, joints)
        if not names:
            return [f'# {c.name}.joints: {c.size} of {", ".join(joints)}']
        lines.append(f'{c.name}.joints: [{_quoted(names)}]')
    chosen = [joints[n] for n in names]
    ranges = [v for j in chosen for v in (j.lower, j.upper)]
    if c.kind.is_position and not raw.get(f'{c.name}.position_limits'):
        if np.isfinite(ranges).all():
            lines.append(f'{c.name}.position_limits: [{_numbers(ranges)}]')
    speeds = [j.velocity for j in chosen]
    if not raw.get(f'{c.name}.max_velocity') and np.isfinite(speeds).all():
        lines.append(f'{c.name}.max_velocity: [{_numbers(speeds)}]')
    return lines


def _guess(c: Component, joints: Mapping[str, Joint]) -> tuple[str, ...]:
    """Return the joints that best fit a component's name, if they are as many as it has."""
    gripper = c.kind is Kind.GRIPPER_POSITION
    fitting = [n for n in joints if any(w in n.lower() for w in _FINGERS) == gripper]
    words = c.name.split('_')
    for wanted in (words, words[:1], []):
        found = tuple(n for n in fitting if all(w in n.lower() for w in wanted))
        if len(found) == c.size:
            return found
    return ()


def _quoted(names: Sequence[str]) -> str:
    return ', '.join(f'"{n}"' for n in names)


def _numbers(values: Sequence[Any]) -> str:
    # Towards zero, so that rounding never widens a limit.
    return ', '.join(f'{np.trunc(v * 1e4) / 1e4 + 0.0:.4f}' for v in values)
