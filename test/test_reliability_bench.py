"""Bench and witness of docs/reliability.md without processes: a robot is set in motion, judged."""

import os
import sys
import tempfile
import time
import types

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from geometry_msgs.msg import TwistStamped
import numpy as np
from sensor_msgs.msg import JointState
import yaml

from faster_vla_msgs.msg import ActionChunk, ChunkReport, DispatcherState
from faster_vla_ros.conversions import duration_from_seconds, stamp_from_seconds
from faster_vla_ros.guard import PARAMETERS
from scripts.reliability import failures, fuzz_dds, jitter, overhead, rows, soak
from scripts.reliability.bench import (
    Bench,
    BenchError,
    EMBODIMENT,
    ROBOT,
    shipped_guard_timeout,
    TRIALS,
)
from scripts.reliability.motion import BASE_SPEED
from scripts.reliability.observer import read_limits
from scripts.reliability.processes import take_domain
from scripts.reliability.witness import BASE_TOPIC, CHUNKS, COMMANDS, Witness

pytestmark = pytest.mark.ros

PERIOD = 0.02
LIMITS = read_limits(ROBOT, EMBODIMENT)
STATE, REPORT = '/action_dispatcher/state', '/action_dispatcher/chunk_report'


class Wire:
    """A node without DDS: what is said on a topic is heard at once."""

    def __init__(self):
        self._ears, self._now = {}, time.time_ns()

    def create_subscription(self, kind, topic, take, qos):
        self._ears[topic] = take

    def say(self, topic, message):
        self._now += round(PERIOD * 1e9)
        times = {'source_timestamp': self._now, 'received_timestamp': self._now}
        self._ears[topic](message, times)

    def command(self, name, message):
        message.header.stamp = stamp_from_seconds(self._now * 1e-9)
        self.say(COMMANDS[name][1], message)


# --- setting in motion ------------------------------------------------------------------------


class Stubborn(Bench):
    """No processes, no DDS: the dispatcher is disabled so many times before the robot moves."""

    def __init__(self, failures):
        self._failures, self.enabled, self._fifo = failures, 0, 0
        self._wire = Wire()
        self.witness = Witness(self._wire, None, LIMITS, PERIOD)
        self._wire.say(STATE, DispatcherState(action=DispatcherState.ACTION_NONE))

    def enable(self):
        self.enabled += 1

    def until(self, condition, what):
        assert not condition(), f'{what} before anything was said'
        if self.enabled <= self._failures:
            self._wire.say(STATE, DispatcherState(action=DispatcherState.ACTION_STOP))
        else:
            following = DispatcherState(action=DispatcherState.ACTION_FOLLOW, enabled=True)
            command = TwistStamped()
            command.twist.linear.x = BASE_SPEED
            self._wire.say(CHUNKS, ActionChunk())
            self._wire.say(REPORT, ChunkReport(accepted=True))
            self._wire.say(STATE, following)
            self._wire.command('base', command)
        assert condition(), f'no {what}'


@pytest.mark.parametrize('failures', range(TRIALS))
def test_a_robot_that_is_disabled_before_it_moves_is_enabled_again(failures):
    bench = Stubborn(failures)
    bench.set_in_motion()
    assert bench.enabled == failures + 1
    assert bench.witness.moving()


def test_a_robot_that_never_moves_is_an_error_after_a_few_trials():
    bench = Stubborn(TRIALS)
    with pytest.raises(BenchError, match=f'disabled {TRIALS} times before it moved'):
        bench.set_in_motion()
    assert bench.enabled == TRIALS


# --- one measurement in a domain ---------------------------------------------------------------


@pytest.mark.parametrize('measurement', [failures, fuzz_dds, jitter, overhead, soak])
def test_a_second_measurement_in_a_domain_is_refused(measurement, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr(sys, 'argv', ['a measurement', '--domain', '57'])
    with (
        take_domain(57),
        pytest.raises(SystemExit, match=f'process {os.getpid()} measures in ROS domain 57'),
    ):
        measurement.main()
    take_domain(57).close()  # free again


# --- the guard --------------------------------------------------------------------------------


class Started:
    """Processes that are noted and not started."""

    def __init__(self):
        self.started = {}

    def start(self, name, module, **what):
        self.started[name] = (module, what)

    def end(self, name):
        del self.started[name]

    def __contains__(self, name):
        return name in self.started


def test_the_guard_that_is_measured_is_the_one_that_is_shipped():
    bench = Stubborn(0)
    bench.processes = Started()
    bench.set_guard(True)
    assert bench.processes.started == {
        'guard': ('faster_vla_ros.guard', {'files': [ROBOT], 'fifo': 0})
    }
    shipped = yaml.safe_load(ROBOT.read_text(encoding='utf-8'))['/**']['guard']['ros__parameters']
    assert shipped_guard_timeout() == shipped['timeout']
    assert BASE_TOPIC in shipped['topics']


def test_a_dispatcher_wants_to_be_heard_by_the_guard_there_is():
    bench = Stubborn(0)
    bench.processes = Started()
    bench.parameters = {'guard.topic': 'guard/state'}
    bench.witness = types.SimpleNamespace(expect_dispatcher=lambda: None)

    def told():
        bench.start_dispatcher()
        return bench.processes.started['action_dispatcher'][1]['parameters']['guard.topic']

    assert told() == ''
    bench.set_guard(True)
    assert set(bench.processes.started) == {'guard'}  # the dispatcher knew of no guard
    assert told() == 'guard/state'
    bench.set_guard(True)
    assert set(bench.processes.started) == {'guard', 'action_dispatcher'}
    bench.set_guard(False)
    assert not bench.processes.started
    assert told() == ''


def test_a_robot_file_that_leaves_the_time_out_to_the_guard_has_its_default(tmp_path, monkeypatch):
    file = tmp_path / 'robot.yaml'
    file.write_text('/**: {guard: {ros__parameters: {topics: [cmd_vel]}}}')
    monkeypatch.setattr('scripts.reliability.bench.ROBOT', file)
    assert shipped_guard_timeout() == PARAMETERS['timeout'].default


# --- judging ----------------------------------------------------------------------------------

BEFORE, AFTER = np.zeros(6), np.full(6, 1.0)  # rad, far more than a tick's


def nothing(witness, robot):
    pass


def new_dispatcher(witness, robot):
    witness.expect_dispatcher()


def enabled_where_it_stands(witness, robot):
    witness.expect_motion()


def enabled_elsewhere(witness, robot):
    robot.place['left_arm'] = AFTER
    witness.expect_motion()


@pytest.mark.parametrize(
    ('event', 'allowed'),
    [
        (nothing, False),
        (new_dispatcher, True),
        (enabled_where_it_stands, False),
        (enabled_elsewhere, True),
    ],
)
def test_set_points_may_jump_only_where_they_begin_anew(event, allowed):
    wire, robot = Wire(), types.SimpleNamespace(place={})
    robot.go = robot.place.__setitem__
    witness = Witness(wire, robot, LIMITS, PERIOD)
    wire.command('left_arm', JointState(position=BEFORE))
    event(witness, robot)
    wire.say(REPORT, ChunkReport(accepted=True))
    wire.command('left_arm', JointState(position=AFTER))
    witness.forget()
    assert witness.num_judged == 2
    assert (not witness.violations) == allowed, witness.violations
    assert not witness.commands['left_arm']
    assert np.array_equal(robot.place['left_arm'], AFTER)


def test_what_an_ended_dispatcher_said_is_not_taken_for_the_first_words_of_the_next():
    wire = Wire()
    wire._now -= 10**9
    witness = Witness(wire, None, LIMITS, PERIOD)

    def drive(speed):
        command = TwistStamped()
        command.twist.linear.x = speed
        wire.command('base', command)

    witness.expect_dispatcher()
    # Still in our queues when it had ended: it moved, and took a chunk meanwhile.
    for i in range(20):
        drive(0.01 * (i + 1))
    wire.say(STATE, DispatcherState(enabled=True))
    wire.say(REPORT, ChunkReport(accepted=True))
    drive(0.2)
    assert witness.state is None
    wire._now = time.time_ns()
    wire.say(STATE, DispatcherState(enabled=True))
    assert witness.state.enabled
    wire.say(REPORT, ChunkReport(accepted=True))
    drive(0.01)
    witness.forget()
    assert witness.num_judged == 22
    assert witness.violations == []


def test_a_dispatcher_that_speaks_while_it_is_killed_goes_on_and_the_zeros_of_the_guard_may_jump():
    wire = Wire()
    witness = Witness(wire, None, LIMITS, PERIOD)

    def drive(speed):
        command = TwistStamped()
        command.twist.linear.x = speed
        wire.command('base', command)
        return witness.commands['base'][-1].sent_ns

    def killed(bench):
        for i in range(10):
            fault = drive(0.01 * (i + 1))
        last = drive(0.1)
        wire._now = last + round(0.1e9)
        moment = rows.Moment(fault, wire._now)
        drive(0.0)
        return moment

    bench = types.SimpleNamespace(
        witness=witness,
        robot=types.SimpleNamespace(recover=lambda: None),
        drive=lambda guard: None,
        fault=lambda text: None,
    )
    row = rows.Row(name='killed', trigger='timeout', run=killed, guard=True)
    assert rows.measure(bench, row).from_trigger == pytest.approx(PERIOD * 1e3)
    assert witness.num_judged == 12
    assert witness.violations == []


@pytest.mark.parametrize('last_heard', [True, False], ids=['heard', 'sent to the dispatcher only'])
def test_a_plan_ends_with_the_last_row_of_the_chunk_that_was_accepted_last(last_heard):
    wire = Wire()
    witness = Witness(wire, types.SimpleNamespace(place={}), LIMITS, PERIOD)
    timing = {
        'first_step_offset': duration_from_seconds(0.1),
        'step_period': duration_from_seconds(0.05),
    }
    for number, at in ((1, 100.0), (2, 100.5)):
        chunk = ActionChunk(sequence_id=number, num_steps=20, **timing)
        chunk.header.stamp = stamp_from_seconds(at)
        if number == 1 or last_heard:
            wire.say(CHUNKS, chunk)
        report = ChunkReport(sequence_id=number, accepted=True, num_rows=20, header=chunk.header)
        wire.say(REPORT, report)
    refused = ChunkReport(sequence_id=3, accepted=False, num_rows=20)
    wire.say(REPORT, refused)

    assert witness.plan_end_ns() == pytest.approx((100.5 + 0.1 + 19 * 0.05) * 1e9, abs=1e3)
