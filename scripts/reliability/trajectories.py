"""What a trajectory asks a controller to do, and from when on it only brakes.

The controller goes on from what it commanded last (`interpolate_from_desired_state`), follows
cubic Hermite splines between points and holds the last one. When a trajectory arrived and how fast
the controller was then is known within `DOUBT`: between the dispatcher's reading of the clock and
DDS.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from scripts.reliability.observer import BULGE, cubic, doubts, Limits, SAMPLES, spline
from scripts.reliability.safety import REST

DOUBT = 0.008

# Of speeds in 64 bits (rad/s, m/s).
ROUNDING = 1e-9

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Replacement:
    """A trajectory that replaced the one before.

    Attributes:
        sent_ns: DDS source timestamp, from which its times count.
        received_ns: when the observer's DDS had it; of a safe one, when it was safe.
        points: times [K] (s), positions [K, d], velocities [K, d].
        start: position and velocity [d] that were commanded when it was sent.
    """

    sent_ns: int
    received_ns: int
    points: Points
    start: tuple[np.ndarray, np.ndarray]


class Reference:
    """What a controller commands of one component, at times of the wall clock (ns)."""

    def __init__(self, place: np.ndarray, speed: np.ndarray | None = None) -> None:
        """Be at a place [d], at rest if no speed [d] is given; that lasts until it follows."""
        self._begin_ns, self._knots = 0, np.zeros(1)
        self._places = place[None]
        self._speeds = (np.zeros_like(place) if speed is None else speed)[None]

    def at(self, ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return position and velocity [d]."""
        t = (ns - self._begin_ns) * 1e-9
        if t >= self._knots[-1]:
            return self._places[-1], self._speeds[-1]
        i = max(int(np.searchsorted(self._knots, t, 'right')) - 1, 0)
        h = self._knots[i + 1] - self._knots[i]
        s = min(max((t - self._knots[i]) / h, 0.0), 1.0)
        places, speeds = self._places[i : i + 2], self._speeds[i : i + 2]
        place, speed, _ = cubic(s, h, *places, *speeds)
        return place, speed

    def follow(self, ns: int, points: Points) -> None:
        """Follow a trajectory from a moment on."""
        (place, speed), (times, positions, velocities) = self.at(ns), points
        self._begin_ns, self._knots = ns, np.concatenate([[0.0], times])
        self._places = np.concatenate([place[None], positions])
        self._speeds = np.concatenate([speed[None], velocities])


def brakes_from(sent: Replacement, limits: Limits, doubt: float = DOUBT) -> float:
    """Return the seconds from its beginning after which a trajectory only brakes, to rest.

    0: as a whole; infinite: it does not end at rest.
    """
    times, positions, velocities = sent.points
    if velocities[-1].any():
        return np.inf
    start = sent.start
    knots = np.concatenate([[0.0], times])
    _, speed, change = spline(
        knots,
        np.concatenate([start[0][None], positions]),
        np.concatenate([start[1][None], velocities]),
    )
    faster, harder = doubts(start[1], limits.acceleration, knots[1], doubt, len(speed))
    # Once where two segments meet; on the way to the first point within what is not known of it.
    keep = np.ones(len(speed), bool)
    keep[SAMPLES::SAMPLES] = False
    speed, room = speed[keep], REST + faster[keep]
    hard = (np.abs(change) > limits.acceleration * (1 + BULGE) + harder)[keep]
    before, after = np.abs(speed[:-1]), np.abs(speed[1:])
    same = np.sign(speed[1:]) == np.sign(speed[:-1])
    lead = np.arange(len(after))[:, None] < SAMPLES - 1
    slower = np.where(lead, after <= before + room[1:], after < before - ROUNDING)
    slower = (after <= room[1:]) | (same & slower)
    # As a whole that way has to brake, too.
    slower[: SAMPLES - 1] &= (after[SAMPLES - 2] < before[0]) | (after[SAMPLES - 2] <= REST)
    fine = (slower & ~hard[:-1] & ~hard[1:]).all(axis=1)
    if fine.all():
        return 0.0
    at = np.linspace(knots[:-1], knots[1:], SAMPLES, axis=1).ravel()[keep]
    return float(at[np.flatnonzero(~fine)[-1] + 1])


def first_safe(
    sent: Sequence[Replacement], limits: Limits, trigger_ns: int, doubt: float = DOUBT
) -> Replacement | None:
    """Return the trajectory from which on a component only brakes to rest.

    Its `received_ns` is when: on arrival, if it brakes as a whole, else as late as it begins to.
    None if nothing was sent, or if what was sent last does not end at rest. `doubt`: how well it
    is known where the controller was (s).
    """
    found = None
    for command in reversed(sent):
        begins = brakes_from(command, limits, doubt)
        if begins > 0.0:
            at = command.received_ns + begins * 1e9
            if found is not None and at >= found.received_ns:
                return found  # it was replaced before it braked
            if np.isinf(begins):
                return found
            return dataclasses.replace(command, received_ns=round(at))
        found = command
        if command.sent_ns < trigger_ns:
            break
    return found
