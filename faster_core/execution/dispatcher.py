"""The state machine between chunks and motors. Pure: every method takes the time `now`.

One place decides whether the robot moves: enabled or not, stopped or not, plan or no plan. The
policy only ever sends chunks.
"""

from __future__ import annotations

import collections
import dataclasses
import enum

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment, Kind
from faster_core.execution import checks
from faster_core.execution.config import DispatcherConfig
from faster_core.execution.limiter import limit
from faster_core.execution.plan import Plan, splice

# A tick later than this many periods moves the set-point no further than one this long would.
MAX_TICKS_AT_ONCE = 5


class Action(enum.IntEnum):
    """What the dispatcher is doing; the values equal `DispatcherState.ACTION_*`."""

    NONE = 0
    FOLLOW = 1
    LIMIT = 2
    HOLD = 3
    STOP = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of a service; the message names the state found."""

    success: bool
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkReport:
    """What became of one chunk.

    Attributes:
        reason: key of the rejection, empty when accepted.
        detail: the same with values.
        rows_dropped: rows that were due on arrival.
        rows_executed_of_previous: rows of the last accepted chunk that fell due before this one.
    """

    accepted: bool
    reason: str = ''
    detail: str = ''
    num_rows: int = 0
    rows_dropped: int = 0
    rows_executed_of_previous: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DispatcherSnapshot:
    """State for people: the fields of `DispatcherState.msg`."""

    action: Action
    enabled: bool
    components: tuple[str, ...]
    message: str
    sequence_id: int
    remaining: float
    num_accepted: int
    rejected: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tick:
    """Commands of one tick: component -> [d], None where nothing is to be sent."""

    commands: dict[str, np.ndarray | None]
    state: DispatcherSnapshot


class Dispatcher:
    """Time-aligned execution of chunks for one robot."""

    def __init__(self, embodiment: Embodiment, config: DispatcherConfig) -> None:
        """Start disarmed (unless `require_enable` is false) and without a plan."""
        self._embodiment, self._config = embodiment, config
        self._columns = embodiment.action_slices
        self._switched = np.zeros(embodiment.action_dim, dtype=bool)
        for c in embodiment.action:
            self._switched[self._columns[c.name]] = c.kind is Kind.GRIPPER_POSITION
        self._accepted = 0
        self._rejected: collections.Counter[str] = collections.Counter()
        self._clear()
        self._enabled = not config.require_enable

    def _clear(self) -> None:
        self._enabled = False
        self._stop_reason = ''
        self._quiet_since: float | None = None
        self._plan: Plan | None = None
        self._rows: np.ndarray = np.zeros(0)
        self._reference: np.ndarray | None = None
        self._measured: dict[str, np.ndarray] = {}
        self._measured_at: dict[str, float] = {}
        self._last_tick: float | None = None
        self._last_stamp = -np.inf
        self._sequence_id = 0
        self._violations = 0
        self._note = 'not enabled'

    # --- services -----------------------------------------------------------------------------

    def enable(self, on: bool, now: float) -> Answer:
        """Arm or disarm; arming needs recent feedback of every position component."""
        if not on:
            self._enabled, self._plan, self._note = False, None, 'not enabled'
            self._quiet_since = now
            return Answer(success=True, message='disabled')
        if self._stop_reason:
            return Answer(
                success=False,
                message=f'stopped ({self._stop_reason}): reset is needed before enable',
            )
        if missing := self._stale_feedback(now):
            return Answer(success=False, message=f'no recent feedback of {", ".join(missing)}')
        if not self._enabled:
            self._enabled, self._reference, self._plan = True, None, None
            self._quiet_since, self._note = None, 'enabled, waiting for a chunk'
            self._violations = 0
        return Answer(success=True, message='enabled')

    def stop(self, now: float, reason: str) -> Answer:
        """Stop and stay stopped until `reset`."""
        if not self._stop_reason:
            self._stop_reason, self._quiet_since = reason, now
        self._plan = None
        return Answer(success=True, message=f'stopped ({self._stop_reason})')

    def reset(self, now: float) -> Answer:
        """Clear a stop; motion has to be enabled again."""
        was = self._stop_reason
        self._stop_reason, self._violations = '', 0
        self._enabled, self._plan, self._note = False, None, 'not enabled'
        self._quiet_since = self._quiet_since if was else now
        message = f'cleared the stop ({was})' if was else 'nothing was stopped'
        return Answer(success=True, message=f'{message}; not enabled')

    # --- inputs -------------------------------------------------------------------------------

    def on_feedback(self, component: str, measured: np.ndarray, now: float) -> None:
        """Take measured values [d] of a component; values that are not finite count as none."""
        measured = np.asarray(measured, dtype=float)
        if np.isfinite(measured).all():
            self._measured[component] = measured
            self._measured_at[component] = now

    def on_chunk(self, chunk: ActionChunk, now: float) -> ChunkReport:
        """Check a chunk and splice it into the plan; a rejected one changes nothing.

        A chunk without rows drops the plan: the robot holds.
        """
        self._watch_clock(now)
        executed = int((self._rows <= now).sum())
        rejection, rows, times = self._check(chunk, now)
        if rejection is not None:
            return self._reject(rejection, chunk, executed, now)
        self._accepted += 1
        self._violations = 0
        self._last_stamp, self._sequence_id = chunk.stamp, chunk.sequence_id
        dropped = chunk.num_steps - len(rows)
        if chunk.num_steps == 0:
            self._plan, self._rows = None, np.zeros(0)
            self._note = 'told to hold'
        else:
            self._start_reference()
            plan = self._plan if self._plan is not None and self._plan.end > now else None
            self._plan = splice(
                times,
                rows,
                now=now,
                reference=self._reference,
                switched=self._switched,
                old=plan,
                blend_steps=self._config.blend_steps,
            )
            self._rows = times
        return ChunkReport(
            accepted=True,
            num_rows=chunk.num_steps,
            rows_dropped=dropped,
            rows_executed_of_previous=executed,
        )

    def _check(
        self, chunk: ActionChunk, now: float
    ) -> tuple[checks.Rejection | None, np.ndarray, np.ndarray]:
        config, values = self._config, np.asarray(chunk.values, dtype=float)
        nothing = (values[:0], np.zeros(0))
        if self._stop_reason:
            reason = checks.Rejection(reason='stopped', detail=self._stop_reason)
            return reason, *nothing
        if not self._enabled:
            return checks.Rejection(reason='not_enabled', detail='motion is not enabled'), *nothing
        if rejection := checks.check_content(chunk, self._embodiment):
            return rejection, *nothing
        if chunk.stamp <= self._last_stamp and chunk.num_steps:
            detail = f'stamp {chunk.stamp:.3f} is not after the last one, {self._last_stamp:.3f}'
            return checks.Rejection(reason='out_of_order', detail=detail), *nothing
        if chunk.num_steps == 0:
            return None, *nothing
        if now - chunk.stamp > config.max_chunk_age:
            detail = f'{now - chunk.stamp:.3f} s old, at most {config.max_chunk_age} s'
            return checks.Rejection(reason='too_old', detail=detail), *nothing
        times = chunk.row_times
        lead = config.min_lead or chunk.step_period
        # Half a millisecond: row times and ticks are sums of floats.
        usable = times >= now + lead - 5e-4
        if not usable.any():
            detail = f'the last row was due {now - times[-1]:.3f} s ago'
            return checks.Rejection(reason='expired', detail=detail), *nothing
        rows, times = values[usable], times[usable]
        rejection = checks.check_limits(
            rows, chunk.step_period, self._embodiment, config
        ) or checks.check_start(rows[0], self._measured, self._embodiment, config)
        return rejection, rows, times

    def _reject(
        self, rejection: checks.Rejection, chunk: ActionChunk, executed: int, now: float
    ) -> ChunkReport:
        self._rejected[rejection.reason] += 1
        if rejection.reason in checks.VIOLATIONS:
            self._violations += 1
            if self._violations >= self._config.consecutive_violation_threshold:
                self.stop(now, f'{self._violations} unusable chunks in a row: {rejection.detail}')
        return ChunkReport(
            accepted=False,
            reason=rejection.reason,
            detail=rejection.detail,
            num_rows=chunk.num_steps,
            rows_executed_of_previous=executed,
        )

    # --- time ---------------------------------------------------------------------------------

    def tick(self, now: float) -> Tick:
        """Return what is to be sent at `now`."""
        self._watch_clock(now)
        period = 1.0 / self._config.dispatch_rate
        since = period if self._last_tick is None else now - self._last_tick
        dt = min(since, MAX_TICKS_AT_ONCE * period)
        self._last_tick = now
        if self._enabled and self._reference is not None and not self._stop_reason:
            if stale := self._stale_feedback(now):
                self.stop(now, f'feedback_stale: {", ".join(stale)}')
        if self._reference is None:
            commands = dict.fromkeys(self._columns)
            action = Action.STOP if self._stop_reason else Action.NONE
            return Tick(commands=commands, state=self._snapshot(action, (), now))
        moving = self._enabled and not self._stop_reason and self._plan is not None
        if moving and now > self._plan.end:
            self._plan, moving, self._note = None, False, 'plan_exhausted'
            if any(c.on_stale == 'stop' for c in self._config.components.values()):
                self.stop(now, 'plan_exhausted')
        limited = self._move(self._plan.sample(now) if moving else self._rest(), dt)
        commands = {
            name: self._reference[columns].copy() if self._is_sent(name, now) else None
            for name, columns in self._columns.items()
        }
        if moving:
            action = Action.LIMIT if limited else Action.FOLLOW
            self._note = 'limited' if limited else ''
        else:
            limited = ()
            action = Action.STOP if self._stop_reason else Action.HOLD
            if not self._stop_reason and not self._enabled:
                action = Action.NONE
        return Tick(commands=commands, state=self._snapshot(action, limited, now))

    def safe_commands(self) -> dict[str, np.ndarray | None]:
        """Return what must be sent last on every exit: zero velocities, positions where they are.

        Components that were never commanded are None.
        """
        if self._reference is None:
            return dict.fromkeys(self._columns)
        rest = self._rest()
        return {name: rest[columns] for name, columns in self._columns.items()}

    def _move(self, target: np.ndarray, dt: float) -> tuple[str, ...]:
        limited = []
        for c in self._embodiment.action:
            columns = self._columns[c.name]
            config = self._config.components[c.name]
            self._reference[columns], clipped = limit(
                target[columns], self._reference[columns], dt, c, config
            )
            if clipped and c.kind is not Kind.GRIPPER_POSITION:
                limited.append(c.name)
        return tuple(limited)

    def _rest(self) -> np.ndarray:
        rest = self._reference.copy()
        for c in self._embodiment.action:
            if not c.kind.is_position:
                rest[self._columns[c.name]] = 0.0
        return rest

    def _is_sent(self, component: str, now: float) -> bool:
        if self._quiet_since is None:
            return True
        timeout = self._config.components[component].stop_pub_timeout
        return timeout == 0.0 or now - self._quiet_since <= timeout

    def _start_reference(self) -> None:
        """Begin at the measured positions and at zero velocity."""
        if self._reference is not None:
            return
        self._reference = np.zeros(self._embodiment.action_dim)
        for c in self._embodiment.action:
            if c.kind.is_position:
                self._reference[self._columns[c.name]] = self._measured[c.name]

    def _stale_feedback(self, now: float) -> list[str]:
        timeout = self._config.feedback_timeout
        return [
            c.name
            for c in self._embodiment.action
            if c.kind.is_position and now - self._measured_at.get(c.name, -np.inf) > timeout
        ]

    def _watch_clock(self, now: float) -> None:
        """Disarm and forget everything when time runs backwards (a reset simulation)."""
        if self._last_tick is not None and now < self._last_tick - 1e-9:
            armed = not self._config.require_enable
            self._clear()
            self._enabled, self._note = armed, 'the clock jumped back'

    def _snapshot(
        self, action: Action, components: tuple[str, ...], now: float
    ) -> DispatcherSnapshot:
        return DispatcherSnapshot(
            action=action,
            enabled=self._enabled,
            components=components,
            message=self._stop_reason or self._note,
            sequence_id=self._sequence_id,
            remaining=max(0.0, self._plan.end - now) if self._plan is not None else 0.0,
            num_accepted=self._accepted,
            rejected=dict(sorted(self._rejected.items())),
        )
