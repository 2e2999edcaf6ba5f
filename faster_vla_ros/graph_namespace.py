"""Namespaces of a graph: where its nodes are, and what becomes of a vendor's absolute names."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import re

from faster_core.errors import ConfigError
from faster_core.execution.config import robot_file_parameters
from faster_vla_ros.graph_parts import NAMESPACE, NodeSpec

_NAMESPACE = re.compile(r'/?([A-Za-z_][A-Za-z0-9_]*(?:/[A-Za-z_][A-Za-z0-9_]*)*)\Z')


def placed(spec: NodeSpec, namespace: str, absolute: Sequence[str]) -> NodeSpec:
    """Return a node with full ready topic, and with its names moved into a namespace."""
    remappings = spec.remappings
    if namespace:
        # A vendor's absolute names are of one robot: the second one needs others.
        moved = tuple((name, name.removeprefix('/')) for name in absolute)
        remappings = ((NAMESPACE, namespace), *remappings, *moved)
    ready = f'{namespace}/{spec.ready_topic}' if spec.ready_topic else ''
    return dataclasses.replace(spec, remappings=remappings, ready_topic=ready)


def absolute_names(file: pathlib.Path) -> tuple[str, ...]:
    """Return the absolute topics, actions and services of a robot file."""
    found: dict[str, None] = {}
    for node in ('policy_node', 'action_dispatcher', 'guard'):
        try:
            values = robot_file_parameters(file, node)
        except ConfigError:
            continue  # the node itself says what it misses
        for key, value in values.items():
            last = key.rpartition('.')[2]
            names = value if isinstance(value, list) else [value]
            if last.endswith(('topic', 'topics', 'action', 'service')):
                found |= dict.fromkeys(n for n in names if str(n).startswith('/'))
    return tuple(found)


def parsed_namespace(text: str) -> str:
    """Return a namespace with its slash; ConfigError if it is none."""
    if not text or text == '/':
        return ''
    match = _NAMESPACE.match(text)
    if match is None:
        raise ConfigError(
            f'namespace: expected letters, digits and _ between slashes, found {text!r}'
        )
    return f'/{match.group(1)}'
