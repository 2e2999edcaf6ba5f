"""Anything in any order: a machine that does to the dispatcher what people and failures do."""

from execution_helpers import HOME, Rig, rows, START, TICK
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, RuleBasedStateMachine
import numpy as np

from faster_core.execution.state import Action

SMALL = 1e-9
seeds = st.integers(0, 2**32 - 1)
# Seconds between two ticks: on time, early, late, and a clock that stands still.
steps = st.sampled_from([TICK, TICK, TICK, 0.004, 3 * TICK, 0.3, 0.0])


class AnyOrder(RuleBasedStateMachine):
    """The robot goes where it is told; speeds are checked against what was commanded before."""

    def __init__(self):
        super().__init__()
        self.rig = Rig(
            enabled=False, blend_steps=2, stop_pub_timeout=0.2, base__stop_pub_timeout=0.0
        )
        self.limits = self.rig.dispatcher._config.components
        self.place = {name: values.copy() for name, values in HOME.items()}
        self.speed = np.zeros(2)
        self.state = self.rig.dispatcher.tick(START).state
        self.latched = False
        self.accepted = 0

    # What may happen.

    @rule(on=st.booleans())
    def enable(self, on):
        answer = self.rig.dispatcher.enable(on, self.rig.now)
        assert not (on and self.latched and answer.success)

    @rule()
    def stop(self):
        assert self.rig.dispatcher.stop(self.rig.now, 'button').success
        self.latched = True

    @rule()
    def reset(self):
        if self.rig.dispatcher.reset(self.rig.now).success:
            self.latched = False

    @rule(feeding=st.sampled_from([True, True, True, False]))
    def feedback(self, feeding):
        self.rig.feeding = feeding

    @rule(seed=seeds, count=st.integers(0, 8), age=st.floats(0.0, 1.2))
    def good_chunk(self, seed, count, age):
        rng = np.random.default_rng(seed)
        walk = np.cumsum(rng.uniform(-0.1, 0.1, (count, 2)), axis=0)
        values = rows(
            count,
            arm=np.clip(self.rig.measured['arm'] + walk, -1.05, 1.05),
            hand=rng.uniform(0.0, 0.1, (count, 1)),
            base=rng.uniform(-0.5, 0.5, (count, 2)),
        )
        self.take(self.rig.send(values, age=age))

    @rule(seed=seeds, bad=st.sampled_from([np.nan, np.inf, 50.0, -1e9]))
    def bad_chunk(self, seed, bad):
        values = rows(arm=self.rig.measured['arm'])
        values[7, np.random.default_rng(seed).integers(5)] = bad
        report = self.rig.send(values)
        assert not report.accepted

    @rule(now=st.sampled_from([np.nan, np.inf, -np.inf]))
    def no_time(self, now):
        self.rig.dispatcher.enable(True, now)
        assert not self.state_after(self.rig.dispatcher.tick(now), TICK).enabled

    @rule(back=st.floats(1.0, 50.0))
    def clock_is_set_back(self, back):
        self.rig.now -= back
        tick = self.rig.tick(0.0)
        assert not self.state_after(tick, TICK).enabled

    @rule(count=st.integers(1, 8), dt=steps)
    def ticks(self, count, dt):
        for _ in range(count):
            tick = self.rig.tick(dt)
            self.state_after(tick, min(dt, 3 * TICK) or TICK)

    # What must hold.

    def take(self, report):
        assert report.accepted == (report.reason == '')
        moves = report.accepted and report.num_rows > 0
        assert not (moves and (self.latched or not self.rig.dispatcher._enabled))
        self.accepted += report.accepted

    def state_after(self, tick, dt):
        """Check one tick against the one before it; returns its state."""
        state, commands = tick.state, tick.commands
        stopped = state.action is Action.STOP
        assert not (stopped and state.enabled)
        assert not (self.latched and not stopped)
        self.latched = stopped
        moving = state.action in (Action.FOLLOW, Action.LIMIT)
        assert not (moving and not state.enabled)
        for name in ('arm', 'hand'):
            if commands[name] is None:
                assert not moving
                continue
            limit = self.limits[name]
            step = np.abs(commands[name] - self.place[name])
            assert (step <= limit.max_velocity * dt + SMALL).all()
            assert (commands[name] >= limit.lower).all()
            assert (commands[name] <= limit.upper).all()
            self.place[name] = commands[name].copy()
        if commands['base'] is None:
            assert not self.speed.any()
        else:
            change = commands['base'] - self.speed
            assert (np.abs(change) <= self.limits['base'].max_acceleration * dt + SMALL).all()
            if not moving:
                assert (np.abs(commands['base']) <= np.abs(self.speed)).all()
            self.speed = commands['base'].copy()
        assert state.num_chunks_accepted == self.accepted
        assert state.num_chunks_rejected == sum(state.rejected.values())
        assert state.remaining >= 0.0
        return state

    @invariant()
    def a_disabled_dispatcher_has_no_plan(self):
        d = self.rig.dispatcher
        assert d._enabled or d.plan is None

    def teardown(self):
        """Whatever happened: after a stop the robot stands within two seconds and stays there."""
        self.rig.dispatcher.stop(self.rig.now)
        self.latched = True
        for _ in range(100):
            self.state_after(self.rig.tick(), TICK)
        assert not self.speed.any()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
