"""When a robot's commands were safe after something happened, judged from outside.

Exactly: a command is safe if on every axis it and all commands after it brake, and the last one
is rest. Where no command follows, the last one before is, if it was rest. Brake means, for a
velocity: zero, or the same sign and strictly nearer to zero than the command before, by no more
than the acceleration limit allows in the time between the two. For a position: the same of its
differences per time, so it ends in one that is held. Commands go by the times at which they were
sent (DDS source timestamps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import itertools

import numpy as np

from scripts.reliability.observer import LATE, Limits

# Speeds below this (rad/s, m/s) are rest: rounding of positions in 64 bits, of times in 1 ns.
REST = 1e-6
# Rounding of stamps and of the dispatcher's times, as a share of what limits allow.
SLACK = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """What was commanded of one component.

    Attributes:
        sent_ns: DDS source timestamp.
        received_ns: when the observer's DDS had it.
        stamp: of the message's header (s of the robot's clock).
        values: [d] SI.
    """

    sent_ns: int
    received_ns: int
    stamp: float
    values: np.ndarray


def first_safe(
    commands: Sequence[Command], limits: Limits, trigger_ns: int, period: float
) -> Command | None:
    """Return the first safe command sent at or after the trigger; None if there is none.

    If nothing was sent any more, it is the last one before, given that it was rest: joints that
    are held fall silent when the dispatcher stops.

    Args:
        commands: of one component, sent one after the other, also some before the trigger.
        limits: of the component.
        trigger_ns: when it had reason to become safe.
        period: nominal seconds between commands.
    """
    dts = [_seconds(a, b, period) for a, b in itertools.pairwise(commands)]
    speeds = _speeds(commands, dts, limits)
    found = None
    for i in reversed(range(1, len(commands))):
        at_rest = bool((np.abs(speeds[i]) <= REST).all())
        if commands[i].sent_ns < trigger_ns:
            if at_rest and i == len(commands) - 1:
                found = commands[i]
            break
        if found is None and not at_rest:
            return None
        before = speeds[i - 1] if i > 1 or not limits.position else speeds[i]
        if not _brakes(before, speeds[i], limits, dts[i - 1]):
            break
        found = commands[i]
    return found


def all_safe(
    commands: Mapping[str, Sequence[Command]],
    limits: Mapping[str, Limits],
    trigger_ns: int,
    period: float,
) -> dict[str, Command | None]:
    """Return `first_safe` of every component."""
    return {
        name: first_safe(commands[name], limits[name], trigger_ns, period) for name in commands
    }


def _seconds(a: Command, b: Command, period: float) -> float:
    """Return the time between two commands, on the sender's clock unless that jumped."""
    dt = b.stamp - a.stamp
    if 0.0 < dt <= LATE * period:
        return dt
    return max((b.sent_ns - a.sent_ns) * 1e-9, period)


def _speeds(commands: Sequence[Command], dts: Sequence[float], limits: Limits) -> list[np.ndarray]:
    if not limits.position:
        return [c.values for c in commands]
    steps = [
        (b.values - a.values) / dt for a, b, dt in zip(commands, commands[1:], dts, strict=False)
    ]
    return [np.zeros_like(c.values) for c in commands[:1]] + steps


def _brakes(before: np.ndarray, after: np.ndarray, limits: Limits, dt: float) -> bool:
    slower = (np.abs(after) <= REST) | (
        (np.sign(after) == np.sign(before)) & (np.abs(after) < np.abs(before))
    )
    gently = np.abs(after - before) <= limits.acceleration * dt * (1 + SLACK) + REST
    return bool((slower & gently).all())
