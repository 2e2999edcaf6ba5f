"""The guard of a robot file: is there one, and does it watch what drives the robot?"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from faster_core.errors import ConfigError
from faster_core.execution.config import DispatcherConfig, robot_file_parameters

# Outputs that are speeds for sure: an array may hold positions, and zero is a place then.
DRIVING = ('twist_stamped', 'twist')
# Outputs a guard can listen for; its types have the same names.
KINDS = (*DRIVING, 'float64_array')
DEFAULT_TYPE = 'twist_stamped'
DEFAULT_TIMEOUT = 0.15  # s without a command
# Periods of the dispatcher that a time-out has to last: it must not see a gap where there is none.
LEAST_PERIODS = 3


def guard_part(file: pathlib.Path) -> dict[str, Any] | None:
    """Return the guard's parameters in a robot file; None if it says nothing of a guard."""
    return _part(file, 'guard')


def completed(file: pathlib.Path) -> dict[str, list[str]]:
    """Return what a robot file leaves out of its guard's `topics` and `types`.

    Both follow from the outputs of the dispatcher: a guard that listens for another type of
    message, or on another topic, hears nothing and looks like one that works.

    Raises:
        ConfigError: topics, types or time-out contradict the dispatcher's.
    """
    guard = guard_part(file) or {}
    dispatcher = _part(file, 'action_dispatcher') or {}
    _check_timeout(file, guard, dispatcher)
    outputs = _outputs(dispatcher)
    driven = [topic for topic, kind in outputs.items() if kind in DRIVING]
    sent = {_plain(topic): kind for topic, kind in outputs.items()}
    if not all(isinstance(guard.get(name, []), list) for name in ('topics', 'types')):
        return {}  # the guard itself says what it expects
    topics = guard.get('topics', driven)
    wanted = [sent.get(_plain(t)) for t in topics]
    types = guard.get('types', [k if k in DRIVING else DEFAULT_TYPE for k in wanted])
    for topic, kind in zip(topics, types, strict=False):
        if sent.get(_plain(topic), kind) != kind:
            raise ConfigError(
                f'{file}: guard.types: {topic} is {kind}, and the dispatcher sends '
                f'{sent[_plain(topic)]} there: the guard would hear nothing'
            )
    if unwatched := sorted({_plain(t) for t in driven} - {_plain(t) for t in topics}):
        raise ConfigError(
            f'{file}: guard.topics: expected every topic the base is driven by, and '
            f'{", ".join(unwatched)} is missing'
        )
    # A list without elements has no type: the guard itself asks for its topics.
    complete = {'topics': list(topics), 'types': list(types)} if topics else {}
    return {name: value for name, value in complete.items() if name not in guard}


def _check_timeout(
    file: pathlib.Path, guard: Mapping[str, Any], dispatcher: Mapping[str, Any]
) -> None:
    timeout = guard.get('timeout', DEFAULT_TIMEOUT)
    rate = dispatcher.get('dispatch_rate', DispatcherConfig.dispatch_rate)
    # What is no number the nodes themselves refuse.
    if (
        all(isinstance(v, (int, float)) for v in (timeout, rate))
        and 0 < timeout * rate < LEAST_PERIODS
    ):
        raise ConfigError(
            f'{file}: guard.timeout: expected at least {LEAST_PERIODS / rate:g} s, '
            f'{LEAST_PERIODS} periods of dispatch_rate {rate:g} Hz, found {timeout:g}: zeros '
            'would come between commands'
        )


def _part(file: pathlib.Path, node: str) -> dict[str, Any] | None:
    try:
        return robot_file_parameters(file, node)
    except ConfigError:
        return None  # the node itself says what it misses


def _outputs(dispatcher: Mapping[str, Any]) -> dict[str, str]:
    """Return topic -> type of what the dispatcher sends and a guard can listen for."""
    found, names = {}, dispatcher.get('components')
    # What is no list of names, or no topic, the dispatcher itself refuses.
    for name in names if isinstance(names, list) else ():
        kind, topic = dispatcher.get(f'{name}.output'), dispatcher.get(f'{name}.topic')
        if kind in KINDS and topic and isinstance(topic, str):
            found[topic] = kind
    return found


def _plain(topic: str) -> str:
    """Return a topic without its slash: in the root, `/cmd_vel` and `cmd_vel` are one."""
    return str(topic).removeprefix('/')
