"""What every output is: it turns what one component is to do into one message or goal."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar, Protocol

from builtin_interfaces.msg import Time
import numpy as np

from faster_core.embodiment import Component
from faster_core.errors import ConfigError
from faster_core.execution.spline import Trajectory

# What an output is given: the set-point of every tick; where to go, without the way there; or a
# `Trajectory`, whenever there is a new one.
SET_POINT, GOAL, TRAJECTORY = 'set_point', 'goal', 'trajectory'


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """How a component goes out.

    Attributes:
        topic: of the messages.
        action: name of the action, for outputs that are one.
        joints: names written into messages that carry names; empty: those of the embodiment.
        axes: axes of a twist, in the order of the component; empty: those of the embodiment.
        frame_id: frame of Cartesian values.
        scale, offset: value on the wire = SI value * scale + offset.
        deadband: a goal that differs by no more from the last one is not sent (SI).
        max_effort: of a gripper, N or N m; 0: what its controller thinks right.
    """

    topic: str = ''
    action: str = ''
    joints: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    frame_id: str = 'base_link'
    scale: float = 1.0
    offset: float = 0.0
    deadband: float = 0.0
    max_effort: float = 0.0


class Output(Protocol):
    """One way onto the wire. It only encodes; `Wire` sends when everything is encoded.

    Attributes:
        KEYS: parameters of a component that this output reads, beside `topic` or `action`.
        TAKES: SET_POINT, GOAL or TRAJECTORY.
        message_type: of the topic; an action has `action_type` instead.
    """

    KEYS: ClassVar[tuple[str, ...]]
    TAKES: ClassVar[str]
    message_type: ClassVar[type]

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Check that the output fits the component (ConfigError)."""

    def message(self, value: Any, stamp: Time) -> Any:
        """Return the message for values [d] in SI units, or for a `Trajectory`."""


class TrajectoryOutput(Output, Protocol):
    """An output that takes a `Trajectory`, whose times count from when it is received."""

    def leave(self, message: Any, value: Trajectory, seconds: float) -> None:
        """Have the message of a trajectory say what is left of it so many seconds later."""


class ActionOutput(Protocol):
    """An output that is the goal of an action; `control_msgs` is imported when it is created.

    Attributes:
        ONE_AT_A_TIME: the next goal waits for the end of the one before; else it replaces it.
        FAILURE_STOPS: a goal that was rejected or aborted is a reason to stop.
    """

    KEYS: ClassVar[tuple[str, ...]]
    TAKES: ClassVar[str]
    ONE_AT_A_TIME: ClassVar[bool]
    FAILURE_STOPS: ClassVar[bool]
    action_type: Any

    def __init__(self, component: Component, config: OutputConfig) -> None:
        """Check that the output fits the component (ConfigError)."""

    def message(self, value: Any, stamp: Time) -> Any:
        """Return the goal for values [d] in SI units, or for a `Trajectory`."""


def is_action(output: Any) -> bool:
    """Whether an output (or its class) is an action."""
    return hasattr(output, 'ONE_AT_A_TIME')


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


def control_action(name: str) -> Any:
    """Return an action type of `control_msgs`.

    Raises:
        ConfigError: the package or the type is missing: it is part of ROS, not of PyPI.
    """
    try:
        import control_msgs.action
    except ImportError as e:
        raise ConfigError(
            f'no control_msgs: install ros-<distro>-control-msgs (it is not on PyPI) for {name}, '
            'or choose an output that is a topic'
        ) from e
    try:
        return getattr(control_msgs.action, name)
    except AttributeError as e:
        raise ConfigError(
            f'this control_msgs has no {name}: expected one of ROS 2 '
            f'{"Jazzy" if name == "ParallelGripperCommand" else "Humble"} or later'
        ) from e
