"""Every row of the failure table and every reason to reject a chunk, through real DDS processes.

Times are those of scripts/reliability/rows.py; `make reliability` repeats each row thirty times
with the bounds of docs/reliability.md. Here the observer shares two cores with whatever else a CI
machine does, so the bound is wider, and a row that misses it is brought about again.
"""

import math
import os
import signal
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

import numpy as np
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState

from faster_core.execution.errors import CONTENT_REASONS, STATE_REASONS
from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_msgs.msg import ActionChunk, DispatcherState
from faster_vla_ros.conversions import seconds_from_stamp
from faster_vla_ros.episodes import wait_ready
from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.session import isolated_environment, Session
from faster_vla_ros.supervisor import Supervisor
from scripts.reliability import rows
from scripts.reliability.arms import ArmsBench
from scripts.reliability.bench import Bench
from scripts.reliability.failures import GOES_ON, goes_on, measure_without_guard
from scripts.reliability.hostile import HostileChunks
from scripts.reliability.witness import COMMANDS, EARS, FOLLOWING, LATCHED

pytestmark = pytest.mark.ros

DOMAIN = 46
# Beyond the two ticks and 20 ms: one interruption of the dispatcher or the observer (ms).
LOADED = 250.0
# A machine that stands still for longer than that does not do so three times in a row.
TRIALS = 3
# A loaded machine keeps this robot, not only the dispatcher, from its work.
LENIENT = {'feedback_timeout': 1.0, 'estop.timeout': 1.0}


@pytest.fixture(scope='module')
def benches():
    """Return benches by what has to run around the dispatcher; each is started once."""
    made = {}

    def get(real_node=False, sim_time=False, kind=Bench, **options):
        key = (real_node, sim_time, kind)
        if key not in made:
            for bench in made.values():  # one at a time: they share names
                bench.close()
            made.clear()
            options |= {'real_node': real_node, 'sim_time': sim_time, 'changes': LENIENT}
            made[key] = kind(DOMAIN, **options)
        return made[key]

    yield get
    for bench in made.values():
        bench.close()


def new_violations(bench):
    """Return those not told of yet: one event fails one test, not all that share the bench."""
    found = bench.witness.violations[:]
    bench.witness.violations.clear()
    return found


def judged(bench, row):
    """Measure a row once; returns milliseconds from the trigger."""
    delay = rows.measure(bench, row)
    assert math.isfinite(delay.from_trigger), 'never safe'
    assert new_violations(bench) == []
    print(f'{row.name}: {delay.from_trigger:.0f} ms, {delay.from_fault:.0f} ms from the fault')
    return delay


ORDER = sorted(rows.ROWS, key=lambda r: (r.real_node, r.sim_time))


@pytest.mark.parametrize('row', ORDER, ids=lambda r: r.name.replace(' ', '_'))
def test_the_robot_is_safe_soon_after(benches, row):
    _is_safe_soon_after(benches(row.real_node, row.sim_time), row)


ARMS_ORDER = sorted(rows.ARMS_ROWS, key=lambda r: r.sim_time)


@pytest.mark.parametrize('row', ARMS_ORDER, ids=lambda r: r.name.replace(' ', '_'))
def test_arms_behind_trajectory_controllers_are_safe_soon_after(benches, row):
    _is_safe_soon_after(benches(sim_time=row.sim_time, kind=ArmsBench, rows=50), row)


def _is_safe_soon_after(bench, row):
    ticks = rows.ALLOWED_TICKS * bench.period + rows.ALLOWED
    allowed = (rows.GUARD_ALLOWED if row.guard else ticks) * 1e3 + LOADED
    found = []
    while len(found) < TRIALS and not (found and found[-1] <= allowed):
        delay = judged(bench, row)
        found.append(delay.from_fault if row.guard else delay.from_trigger)
    assert found[-1] <= allowed, f'{TRIALS} trials took {found} ms, expected <= {allowed} ms'


def test_without_a_guard_a_latching_chassis_drives_on(benches):
    found = measure_without_guard(benches())
    assert found['zeros'] == 0
    assert found['last_speed'] > 0.0


@pytest.mark.parametrize('name', GOES_ON)
def test_the_robot_goes_on_or_holds(benches, name):
    bench = benches()
    found = goes_on(bench, name, 5.0)
    assert new_violations(bench) == []
    assert found['limit_violations'] == []
    assert found['stops'] == 0
    assert found['chunks_accepted'] > 3
    assert found['moving_share'] > 0.5
    if 'lost' in name:
        assert found['chunks_sent'] < found['chunks_numbered']
    else:
        assert found['rejected'] == (['out_of_order'] if 'swapped' in name else [])


# --- reasons to reject a chunk ------------------------------------------------------------


def _rows(message, change):
    """Change the values [H, d] of the left arm."""
    part = message.components[0]
    values = np.array(part.data, np.float32).reshape(message.num_steps, -1)
    change(values)
    part.data = values.ravel().tolist()


def _add(message, amount, first=0):
    _rows(message, lambda v: np.add(v[first:], amount, out=v[first:]))


def _aside(values):
    values[:, 0] += 0.8


def _set(message, **fields):
    for name, value in fields.items():
        setattr(message, name, value)


def _first(message, **fields):
    _set(message.components[0], **fields)


SPOILT = {
    'embodiment_mismatch': lambda m: _set(m, embodiment_checksum='f' * 64),
    'bad_shape': lambda m: _first(m, data=list(m.components[0].data)[:-1]),
    'bad_names': lambda m: _first(m, names=['a'] * 6),
    'bad_frame': lambda m: _set(m.components[-1], frame_id='odom'),
    'bad_timing': lambda m: _set(m.step_period, nanosec=m.step_period.nanosec * 2),
    'not_finite': lambda m: _add(m, math.nan, first=5),
    'out_of_order': lambda m: _set(m.header.stamp, nanosec=0, sec=m.header.stamp.sec - 60),
    'too_old': lambda m: None,
    'expired': lambda m: shortened(m, 3),
    'start_offset': lambda m: _rows(m, _aside),
    'position_limit': lambda m: _add(m, 10.0, first=15),
    'step_velocity': lambda m: _add(m, 0.5, first=10),
}


# Seconds since the observation: more than max_chunk_age (LENIENT leaves it at 1 s), and more than
# three rows last.
AGES = {'too_old': 1.1, 'expired': 0.5}


@pytest.fixture
def quiet(benches):
    """Return a bench in motion whose source of chunks has just fallen silent."""
    bench = benches()
    bench.drive()
    bench.fault('silent')
    bench.spin(0.4)
    yield bench
    bench.fault('')


def sent(bench, message):
    """Send a chunk; returns the report on it."""
    bench.chunks.publish(message)
    found = []

    def reported():
        found[:] = [r for _, r in bench.witness.reports if r.sequence_id == message.sequence_id]
        return found

    bench.until(reported, 'a report', 20.0)
    return found[0]


def good_chunk(bench, number, age=0.1):
    source = HostileChunks(bench.rng, bench.embodiment, bench.limits, ('left_arm',))
    message = source.message('smooth', bench.robot.now(), bench.robot.place)
    message.sequence_id = number
    ns = time.time_ns() - round(age * 1e9)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 10**9)
    return message


def counts(bench):
    state = bench.witness.state
    return dict(zip(state.rejected_reasons, state.rejected_counts, strict=True))


@pytest.mark.parametrize('reason', SPOILT)
def test_a_spoilt_chunk_is_rejected_whole_and_changes_no_command(quiet, reason):
    bench = quiet
    followed = bench.witness.state.sequence_id
    age = AGES.get(reason, 0.1)
    bench.spin(max(0.0, age - 0.1))  # no chunk has been accepted since it was observed
    message = good_chunk(bench, 10**6, age)
    SPOILT[reason](message)
    report = sent(bench, message)
    assert (report.accepted, report.reason) == (False, reason)
    bench.until(lambda: counts(bench).get(reason), f'{reason} counted in the state', 10.0)
    follows = bench.witness.state.sequence_id
    assert follows in (followed, 0) or follows < 10**6
    bench.witness.forget()
    assert new_violations(bench) == []


def shortened(message, num_rows):
    for part in message.components:
        part.data = list(part.data)[: num_rows * len(part.names)]
    message.num_steps = num_rows
    return message


def test_chunks_are_rejected_while_stopped_and_while_disabled(quiet):
    bench = quiet
    bench.stop()
    report = sent(bench, good_chunk(bench, 10**6 + 1))
    assert (report.accepted, report.reason) == (False, 'stopped')
    bench.reset()
    report = sent(bench, good_chunk(bench, 10**6 + 2))
    assert (report.accepted, report.reason) == (False, 'not_enabled')
    bench.spin(0.3)
    assert not bench.witness.commands['base'][-1].values.any()


def test_every_reason_of_the_contract_is_tried():
    assert {*SPOILT, 'stopped', 'not_enabled'} == {*STATE_REASONS, *CONTENT_REASONS}


# --- what the policy node says ------------------------------------------------------------


def test_a_goal_ends_with_decode_failed_after_a_few_failures(benches):
    bench = benches(real_node=True)
    bench.drive()
    client = ActionClient(bench.node, ExecuteInstruction, '/policy_node/execute_instruction')
    bench.until(client.server_is_ready, 'the action')
    answer = client.send_goal_async(ExecuteInstruction.Goal(instruction='move'))
    bench.until(answer.done, 'the goal accepted')
    assert answer.result().accepted
    bench.spin(0.5)
    bench.fault('decode_error')
    result = answer.result().get_result_async()
    bench.until(result.done, 'the result')
    client.destroy()
    bench.processes.end('policy_node')  # it does nothing more after a goal
    assert result.result().result.error_code == ExecuteInstruction.Result.DECODE_FAILED


def test_the_traceback_of_an_exception_is_in_the_log_once(benches):
    bench = benches(real_node=True)
    bench.drive()
    before = bench.processes.log('policy_node').count('Traceback')
    rows.worker_exception(bench)
    assert bench.processes.log('policy_node').count('Traceback') == before + 1
    bench.processes.end('policy_node')
    bench.fault('')
    bench.witness.forget()


# --- the shipped policy -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_policy_killed_in_simulation_leads_to_rest_at_the_end_of_the_plan():
    graph = r1lite_wbc(auto_enable='false')
    states, arms, ends = [], [], []

    def keep(message, info):
        arms.append((info['source_timestamp'], tuple(message.position)))

    def note_end(message):
        if message.num_steps:
            last = (message.num_steps - 1) * seconds_from_stamp(message.step_period)
            offset = seconds_from_stamp(message.first_step_offset) + last
            ends.append(seconds_from_stamp(message.header.stamp) + offset)

    with (
        Supervisor(
            graph, environment=isolated_environment(DOMAIN), sink=lambda *_: None
        ) as supervisor,
        Session(domain=DOMAIN, name='failures', localhost=True) as session,
    ):
        listen = session.node.create_subscription
        listen(DispatcherState, '/action_dispatcher/state', states.append, LATCHED)
        listen(JointState, COMMANDS['left_arm'][1], keep, EARS)
        listen(ActionChunk, '/policy_node/action_chunk', note_end, 10)
        wait_ready(session, graph, supervisor)
        session.enable(True)
        session.say('pick up the red block')
        assert session.spin_until(lambda: states[-1].action in FOLLOWING, 30.0)
        session.spin(1.0)
        os.kill(supervisor.pid('policy_node'), signal.SIGKILL)
        assert session.spin_until(lambda: states[-1].message == 'the plan is used up', 10.0)
        session.spin(0.5)
    at_rest = [at for at, place in arms if place == arms[-1][1]]
    delay = at_rest[0] * 1e-9 - ends[-1]
    print(f'at rest {delay * 1e3:.0f} ms after the end of the plan')
    assert delay <= 0.06 + LOADED * 1e-3
    assert len(at_rest) > 10
