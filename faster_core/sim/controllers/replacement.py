"""How a new trajectory takes the place of the active one.

`in_order` is every distribution's way: joints by name, those left out hold. `joined` is Lyrical's
`blend_with_active_trajectory`: the old trajectory goes on until the new one begins, and joints
left out keep following the old one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faster_core.sim.controllers.trajectory import (
    Knot,
    nanoseconds,
    Point,
    State,
    Trajectory,
)

_FIELDS = ('positions', 'velocities', 'accelerations')


def in_order(columns: Sequence[int | None], point: Point, others: State) -> Knot:
    """Return a point of a message in the controller's joint order.

    Args:
        columns: per joint of the controller its column in the message; None: not in it.
        point: of the message.
        others: where joints that are not in the message are to be; a field of None means zero.
    """
    fields = {}
    for name in _FIELDS:
        values = getattr(point, name)
        if values is None or not len(values):
            fields[name] = None
            continue
        rest = getattr(others, name)
        rest = np.zeros(len(columns)) if rest is None else rest
        fields[name] = np.array(
            [rest[j] if c is None else values[c] for j, c in enumerate(columns)], dtype=float
        )
    return Knot(State(**fields), nanoseconds(point.time_from_start))


def joined(
    active: Trajectory,
    cursor: int,
    columns: Sequence[int | None],
    points: Sequence[Point],
    stamp: int,
    now: int,
) -> Trajectory:
    """Join a new trajectory to the one that is being carried out.

    Args:
        active: sampled at least once.
        cursor: time up to which `active` has been carried out, nanoseconds.
        columns: as in `in_order`.
        points: of the message.
        stamp: of the message, nanoseconds; not after `now`: the new one begins at the cursor.
        now: nanoseconds.
    """
    begin = cursor + (stamp - now) if stamp > now else cursor
    bridge = active.sample(begin, keep_index=False)
    held = active.knots[-1].state if bridge is None else bridge.state
    new = []
    for point in points:
        due = begin + nanoseconds(point.time_from_start)
        old = active.sample(due)
        knot = in_order(columns, point, State(held.positions) if old is None else old.state)
        new.append(Knot(knot.state, due))
    old_knots = [Knot(k.state.copy(), active.start + k.time) for k in active.knots]
    knots = [k for k in old_knots if cursor < k.time < begin]
    if bridge is not None and begin < new[0].time:
        knots.append(Knot(bridge.state.copy(), begin))
    knots += new
    if None in columns:
        there = np.array([c is not None for c in columns])
        for knot in old_knots:
            if knot.time > new[-1].time:
                knots.append(_with_stopped(knot, there, new[-1].state.positions))
    # From the cursor on, with a stamp of zero: the first sample is taken where the old one is.
    return Trajectory([Knot(k.state, k.time - cursor) for k in knots], 0)


def _with_stopped(knot: Knot, stopped: np.ndarray, position: np.ndarray) -> Knot:
    """Return a knot whose `stopped` joints [J] rest at `position` [J]."""
    state = knot.state
    state.positions[stopped] = position[stopped]
    for values in (state.velocities, state.accelerations):
        if values is not None:
            values[stopped] = 0.0
    return knot
