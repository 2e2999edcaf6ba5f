"""The dispatcher: chunks in, commands per tick out, always with a known safe command.

Pure: no clock, no thread, no ROS. Every method takes `now`, seconds of the robot's clock. States:

- silent: never enabled, or stopped and disabled long enough ago; sends nothing.
- armed: enabled, waits for the first chunk; sends nothing.
- following (FOLLOW, LIMIT): the plan covers now.
- holding (HOLD): the plan is used up, was dropped, or the clock stands still; positions hold,
  velocities go to zero within their acceleration limits.
- stopped (STOP): as holding, latched until `reset`, silent after `stop_pub_timeout`.
- yielded: somebody else moves the robot; silent at once, until enabled again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import dataclasses
import math

import numpy as np

from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_core.execution.admission import Admission
from faster_core.execution.config import check_braking, DispatcherConfig
from faster_core.execution.continuity import Continuity
from faster_core.execution.errors import ChunkError
from faster_core.execution.feedback import Feedback
from faster_core.execution.motion import Motion
from faster_core.execution.plan import held_columns, Plan, splice, step_columns
from faster_core.execution.spline import Trajectory
from faster_core.execution.state import Action, Answer, ChunkReport, DispatcherSnapshot, Tick

__all__ = ['Dispatcher', 'DispatcherConfig']

# Clocks are corrected in small steps; beyond this one was set back (seconds).
CLOCK_TOLERANCE = 0.05
# A clock that stood still for so long (seconds at the nominal rate) is paused.
PAUSE_AFTER = 0.2
# A clock that comes in steps may have held back so much (s) of the time that passed.
MAX_HELD_BACK = 0.03
# Two spans of time that differ by less (s) are the same; by two clocks, read one after the other.
_SAME_TIME, _AS_LONG = 1e-4, 5e-3
# A late tick moves a set-point by at most so many nominal periods (at full speed, if it is a
# position that every tick sends).
MAX_TICK_PERIODS = 3.0
FEEDBACK_STALE = 'feedback_stale'


class Dispatcher:
    """State machine of one robot."""

    def __init__(
        self,
        embodiment: Embodiment,
        config: DispatcherConfig,
        trajectories: Iterable[str] = (),
        may_enable: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start disarmed (armed at the first tick with feedback if not `require_enable`).

        Args:
            embodiment: the robot's.
            config: its limits and the rules.
            trajectories: components of joint positions that go out as trajectories.
            may_enable: asked before motion is enabled without `require_enable`.

        Raises:
            ConfigError: one of them has no acceleration limit, which braking needs.
        """
        self._embodiment, self._config = embodiment, config
        self._trajectories = tuple(trajectories)
        check_braking(config, self._trajectories)
        # Something else than before is to be done: a new plan, or none any more.
        self._turned = False
        # Components whose controllers somebody else commands: no trajectory of ours goes there.
        self._taken: frozenset[str] = frozenset()
        self._exceeding: tuple[str, ...] = ()  # components whose trajectories exceed a limit
        self._switching, self._holding = step_columns(embodiment), held_columns(embodiment)
        self._feedback = Feedback(embodiment, config.feedback_timeout)
        self._admission = Admission(embodiment, config)
        self._auto_enable, self._may_enable = not config.require_enable, may_enable
        self._enabled = False
        self._stop_reason = ''
        self._stop_components: tuple[str, ...] = ()
        self._message = 'disabled'
        self._plan: Plan | None = None
        self._motion: Motion | None = None
        self._started = False  # a chunk was accepted since the last enable
        self._positions = [c.name for c in embodiment.action if c.kind.is_position]
        self._sampled = [n for n in self._positions if n not in self._trajectories]
        self._continuity = Continuity(self._positions, self._trajectories)
        self._row_goals: dict[str, np.ndarray] = {}  # of the row that was due last
        self._now = -np.inf
        self._last_tick: float | None = None
        self._still_ticks = 0
        self._held_back = 0.0  # of the time that passed, by the clock
        self._idle_since: float | None = None
        self._moved_at: dict[str, float] = {}  # component -> when it moved last
        # Seconds from a tick's time until its trajectories are sent, as who sends them says: of a
        # plan, and of a stop, which takes less to compute.
        self.sending_time, self.stopping_time = 0.0, 0.0

    @property
    def plan(self) -> Plan | None:
        """The plan in force, for output as trajectories and for debugging."""
        return self._plan

    @property
    def is_stopped(self) -> bool:
        """Whether a stop is latched."""
        return bool(self._stop_reason)

    def set_config(self, config: DispatcherConfig) -> None:
        """Take other limits at run time; set-points go on from where they are.

        Raises:
            ConfigError: a component that goes out as a trajectory lost its acceleration limit.
        """
        check_braking(config, self._trajectories)
        self._config = self._admission.config = config
        self._feedback.timeout = config.feedback_timeout
        if self._motion is not None:
            self._motion.set_config(config)
            # A controller that interpolates would go on by the old limits.
            self._turned |= self._enabled and self._started

    # --- what people ask for ------------------------------------------------------------------

    def enable(self, on: bool, now: float) -> Answer:
        """Arm or disarm motion. Arming needs fresh feedback and no latched stop."""
        self._advance(now)
        self._auto_enable = False
        if not on:
            was = 'enabled' if self._enabled else 'disabled'
            self._disarm('disabled')
            return Answer(success=True, message=f'disabled (was {was})')
        if self._stop_reason:
            return Answer(
                success=False, message=f'stopped ({self._stop_reason}), expected a reset first'
            )
        if stale := self._feedback.stale(self._now):
            return Answer(success=False, message=f'no fresh feedback of {", ".join(stale)}')
        if self._enabled:
            return Answer(success=True, message='already enabled')
        self._enabled, self._started = True, False
        self._admission.begin_anew()
        self._row_goals = {}
        self._message = 'waiting for the first chunk'
        return Answer(success=True, message='enabled (was disabled)')

    def stop(self, now: float, reason: str = 'stop', failed: Collection[str] = ()) -> Answer:
        """Stop and stay stopped until `reset`; a second stop keeps the first reason.

        Args:
            now: the time.
            reason: why.
            failed: components whose controllers gave their trajectory up: they hold where they
                are, which is not where they should be by now, and get no way to rest from there.
        """
        self._advance(now)
        if self._motion is not None:
            self._motion.stand(failed)
            self._continuity.lost(failed)
        if self._stop_reason:
            return Answer(success=True, message=f'already stopped ({self._stop_reason})')
        self._latch(reason)
        return Answer(success=True, message=f'stopped ({reason})')

    def reset(self, now: float) -> Answer:
        """Clear a latched stop if its reason is gone; does not enable."""
        self._advance(now)
        if not self._stop_reason:
            return Answer(success=True, message='not stopped: nothing to reset')
        stale = self._feedback.stale(self._now)
        if self._stop_reason == FEEDBACK_STALE and stale:
            return Answer(success=False, message=f'still no fresh feedback of {", ".join(stale)}')
        was, self._stop_reason, self._stop_components = self._stop_reason, '', ()
        self._admission.begin_anew()
        self._message = 'disabled'
        return Answer(success=True, message=f'reset (was stopped: {was}), enable to move')

    def disarm(self, why: str, now: float) -> None:
        """Take the permission to move, if there is one: come to rest as after a stop."""
        self._advance(now)
        if self._enabled:
            self._auto_enable = False
            self._disarm(why)

    def yield_to(self, who: str, now: float, *, taken: Collection[str] = ()) -> None:
        """Fall silent at once, as somebody else commands the robot; enable to move again.

        Set-points are not braked: two sources of commands would fight. A trajectory that a
        controller follows is, unless that component is `taken`: the other one commands the
        controller. A latched stop stays, and one that was not sent yet goes out all the same.
        """
        self._advance(now)
        if not (self._turned and self._stop_reason):
            self._taken |= frozenset(taken)
        if self._enabled or self._idle_since is not None:
            self._auto_enable = False
            self._disarm(f'taken over by {who}')
        self._idle_since = None
        self._continuity.yielded()
        if self._motion is not None:
            braked = set(self._trajectories) - self._taken
            self._motion.stand([c.name for c in self._embodiment.action if c.name not in braked])

    # --- what comes in ------------------------------------------------------------------------

    def on_feedback(
        self, component: str, measured: np.ndarray, now: float, age: float = 0.0
    ) -> bool:
        """Take measured values [d] of an action component.

        Args:
            component: its name.
            measured: positions or velocities [d].
            now: the time.
            age: seconds that the values waited to be taken.

        Returns:
            False if the value was ignored: wrong size or not finite. It then grows stale.

        Raises:
            KeyError: no such action component.
        """
        self._advance(now)
        return self._feedback.take(component, measured, self._now - age)

    def on_chunk(self, chunk: ActionChunk, now: float) -> ChunkReport:
        """Check a chunk as a whole and splice it into the plan, or refuse it.

        A chunk without rows drops the plan: the robot holds until the next one.
        """
        self._advance(now)
        executed = self._plan.rows_due(self._now) if self._plan else 0
        try:
            dropped = self._accept(chunk)
        except ChunkError as error:
            num_rows = len(chunk.values) if np.ndim(chunk.values) else 0
            return self.refuse(error, sequence_id=chunk.sequence_id, num_rows=num_rows, now=now)
        self._admission.took(chunk, self._now)
        return ChunkReport(
            accepted=True,
            sequence_id=chunk.sequence_id,
            num_rows=chunk.num_steps,
            rows_dropped=dropped,
            rows_executed_of_previous=executed,
        )

    def refuse(
        self, error: ChunkError, *, sequence_id: int, num_rows: int, now: float
    ) -> ChunkReport:
        """Count a refused chunk, also one that did not survive its conversion."""
        self._advance(now)
        why = self._admission.refused(error, sequence_id=sequence_id, enabled=self._enabled)
        if why:
            self._latch(why, (error.component,) if error.component else ())
        return ChunkReport(
            accepted=False,
            reason=error.reason,
            detail=error.detail,
            sequence_id=sequence_id,
            num_rows=num_rows,
        )

    def _accept(self, chunk: ActionChunk) -> int:
        """Make a chunk the plan; returns the number of rows that came too late."""
        now = self._now
        moves = np.ndim(chunk.values) != 2 or len(chunk.values) > 0
        if self._stop_reason and moves:
            raise ChunkError('stopped', f'stopped ({self._stop_reason}), expected a reset')
        if not self._enabled and moves:
            raise ChunkError('not_enabled', 'motion is disabled, expected enable')
        dropped = self._admission.check(chunk, self._feedback, now)
        if not moves:
            # Before a first chunk there is nothing to drop, nor is it known where the robot is.
            if self._enabled and self._started:
                self._plan, self._message, self._turned = None, 'the plan was dropped', True
            return 0
        measured = self._feedback.positions()
        if self._motion is None:
            self._motion = Motion(self._embodiment, self._config, measured, self._sampled)
        else:
            going = self._started
            anew = self._continuity.anew(self._motion, measured, self._config, going=going)
            self._motion.restart(anew)
        self._continuity.planned()
        anchor = now if not self._started or self._last_tick is None else self._last_tick
        commanded = self._motion.set_point()
        if self._covers() and anchor <= self._plan.end:
            # What switches goes on to where it was going.
            commanded = np.where(self._switching, self._plan.sample(anchor), commanded)
        self._started = True
        self._plan = splice(
            old=self._plan,
            anchor=(anchor, commanded),
            times=chunk.row_times[dropped:],
            values=chunk.values[dropped:],
            rest=self._motion.rest(),
            holding=self._holding,
            switching=self._switching,
            blend_steps=self._config.blend_steps,
            sequence_id=chunk.sequence_id,
        )
        self._turned, self._taken = True, frozenset()
        return dropped

    # --- what goes out ------------------------------------------------------------------------

    def tick(self, now: float, silence: float = 0.0, passed: float | None = None) -> Tick:
        """Return the commands for `now` and why they are what they are.

        Args:
            now: seconds of the clock that chunks are stamped with.
            silence: seconds of real time since the last tick. After more than three periods
                whoever watches may have brought to rest what moves by speed (the guard, a
                driver's time-out): such speeds brake over all of that time before they go on.
            passed: seconds that have passed for the controllers since the last tick, if that is
                known better than by `now`, which may have jumped; simulated time comes late.
        """
        self._advance(now)
        stale = self._feedback.stale(self._now)
        self._continuity.lost(self._feedback.lost(self._now))
        if self._auto_enable and not self._stop_reason and not stale and self._may_enable():
            self.enable(True, now)
        if self._enabled and stale:
            self._latch(FEEDBACK_STALE, stale)
        most = MAX_TICK_PERIODS / self._config.dispatch_rate
        late = silence > most
        known = passed
        if self._motion is not None:
            if passed is None:
                passed = 0.0 if self._last_tick is None else max(self._now - self._last_tick, 0.0)
                # The clock may have jumped while controllers did not, but not if it took so long.
                passed = min(passed, max(silence, most))
            self._motion.go_on(passed)
        action, components, message = self._move(silence if late else 0.0, known)
        self._last_tick = self._now
        plan = self._plan
        commands = {c.name: self._command(c.name) for c in self._embodiment.action}
        self._continuity.sent(commands)
        trajectories, begins_in = self._new_trajectories()
        if self._exceeding and action in (Action.FOLLOW, Action.LIMIT):
            action, found = Action.LIMIT, ', '.join(self._exceeding)
            components = tuple(dict.fromkeys((*components, *self._exceeding)))
            exceeded = f'the trajectory exceeds limits between its points: {found}'
            message = f'{message}; {exceeded}' if message else exceeded
        return Tick(
            commands=commands,
            goals=self._goals(commands),
            trajectories=trajectories,
            begins_in=begins_in,
            state=DispatcherSnapshot(
                action=action,
                enabled=self._enabled,
                components=components,
                message=message,
                sequence_id=plan.sequence_id if plan else 0,
                remaining=max(0.0, plan.end - self._now) if plan else 0.0,
                num_chunks_accepted=self._admission.num_accepted,
                num_chunks_rejected=sum(self._admission.rejected.values()),
                num_chunks_missing=self._admission.num_missing,
                rejected=dict(sorted(self._admission.rejected.items())),
            ),
        )

    def _move(self, silence: float, known: float | None) -> tuple[Action, tuple[str, ...], str]:
        """Move the set-points by one tick; returns action, components at fault and message.

        Args:
            silence: seconds over which speeds brake.
            known: seconds that have passed since the last tick, if the clock is not to be trusted.
        """
        nominal = 1.0 / self._config.dispatch_rate
        passed = nominal if self._last_tick is None else self._now - self._last_tick
        self._still_ticks = self._still_ticks + 1 if passed <= 0 else 0
        paused = self._still_ticks * nominal >= PAUSE_AFTER
        if known is not None:  # limits are those of the time that passed
            room = known + self._held_back
            passed = min(passed, room + _SAME_TIME)
            self._held_back = min(max(room - max(passed, 0.0), 0.0), MAX_HELD_BACK)
        dt = min(passed, MAX_TICK_PERIODS * nominal)
        if 0.0 < silence - passed < _AS_LONG:  # what the stamps of the commands say
            silence = passed
        names = tuple(c.name for c in self._embodiment.action)
        active = self._enabled and self._started
        if self._covers() and not paused:
            if dt <= 0:
                return Action.FOLLOW, (), ''
            before, target = self._plan.sample(self._now - dt), self._plan.sample(self._now)
            late = (self._plan.sample(self._now - passed), passed) if passed > dt else None
            limited = self._motion.follow(
                before, target, dt, late=late, known=known is not None, silence=silence
            )
            if limited:
                after = f' after {silence:.2f} s of silence' if silence else ''
                return Action.LIMIT, limited, f'limits reached{after}: {", ".join(limited)}'
            return Action.FOLLOW, (), ''
        if active and self._plan is not None and not paused:
            stopping = [n for n in names if self._config.components[n].on_stale == 'stop']
            if stopping:
                self._latch('plan_exhausted', tuple(stopping))
        if self._motion is not None:
            # Before braking: what comes to rest now must still be told so, however late the tick.
            self._moved_at |= {n: self._now for n in names if not self._motion.at_rest(n)}
            # A clock that stands still must not keep the base moving: brake by the tick.
            self._motion.settle(
                dt if dt > 0 else nominal, passed, known=known is not None, silence=silence
            )
        if self._stop_reason:
            return Action.STOP, self._stop_components or names, self._stop_reason
        if not active:
            return Action.NONE, (), self._message
        if paused:
            return Action.HOLD, names, 'the clock stands still'
        return Action.HOLD, names, 'the plan is used up' if self._plan else self._message

    def _command(self, name: str) -> np.ndarray | None:
        """Return the set-point of one component, or None for silence."""
        if self._enabled and self._started:
            return self._motion.command(name)
        if self._idle_since is None or self._continuity.is_silent(name):
            return None  # nothing was sent, or not any more
        # Counted from rest: silence must not follow a speed that some robot goes on executing.
        timeout = self._config.components[name].stop_pub_timeout
        at_rest_since = max(self._idle_since, self._moved_at.get(name, -np.inf))
        if timeout and self._now - at_rest_since > timeout:
            return None
        if self._motion is None:
            return np.zeros(self._embodiment.action_component(name).size)
        return self._motion.command(name)

    def _covers(self) -> bool:
        """Whether there is a plan for now that is being followed."""
        active = self._enabled and self._started and self._plan is not None
        return active and self._now <= self._plan.end

    def _goals(self, commands: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray | None]:
        """Return where positions are to go; what is not followed any more keeps its goal."""
        if self._covers() and not self._plan.at_anchor(self._now):
            self._row_goals = self._motion.in_range(self._plan.sample(self._now))
        self._row_goals = {n: v for n, v in self._row_goals.items() if commands[n] is not None}
        return {n: self._row_goals.get(n) for n in self._positions}

    def put_off(self, tick: Tick, names: Collection[str], begins_in: float) -> Tick:
        """Return the newest tick with some trajectories made anew, to begin later.

        Controllers go on as before meanwhile: one that got a trajectory after it began would make
        up for it at once, in whatever time is left to the next point.

        Args:
            tick: the newest one.
            names: whose trajectories were not sent yet. They are missing in what is returned if
                nothing is to be sent any more.
            begins_in: seconds from its time until they can be there.
        """
        free = [n for n in names if n not in self._taken]
        later = [n for n in free if self._motion.may_begin_later(n)]
        made, begins_in = self._make_trajectories(later, begins_in)
        others = set(later) | self._taken
        kept = {n: t for n, t in tick.trajectories.items() if n not in others}
        return dataclasses.replace(tick, trajectories=kept | made, begins_in=begins_in)

    def not_sent(self, names: Collection[str]) -> None:
        """Take that trajectories of the newest tick were not sent: the next tick makes others."""
        self._motion.not_sent(names)
        self._turned = True

    def _new_trajectories(self) -> tuple[dict[str, Trajectory], float]:
        """Return what replaces the trajectories sent before, if something turned, and when."""
        turned, self._turned = self._turned, False
        taken, self._taken = self._taken, frozenset()
        if not turned or self._motion is None:
            return {}, math.inf
        return self._make_trajectories([n for n in self._trajectories if n not in taken])

    def _make_trajectories(
        self, names: Sequence[str], later: float | None = None
    ) -> tuple[dict[str, Trajectory], float]:
        """Return trajectories, and in how many seconds they begin; anew if that is `later`."""
        tick = 1.0 / self._config.dispatch_rate
        lead = self._config.min_lead or self._embodiment.step_period
        plan = self._plan if self._covers() else None
        # They take a while to compute, and a controller goes on meanwhile.
        ahead = self.stopping_time if plan is None else self.sending_time
        ahead = ahead if later is None else later
        options = {'ahead': ahead, 'lead': lead, 'tick': tick, 'again': later is not None}
        made = self._motion.trajectories(names, plan, now=self._now, **options)
        others = [n for n in self._exceeding if later is not None and n not in made]
        self._exceeding = (*others, *(n for n, t in made.items() if not t.within_limits))
        waits = any(self._motion.may_begin_later(name) for name in made)
        return made, ahead if waits else math.inf

    # --- transitions --------------------------------------------------------------------------

    def _disarm(self, message: str) -> None:
        """Drop plan and permission; set-points come to rest from where they are."""
        if self._enabled or self._idle_since is None:
            self._idle_since = self._now
        # Nothing is being executed that was not sent.
        self._turned |= self._enabled and self._started
        self._enabled, self._plan, self._message = False, None, message

    def _latch(self, reason: str, components: tuple[str, ...] = ()) -> None:
        self._disarm(reason)
        self._idle_since = self._now
        self._auto_enable = False
        self._stop_reason, self._stop_components = reason, components

    def _advance(self, now: float) -> None:
        """Take the time; a clock set back, or no number, clears the buffers and disarms."""
        if math.isfinite(now) and now >= self._now - CLOCK_TOLERANCE:
            self._now = max(now, self._now)
            return
        before = self._now
        if math.isfinite(now):
            self._now = now
        self._last_tick, self._still_ticks, self._held_back = None, 0, 0.0
        self._feedback.clear()
        self._moved_at.clear()
        self._admission.clock_set_back()
        self._auto_enable = False
        if self._idle_since is not None and self._now < before:
            # Who has fallen silent stays silent: by now another source may move the robot.
            self._idle_since += self._now - before
        if self._enabled:
            self._disarm('the clock was set back: enable again')
