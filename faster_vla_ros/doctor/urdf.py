"""The joints of a URDF with their limits."""

from __future__ import annotations

import dataclasses
import math
from xml.etree import ElementTree

from faster_core.errors import ConfigError

_MOVABLE = ('revolute', 'continuous', 'prismatic')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """A joint that moves by itself; rad or m, and per second; infinite where there is no limit."""

    name: str
    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf


def joints(text: str) -> dict[str, Joint]:
    """Return the movable joints of a URDF in its order; those that mimic another are left out.

    Raises:
        ConfigError: not XML, not a robot, or a limit that is no number.
    """
    try:
        # The parser (expat) refuses entities that expand without bound.
        root = ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as e:
        raise ConfigError(f'URDF: {e}') from e
    if root.tag != 'robot':
        raise ConfigError(f'URDF: expected <robot>, found <{root.tag}>')
    found = {}
    for element in root.findall('joint'):
        if element.get('type') in _MOVABLE and element.find('mimic') is None:
            joint = _joint(element)
            found[joint.name] = joint
    return found


def _joint(element: ElementTree.Element) -> Joint:
    name, limit = element.get('name', ''), element.find('limit')
    if limit is None:
        return Joint(name=name)
    # The standard says 0 for what is left out; exporters write 0 for what they do not know.
    lower, upper, velocity = (_number(name, limit, k) for k in ('lower', 'upper', 'velocity'))
    ranged = element.get('type') != 'continuous' and lower < upper
    return Joint(
        name=name,
        lower=lower if ranged else -math.inf,
        upper=upper if ranged else math.inf,
        velocity=velocity if velocity > 0 else math.inf,
    )


def _number(joint: str, limit: ElementTree.Element, key: str) -> float:
    text = limit.get(key, '0')
    try:
        return float(text)
    except ValueError as e:
        raise ConfigError(
            f'URDF: {key} of joint {joint}: expected a number, found {text!r}'
        ) from e
