"""A model of joint_trajectory_controller with a position interface, in three flavours.

What differs between them, and matters to a sender of many short trajectories:

- humble: a new trajectory is approached from (now, last command), so that the last command is
  repeated for one cycle; a last velocity other than zero is accepted.
- jazzy: from (time of the last cycle, last command), although that command was meant for one
  period later, and every command is the one due a period from now; a last velocity must be zero.
- lyrical: as jazzy, but a trajectory that arrives while another one is carried out is joined to it
  (`allow_trajectory_replacement`, on by default), at the time of the last cycle: the last command
  is repeated for one cycle, and velocities do not jump.

Without `from_desired` the motion starts at the measured state instead of the last command. Not
modelled: `interpolation_method: none`, integration of velocity-only goals, tolerances, speed
scaling, joints that wrap around.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faster_core.errors import ConfigError
from faster_core.sim.controllers.acceptance import reason_to_reject, Rules
from faster_core.sim.controllers.replacement import in_order, joined
from faster_core.sim.controllers.trajectory import (
    Knot,
    NANO,
    nanoseconds,
    Point,
    State,
    Trajectory,
)

FLAVOURS = ('humble', 'jazzy', 'lyrical')


class JointTrajectoryController:
    """Takes trajectories, gives a position set-point per control cycle."""

    def __init__(
        self,
        joints: Sequence[str],
        flavour: str,
        position: Sequence[float],
        *,
        period: float = 0.005,
        from_desired: bool = True,
        cmd_timeout: float = 0.0,
        allow_partial_joints_goal: bool = False,
        allow_nonzero_velocity_at_trajectory_end: bool | None = None,
        allow_trajectory_replacement: bool = True,
    ) -> None:
        """Activate the controller, which holds `position`.

        Args:
            joints: names, in the order of every array here.
            flavour: 'humble', 'jazzy' or 'lyrical'.
            position: [J] rad or m, measured at activation.
            period: of the control cycle, seconds; only `jazzy` and later look ahead by it.
            from_desired: `open_loop_control` (humble), `interpolate_from_desired_state` (later).
            cmd_timeout: seconds after the last point until the measured position is held; 0: off.
            allow_partial_joints_goal: accept trajectories for some of the joints.
            allow_nonzero_velocity_at_trajectory_end: None is the distribution's default (humble:
                true).
            allow_trajectory_replacement: lyrical only.

        Raises:
            ConfigError: an unknown flavour, or joints and position that do not fit together.
        """
        if flavour not in FLAVOURS:
            raise ConfigError(f'flavour: expected one of {", ".join(FLAVOURS)}, found {flavour!r}')
        if len(set(joints)) != len(joints) or len(position) != len(joints):
            raise ConfigError(
                f'expected one position per distinct joint, found {list(joints)} and '
                f'{len(position)} positions'
            )
        humble = flavour == 'humble'
        self.joints, self.flavour = tuple(joints), flavour
        self._rules = Rules(
            joints=self.joints,
            allow_partial_joints_goal=allow_partial_joints_goal,
            allow_nonzero_velocity_at_trajectory_end=(
                humble
                if allow_nonzero_velocity_at_trajectory_end is None
                else allow_nonzero_velocity_at_trajectory_end
            ),
            stamp_before_names=humble,
        )
        self._look_ahead = 0 if humble else nanoseconds(period)
        self._from_desired = from_desired
        self._cmd_timeout = cmd_timeout
        self._replaces = flavour == 'lyrical' and allow_trajectory_replacement
        self._command = _at_rest(position)
        self._commanded_at: int | None = None
        self._cycle_at: int | None = None
        self._cursor = 0
        self._pending: tuple[list[str], list[Point], int] | None = None
        self._hold(self._command.positions)

    @property
    def holding(self) -> bool:
        """Whether the controller holds a position by its own decision (start, time-out)."""
        return self._holding

    def accept(
        self, names: Sequence[str], points: Sequence[Point], stamp: float, now: float
    ) -> str:
        """Take a trajectory, to be carried out from the next cycle on.

        Args:
            names: `joint_names`.
            points: `points`, fields in the order of `names`.
            stamp: `header.stamp`, seconds; 0: at the next cycle.
            now: seconds.

        Returns:
            '' if it was accepted, else the reason; a rejected one changes nothing.
        """
        reason = reason_to_reject(names, points, stamp, now, self._rules)
        if not reason:
            self._pending = (list(names), list(points), nanoseconds(stamp))
        return reason

    def update(
        self, now: float, measured: tuple[Sequence[float], Sequence[float]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run one control cycle.

        Args:
            now: seconds, not before the last cycle's.
            measured: positions [J] and velocities [J]; None: the joints rest where they were
                told to be.

        Returns:
            The set-point: positions [J] and velocities [J].
        """
        time = nanoseconds(now)
        state = _at_rest(self._command.positions if measured is None else measured[0])
        if measured is not None:
            state.velocities = np.array(measured[1], dtype=float)
        self._take_pending(time)
        trajectory = self._trajectory
        if not trajectory.sampled:
            if not self._from_desired:
                trajectory.set_point_before(time, state)
            elif self.flavour == 'humble':
                trajectory.set_point_before(time, self._command)
            else:
                before = time if self._commanded_at is None else self._commanded_at
                trajectory.set_point_before(before, self._command)
            self._cursor = time
        else:
            self._cursor += time - self._cycle_at
        self._cycle_at = time
        sample = trajectory.sample(self._cursor)
        if self._look_ahead:
            sample = trajectory.sample(self._cursor + self._look_ahead, keep_index=False)
        if sample is not None:
            reached = trajectory.start + trajectory.knots[sample.segment_start].time
            overdue = (self._cursor - reached) / NANO
            if sample.at_end and not self._holding and 0.0 < self._cmd_timeout < overdue:
                self._hold(state.positions)
            self._command, self._commanded_at = sample.state, time
        return self._command.positions.copy(), self._command.velocities.copy()

    def _take_pending(self, now: int) -> None:
        if self._pending is None:
            return
        names, points, stamp = self._pending
        self._pending = None
        columns = [names.index(j) if j in names else None for j in self.joints]
        active = self._trajectory
        if self._replaces and len(active.knots) > 1 and not self._holding:
            self._trajectory = joined(active, self._cursor, columns, points, stamp, now)
        else:
            held = State(self._command.positions)
            self._trajectory = Trajectory([in_order(columns, p, held) for p in points], stamp)
        self._holding = False

    def _hold(self, position: np.ndarray) -> None:
        """Stay at a position [J]; a trajectory of one point, as upstream's."""
        self._trajectory = Trajectory([Knot(State(np.array(position, dtype=float)), 0)], 0)
        self._holding = True


def _at_rest(position: Sequence[float]) -> State:
    """State at a position [J] without motion."""
    position = np.array(position, dtype=float)
    return State(position, np.zeros_like(position), np.zeros_like(position))
