"""Models of the gripper action controllers.

`parallel` is parallel_gripper_controller (Jazzy and later, `ParallelGripperCommand`), `classic` is
gripper_controllers (deprecated there, the only one of Humble, `GripperCommand`). Both move one
joint and end a goal by reaching it or by standing still; efforts are taken and not modelled.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import enum

from faster_core.errors import ConfigError

KINDS = ('parallel', 'classic')


class GripperGoal(enum.Enum):
    """How the goal of a gripper controller stands."""

    NONE = 'none'
    ACTIVE = 'active'
    SUCCEEDED = 'succeeded'
    ABORTED = 'aborted'
    CANCELED = 'canceled'


@dataclasses.dataclass(frozen=True)
class GripperResult:
    """The fields both actions' results share: m, and how the goal ended."""

    position: float
    reached_goal: bool
    stalled: bool


class GripperActionController:
    """Holds its position until a goal arrives; a new goal pre-empts the active one."""

    def __init__(
        self,
        kind: str,
        position: float,
        *,
        goal_tolerance: float = 0.01,
        allow_stalling: bool = False,
        stall_velocity_threshold: float = 0.001,
        stall_timeout: float = 1.0,
    ) -> None:
        """Hold `position` (m); the other arguments are upstream's parameters and defaults.

        Raises:
            ConfigError: unknown kind.
        """
        if kind not in KINDS:
            raise ConfigError(f'kind: expected one of {", ".join(KINDS)}, found {kind!r}')
        self.kind, self.command = kind, position
        self._tolerance, self._allow_stalling = goal_tolerance, allow_stalling
        self._threshold, self._stall_timeout = stall_velocity_threshold, stall_timeout
        self.goal = GripperGoal.NONE
        self.goal_id = 0
        self.result: GripperResult | None = None
        self._moved_at = 0.0

    def accept(self, positions: Sequence[float], now: float) -> str:
        """Take a goal: `command.position` (classic: a list of its one number).

        Returns:
            '' or the reason; a rejected goal leaves the active one alone.
        """
        if len(positions) != 1:
            return f'command.position: expected 1 value, found {len(positions)}'
        self.command, self._moved_at = float(positions[0]), now
        self.goal, self.result, self.goal_id = GripperGoal.ACTIVE, None, self.goal_id + 1
        return ''

    def cancel(self, measured: float) -> None:
        """Cancel the active goal: the measured position is held."""
        if self.goal is GripperGoal.ACTIVE:
            self.command, self.goal = measured, GripperGoal.CANCELED

    def update(self, now: float, position: float, velocity: float) -> float:
        """Run one cycle with the measured position (m) and velocity; returns the set-point (m)."""
        if self.goal is GripperGoal.ACTIVE:
            if abs(self.command - position) < self._tolerance:
                self._end(GripperGoal.SUCCEEDED, position, stalled=False)
            elif abs(velocity) > self._threshold:
                self._moved_at = now
            elif now - self._moved_at > self._stall_timeout:
                end = GripperGoal.SUCCEEDED if self._allow_stalling else GripperGoal.ABORTED
                self._end(end, position, stalled=True)
        return self.command

    def _end(self, goal: GripperGoal, position: float, *, stalled: bool) -> None:
        self.goal = goal
        self.result = GripperResult(position, reached_goal=not stalled, stalled=stalled)
