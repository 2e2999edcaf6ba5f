"""The rows of the failure table: how each is brought about, and when the robot has to be safe."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
import signal
import time

import numpy as np

from faster_vla_msgs.msg import DispatcherState, PolicyStatus
from scripts.reliability.bench import Bench, BenchError
from scripts.reliability.motion import ARM
from scripts.reliability.witness import FOLLOWING

HOLD, STOP, NONE = (
    DispatcherState.ACTION_HOLD,
    DispatcherState.ACTION_STOP,
    DispatcherState.ACTION_NONE,
)
# Seconds that commands are watched after the robot says that it is safe: braking takes 0.2 s.
WINDOW = 0.5
# What the issue allows from trigger to first safe command: two ticks and 20 ms.
ALLOWED_TICKS, ALLOWED = 2, 0.02
# From SIGKILL of the dispatcher to the guard's zero (s).
GUARD_ALLOWED = 0.25
# Chunks rejected in a row before the dispatcher stops, by the robot file's default.
NUM_REJECTED = 4
AWAY = 0.5  # rad, more than an arm may be away from where a chunk starts
NEAR = 0.15  # rad, as far as a chunk reaches


@dataclasses.dataclass(frozen=True)
class Moment:
    """When something went wrong, and when the robot had to become safe (ns).

    Attributes:
        until_ns: until when it had to stay so.
    """

    fault_ns: int
    trigger_ns: int
    until_ns: int = dataclasses.field(default_factory=time.time_ns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One event.

    Attributes:
        name: of the event, as in the documentation.
        trigger: from when on the time counts.
        run: brings it about; returns the moment, after the window.
        real_node: with the policy node (and a policy that sleeps), else with a source of chunks.
        sim_time: with simulated time.
        guard: with the guard, whose zeros are what counts.
        restarts: name of a process that is of no use afterwards.
    """

    name: str
    trigger: str
    run: Callable[[Bench], Moment]
    real_node: bool = False
    sim_time: bool = False
    guard: bool = False
    restarts: str = ''


def _expect(bench: Bench, *outcomes: tuple[int, str]) -> None:
    """Wait for one of actions and reasons, then watch the commands (BenchError)."""

    def said() -> bool:
        state = bench.witness.state
        return any(state.action == a and text in state.message for a, text in outcomes)

    bench.until(said, f'one of {outcomes}', 15.0)
    bench.spin(WINDOW)
    if not said():
        raise BenchError(f'expected one of {outcomes} to last: {bench.witness.state}')


def _expect_status(bench: Bench, state: int, text: str = '') -> None:
    witness = bench.witness
    bench.until(
        lambda: witness.status.state == state and text in witness.status.message,
        f'status {state} of the policy node with {text!r}, found {witness.status}',
        10.0,
    )


def _after_plan(bench: Bench, fault_ns: int) -> Moment:
    _expect(bench, (HOLD, 'used up'))
    return Moment(fault_ns, bench.witness.plan_end_ns())


def policy_killed(bench: Bench) -> Moment:
    """SIGKILL of the policy: the plan is followed to its end."""
    return _after_plan(bench, bench.kill('policy_node'))


def camera_stalls(bench: Bench) -> Moment:
    """One of three cameras is silent."""
    bench.robot.paused.add('head')
    return _without_head(bench)


def camera_freezes(bench: Bench) -> Moment:
    """One of three cameras shows the same image again and again."""
    bench.robot.frozen.add('head')
    return _without_head(bench)


def _without_head(bench: Bench) -> Moment:
    moment = _after_plan(bench, bench.robot.last['head'])
    _expect_status(bench, PolicyStatus.STATE_STALE_OBSERVATION, 'head')
    return moment


def decode_error(bench: Bench) -> Moment:
    """Every inference ends in codes that cannot be decoded."""
    witness = bench.witness
    before = witness.status.num_decode_failures
    moment = _after_plan(bench, bench.fault('decode_error'))
    _expect_status(bench, PolicyStatus.STATE_STALE_OBSERVATION, 'ordered')
    bench.until(lambda: witness.status.num_decode_failures > before, 'a counted failure', 5.0)
    return moment


def worker_exception(bench: Bench) -> Moment:
    """An exception nobody expects in the inference thread, e.g. out of memory: a hold is sent."""
    fault_ns = bench.fault('exception')
    _expect(bench, (HOLD, 'dropped'))
    until_ns = time.time_ns()
    _expect_status(bench, PolicyStatus.STATE_FAULT, 'ordered')

    def held() -> list[int]:
        return [at for at, chunk in bench.witness.sent_chunks.values() if not chunk.num_steps]

    bench.until(held, 'the empty chunk')  # the dispatcher may have heard it before us
    return Moment(fault_ns, held()[-1], until_ns)


def inference_stalls(bench: Bench) -> Moment:
    """One inference takes 2 s longer; its chunk is too old, the next one is followed again."""
    moment = _after_plan(bench, bench.fault('stall 2.0'))
    bench.until(lambda: bench.witness.state.action in FOLLOWING, 'motion again', 10.0)
    return moment


def late_chunks(bench: Bench) -> Moment:
    """Every chunk comes 1.5 s too late."""
    moment = _after_plan(bench, bench.fault('late 1.5'))
    _expect_rejected(bench, 'too_old', 'out_of_order')  # late is also older than the newest
    return moment


def not_finite_chunks(bench: Bench) -> Moment:
    """Every chunk holds a NaN: the fourth in a row stops."""
    fault_ns = bench.fault('nan')
    _expect(bench, (STOP, 'not_finite'))
    return _at_last_rejected(bench, fault_ns, 'not_finite')


def robot_elsewhere(bench: Bench) -> Moment:
    """The feedback jumps: chunks start elsewhere, the fourth in a row stops."""
    bench.robot.follows = False
    bench.robot.place['left_arm'] = bench.robot.place['left_arm'] + AWAY
    fault_ns = bench.robot.last['left_arm']
    _expect(bench, (STOP, 'start_offset'))
    return _at_last_rejected(bench, fault_ns, 'start_offset')


def _expect_rejected(bench: Bench, *reasons: str) -> None:
    witness = bench.witness
    if not any(r.reason in reasons for _, r in witness.reports):
        raise BenchError(f'expected chunks rejected as {reasons}: {witness.state}')


def _at_last_rejected(bench: Bench, fault_ns: int, reason: str) -> Moment:
    """Return when the chunk that was one too many was sent."""
    witness = bench.witness
    found = [r.sequence_id for _, r in witness.reports if r.reason == reason][:NUM_REJECTED]
    if len(found) < NUM_REJECTED:
        raise BenchError(f'stopped after {len(found)} chunks, expected {NUM_REJECTED}')
    return Moment(fault_ns, witness.sent_chunks[found[-1]][0])


def feedback_stalls(bench: Bench) -> Moment:
    """No positions are measured any more."""
    bench.robot.paused.add('feedback')
    return _without_feedback(bench)


def feedback_freezes(bench: Bench) -> Moment:
    """The driver repeats its last message."""
    bench.robot.frozen.add('feedback')
    return _without_feedback(bench)


def _without_feedback(bench: Bench) -> Moment:
    fault_ns = bench.robot.last['left_arm']
    _expect(bench, (STOP, 'feedback_stale'))
    timeout = bench.parameters.get('feedback_timeout', 0.5)
    return Moment(fault_ns, fault_ns + round(timeout * 1e9))


def robot_restarts(bench: Bench) -> Moment:
    """Its driver ends, and a new one finds it elsewhere: motion goes on from there."""
    bench.robot.end_driver()
    moment = _without_feedback(bench)
    bench.robot.follows = False
    new = bench.robot.place['left_arm'].copy()
    new[0] += NEAR if new[0] < ARM[0] else -NEAR
    bench.robot.place['left_arm'] = new
    bench.robot.start_driver()
    bench.until(lambda: bench.robot.connected, 'the new driver is heard', 10.0)
    bench.spin(0.3)
    witness = bench.witness
    if not witness.state.action == STOP:
        raise BenchError(f'expected STOP until a reset: {witness.state}')
    last = len(witness.commands['left_arm'])
    reports = len(witness.reports)  # before it is enabled: the next chunk may come at once
    bench.enable()
    bench.until(lambda: any(r.accepted for _, r in witness.reports[reports:]), 'a chunk', 10.0)
    at = next(t for t, r in witness.reports[reports:] if r.accepted)
    bench.until(
        lambda: any(c.sent_ns > at for c in witness.commands['left_arm'][last:]), 'a command', 5.0
    )
    first = next(c for c in witness.commands['left_arm'][last:] if c.sent_ns > at)
    bench.robot.follows = True
    reach = bench.limits['left_arm'].speed * 3 * bench.period
    if (np.abs(first.values - new) > reach).any():
        raise BenchError(f'first command {first.values}, expected it near {new}, as measured')
    return moment


def estop(bench: Bench) -> Moment:
    """The e-stop topic says true."""
    bench.robot.paused.add('estop')
    at = bench.robot.press()
    _expect(bench, (STOP, 'estop'))
    return Moment(at, at)


def estop_silent(bench: Bench) -> Moment:
    """The heartbeat of the e-stop is missing."""
    bench.robot.paused.add('estop')
    at = bench.robot.last['estop']
    _expect(bench, (STOP, 'estop_silent'))
    return Moment(at, at + round(bench.parameters['estop.timeout'] * 1e9))


def _ended(number: signal.Signals) -> Callable[[Bench], Moment]:
    def run(bench: Bench) -> Moment:
        at = bench.kill('action_dispatcher', number)
        process = bench.processes.ending
        bench.until(lambda: process.poll() is not None, 'the end of the process', 15.0)
        bench.spin(WINDOW)
        if process.returncode != 0:
            raise BenchError(f'ended with status {process.returncode}, expected 0')
        return Moment(at, at)

    return run


def dispatcher_killed(bench: Bench) -> Moment:
    """SIGKILL of the dispatcher: nobody commands any more."""
    at = bench.kill('action_dispatcher')
    bench.processes.ending.wait(10)
    bench.spin(2 * WINDOW)
    last = [c.sent_ns for c in bench.witness.commands['base'] if c.values.any()][-1]
    return Moment(at, last + round(bench.guard_timeout * 1e9))


def dispatcher_killed_in_its_plan(bench: Bench) -> Moment:
    """SIGKILL of a dispatcher whose trajectories come to rest by themselves."""
    at = bench.kill('action_dispatcher')
    bench.processes.ending.wait(10)
    end = bench.witness.plan_end_ns()
    bench.spin(max(0.0, (end - time.time_ns()) * 1e-9) + WINDOW)
    return Moment(at, end)


def clock_back(bench: Bench) -> Moment:
    """The simulation begins anew: disarmed, whatever comes."""
    at = bench.robot.jump(-3.0)
    _expect(bench, (NONE, 'set back'))
    return Moment(at, at)


def clock_forward(bench: Bench) -> Moment:
    """The clock leaps beyond the plan, and beyond the time-out of feedback if that was first."""
    bench.fault('silent')  # the next chunk would be followed again
    bench.spin(0.1)
    at = bench.robot.jump(5.0)
    _expect(bench, (HOLD, 'used up'), (STOP, 'feedback_stale'))
    return Moment(at, at)


PLAN_END = 'end of the plan'
ROWS = (
    Row(name='policy: kill -9', trigger=PLAN_END, run=policy_killed, real_node=True),
    Row(name='camera stalls', trigger=PLAN_END, run=camera_stalls, real_node=True),
    Row(name='camera freezes', trigger=PLAN_END, run=camera_freezes, real_node=True),
    Row(name='codes cannot be decoded', trigger=PLAN_END, run=decode_error, real_node=True),
    Row(
        name='exception in the inference thread',
        trigger='hold of the policy node',
        run=worker_exception,
        real_node=True,
        restarts='policy_node',
    ),
    Row(name='an inference of 2 s', trigger=PLAN_END, run=inference_stalls, real_node=True),
    Row(name='chunks 1.5 s late', trigger=PLAN_END, run=late_chunks),
    Row(name='chunks with NaN', trigger='the fourth in a row', run=not_finite_chunks),
    Row(name='joint feedback stalls', trigger='feedback_timeout', run=feedback_stalls),
    Row(name='joint feedback freezes', trigger='feedback_timeout', run=feedback_freezes),
    Row(name='robot restarts', trigger='feedback_timeout', run=robot_restarts),
    Row(name='robot found elsewhere', trigger='the fourth chunk in a row', run=robot_elsewhere),
    Row(name='e-stop', trigger='message', run=estop),
    Row(name='e-stop silent', trigger='estop.timeout', run=estop_silent),
    Row(name='dispatcher: SIGINT', trigger='signal', run=_ended(signal.SIGINT)),
    Row(name='dispatcher: SIGTERM', trigger='signal', run=_ended(signal.SIGTERM)),
    Row(
        name='dispatcher: kill -9, guard',
        trigger='timeout of the guard',
        run=dispatcher_killed,
        guard=True,
    ),
    Row(name='clock 3 s back', trigger='message', run=clock_back, sim_time=True),
    Row(name='clock 5 s forward', trigger='message', run=clock_forward, sim_time=True),
)


# Arms behind trajectory controllers: the policy is the source of chunks, there is no guard, and a
# plan comes to rest by itself. A controller would leap with a clock that leaps, and where it finds
# its robot after a restart is its own affair.
_NOT_OF_ARMS = (clock_forward, robot_restarts)
ARMS_ROWS = (
    Row(name='policy: kill -9', trigger=PLAN_END, run=policy_killed),
    *(r for r in ROWS if not (r.real_node or r.guard or r.run in _NOT_OF_ARMS)),
    Row(name='dispatcher: kill -9', trigger=PLAN_END, run=dispatcher_killed_in_its_plan),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delay:
    """What a repetition showed, milliseconds at the observer; infinite if never safe."""

    from_trigger: float
    from_fault: float


def measure(bench: Bench, row: Row) -> Delay:
    """Bring a row about once, from full motion (BenchError if the graph does not behave)."""
    try:
        bench.drive(guard=row.guard)
        moment = row.run(bench)
    except BenchError:
        bench.start_over()
        raise
    witness = bench.witness
    if row.guard:
        # Zeros at once, not by the limits. The dispatcher may still speak while it is killed.
        witness.begin_anew(moment.trigger_ns)
        after = [c for c in witness.commands['base'] if c.sent_ns > moment.trigger_ns]
        moving = [c for c in after if c.values.any()]
        found = [None if moving or not after else after[0].received_ns]
    else:
        safe = witness.safe(moment.trigger_ns, moment.until_ns).values()
        found = [None if c is None else c.received_ns for c in safe]
    _restore(bench, row)
    if any(at is None for at in found):
        return Delay(from_trigger=math.inf, from_fault=math.inf)
    at = max(moment.trigger_ns, *found)
    return Delay(
        from_trigger=(at - moment.trigger_ns) / 1e6, from_fault=(at - moment.fault_ns) / 1e6
    )


def _restore(bench: Bench, row: Row) -> None:
    bench.robot.recover()
    bench.fault('')
    if row.restarts:
        bench.processes.end(row.restarts)
    bench.witness.forget()
