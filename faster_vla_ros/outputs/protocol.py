"""What every output is: it turns the values of one component into one message."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar, Protocol

from builtin_interfaces.msg import Time
import numpy as np

from faster_core.embodiment import Component
from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """How a component goes out.

    Attributes:
        topic: of the messages.
        joints: names written into messages that carry names; empty: those of the embodiment.
        axes: axes of a twist, in the order of the component; empty: those of the embodiment.
        frame_id: frame of Cartesian values.
        scale, offset: value on the wire = SI value * scale + offset.
    """

    topic: str
    joints: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    frame_id: str = 'base_link'
    scale: float = 1.0
    offset: float = 0.0


class Output(Protocol):
    """One way onto the wire. It only encodes; `Wire` publishes when everything is encoded.

    Attributes:
        KEYS: parameters of a component (beside `topic`) that this output reads.
        message_type: of the topic.
    """

    KEYS: ClassVar[tuple[str, ...]]
    message_type: ClassVar[type]

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Check that the output fits the component (ConfigError)."""

    def message(self, values: np.ndarray, stamp: Time) -> Any:
        """Return the message for values [d] in SI units."""


def joint_names(component: Component, config: OutputConfig) -> list[str]:
    """Return the names to send, one per dimension; ConfigError if their number differs."""
    joints = config.joints or component.names
    if len(joints) != component.size:
        raise ConfigError(
            f'{component.name}.joints: expected {component.size} names, found {list(joints)}'
        )
    return list(joints)


def on_wire(values: np.ndarray, config: OutputConfig) -> list[float]:
    """Return values [d] in the unit of the wire."""
    return (np.asarray(values, dtype=float) * config.scale + config.offset).tolist()


def refuse_kind(component: Component, output: str, allowed: Sequence[Any]) -> None:
    """Refuse a component whose kind an output cannot express (ConfigError)."""
    if component.kind not in allowed:
        kinds = ' or '.join(k.name.lower() for k in allowed)
        raise ConfigError(
            f'{component.name}.output: {output} takes {kinds}, the component is '
            f'{component.kind.name.lower()}'
        )
