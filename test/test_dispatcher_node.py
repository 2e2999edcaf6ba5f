"""The dispatcher on the wire: what comes in and goes out, in the vendor's topics and units."""

import itertools
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from dispatcher_rig import (
    ARM,
    BASE_SPEED,
    COMMANDS,
    EMBODIMENT,
    FEEDBACK,
    GRIPPER,
    LATCHED,
    make_node,
    make_values,
    not_a_number,
)
import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros.conversions import stamp_from_seconds

pytestmark = pytest.mark.ros


@pytest.fixture
def rig(make_rig):
    return make_rig()


# --- what goes out ----------------------------------------------------------------------------


def test_an_accepted_chunk_moves_all_components_in_the_vendors_units(rig):
    rig.drive()
    rig.move_until(lambda: rig.sent['left_gripper'][-1][0].position[0] == pytest.approx(20.0))
    rig.move_until(lambda: rig.sent['left_arm'][-1][0].position[0] > ARM[0] + 0.05)
    arm = rig.sent['left_arm'][-1][0]
    assert arm.position[1:] == pytest.approx(ARM[1:], abs=1e-6)
    assert list(arm.name) == [f'joint{i}' for i in range(1, 7)]
    assert rig.sent['right_arm'][-1][0].position == pytest.approx(ARM, abs=1e-6)
    assert rig.sent['right_gripper'][-1][0].position == pytest.approx([GRIPPER * 1000], abs=1e-3)
    base = rig.sent['base'][-1][0]
    assert base.header.frame_id == 'base_link'
    assert base.header.stamp.sec > 0
    assert base.twist.linear.x == pytest.approx(BASE_SPEED, abs=0.15)
    torso = rig.sent['torso'][-1][0].twist
    assert (torso.linear.x, torso.linear.z, torso.angular.y, torso.angular.z) == (0, 0, 0, 0)


def test_commands_start_where_the_robot_is_measured_and_not_at_the_first_row(rig):
    rig.drive()
    first = rig.sent['left_arm'][0][0]
    assert first.position == pytest.approx(ARM, abs=0.02)
    assert rig.sent['left_gripper'][0][0].position[0] == pytest.approx(GRIPPER * 1000, abs=10.0)
    assert rig.base_speeds[0] == pytest.approx(0.0, abs=0.02)


def test_the_report_on_a_chunk_precedes_its_first_command(rig):
    rig.drive()
    _, reported = rig.reports[0]
    assert all(at > reported for sent in rig.sent.values() for _, at in sent)


def test_a_report_carries_the_stamp_of_its_chunk_and_counts_late_rows(rig):
    rig.enable_when_ready()
    now = rig.node.get_clock().now().nanoseconds * 1e-9
    message = rig.message(stamp=now - 0.3)
    report = rig.send(message)
    assert report.accepted, report.reason
    assert report.header.stamp == message.header.stamp
    assert report.num_rows == EMBODIMENT.action_horizon
    assert report.num_rows_dropped >= 4  # due 0.3 s after the observation at 15 Hz


def test_a_command_follows_a_chunk_without_waiting_for_the_next_tick(make_rig):
    rig = make_rig(dispatch_rate=0.5)
    rig.enable_when_ready()
    for _ in range(2):
        assert rig.send().accepted
        _, reported = rig.reports[-1]
        rig.until(lambda at=reported: rig.sent['left_arm'] and rig.sent['left_arm'][-1][1] > at)
        first = next(at for _, at in rig.sent['left_arm'] if at > reported)
        assert first - reported < 0.5e9  # the period is 2 s


def test_without_enable_nothing_is_sent(rig):
    rig.until(rig.connected)
    report = rig.send()
    rig.spin(0.3)
    assert (report.accepted, report.reason) == (False, 'not_enabled')
    assert not any(rig.sent.values())
    assert not rig.state.enabled


def test_without_require_enable_motion_starts_by_itself_once_there_is_feedback(make_rig):
    rig = make_rig(require_enable=False)
    rig.until(lambda: rig.connected() and rig.state.enabled)
    rig.move_until(lambda: rig.base_speeds and rig.base_speeds[-1] > 0.05)


def test_a_plan_that_is_used_up_holds_positions_and_zeroes_velocities(rig):
    rig.enable_when_ready()
    assert rig.send(rig.message(values=make_values()[:6])).accepted
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_HOLD)
    rig.until(lambda: len(rig.base_speeds) > 5 and not any(rig.base_speeds[-5:]))
    arms = [tuple(m.position) for m, _ in rig.sent['left_arm'][-5:]]
    assert len(set(arms)) == 1
    assert arms[0][0] > ARM[0]
    assert rig.state.message == 'the plan is used up'


def test_a_chunk_without_rows_drops_the_plan_and_is_reported_with_none(rig):
    rig.drive()
    now = rig.node.get_clock().now().nanoseconds * 1e-9
    report = rig.send(rig.message(values=make_values()[:0], stamp=now))
    assert (report.accepted, report.num_rows) == (True, 0)
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_HOLD)
    rig.until(lambda: rig.base_speeds[-1] == 0.0)


# --- chunks that are refused --------------------------------------------------------------------


def _nan(message):
    message.components[5].data[3] = float('nan')


def _other_embodiment(message):
    message.embodiment_checksum = 'f' * 64


def _missing_values(message):
    message.components[0].data = message.components[0].data[:-1]


def _swapped_names(message):
    message.components[0].names = list(reversed(message.components[0].names))


def _other_frame(message):
    message.components[5].frame_id = 'odom'


def _far_away(message):
    message.components[0].data = (np.asarray(message.components[0].data) + 0.4).tolist()


def _too_fast(message):
    message.components[5].data = (np.asarray(message.components[5].data) * 10.0).tolist()


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (_nan, 'not_finite'),
        (_other_embodiment, 'embodiment_mismatch'),
        (_missing_values, 'bad_shape'),
        (_swapped_names, 'bad_names'),
        (_other_frame, 'bad_frame'),
        (_far_away, 'start_offset'),
        (_too_fast, 'step_velocity'),
    ],
)
def test_a_refused_chunk_moves_nothing_and_its_reason_is_counted(rig, spoil, reason):
    rig.enable_when_ready()
    message = rig.message()
    spoil(message)
    report = rig.send(message)
    assert (report.accepted, report.reason, report.num_rows) == (False, reason, 32)
    rig.until(lambda: rig.state.num_chunks_rejected == 1)
    counts = dict(zip(rig.state.rejected_reasons, rig.state.rejected_counts, strict=True))
    assert counts == {reason: 1}
    assert not any(rig.sent.values())


def test_more_bad_chunks_in_a_row_than_tolerated_stop_the_robot(make_rig):
    rig = make_rig(consecutive_violation_threshold=1)
    rig.drive()
    for _ in range(2):
        message = rig.message()
        _nan(message)
        assert rig.send(message).reason == 'not_finite'
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert 'base' in rig.state.components
    rig.until(lambda: rig.base_speeds[-1] == 0.0)


def test_the_bad_chunk_that_is_one_too_many_stops_without_waiting_for_the_next_tick(make_rig):
    rig = make_rig(consecutive_violation_threshold=0, dispatch_rate=0.5)
    rig.enable_when_ready()
    assert rig.send().accepted
    message = rig.message()
    _nan(message)
    begun = time.monotonic()
    assert rig.send(message).reason == 'not_finite'
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert time.monotonic() - begun < 1.0  # the period is 2 s


# --- enable, stop, reset ------------------------------------------------------------------------


def test_enable_is_refused_until_all_positions_are_measured(rig):
    rig.measured['right_gripper'] = None
    rig.until(rig.connected)
    rig.spin(0.3)
    answer = rig.enable()
    assert not answer.success
    assert 'right_gripper' in answer.message
    assert 'left_arm' not in answer.message


def test_after_a_stop_the_latching_chassis_gets_zeros_while_the_rest_falls_silent(make_rig):
    rig = make_rig(stop_pub_timeout=0.2)
    rig.drive()
    assert rig.stop().success
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert not rig.state.enabled
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    rig.spin(0.6)
    arms, torsos, bases = (len(rig.sent[n]) for n in ('left_arm', 'torso', 'base'))
    rig.spin(0.6)
    assert (len(rig.sent['left_arm']), len(rig.sent['torso'])) == (arms, torsos)
    assert len(rig.sent['base']) > bases + 5
    assert not any(rig.base_speeds[bases:])


def test_a_stop_decelerates_within_the_limits_of_the_base(rig):
    rig.drive(0.15)
    rig.stop()
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    assert 0.9 < rig.hardest_braking() <= 1.01


def test_a_tick_that_stands_still_in_its_middle_counts_as_one_silence(make_rig, monkeypatch):
    rig = make_rig()
    rig.drive(0.15)
    authority, stalls = rig.dispatcher._authority, [0.2]
    begin = authority.next_tick

    def begin_slowly():
        begin()
        if stalls:
            time.sleep(stalls.pop())

    monkeypatch.setattr(authority, 'next_tick', begin_slowly)
    count = len(rig.base_speeds)
    rig.move_until(lambda: len(rig.base_speeds) > count + 5 and rig.base_speeds[-1] > 0.15)
    assert not stalls
    assert min(rig.base_speeds[count:]) < 0.15  # it did brake
    assert rig.hardest_braking() <= 1.01


def test_a_stop_is_latched_until_reset_and_reset_does_not_enable(rig):
    rig.drive()
    rig.stop()
    refused = rig.enable()
    assert not refused.success
    assert 'reset' in refused.message
    assert rig.send().reason == 'stopped'
    assert rig.reset().success
    assert rig.send().reason == 'not_enabled'
    assert rig.enable().success
    assert rig.send().accepted


def test_disable_brings_the_base_to_zero_and_chunks_are_refused(rig):
    rig.drive()
    assert rig.enable(False).success
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    assert rig.send().reason == 'not_enabled'
    assert rig.state.action == DispatcherState.ACTION_NONE


def test_the_chassis_brake_is_released_by_enable_and_not_before(rig):
    rig.until(rig.connected)
    rig.until(lambda: rig.node.count_publishers('/motion_target/brake_mode'))
    rig.spin(0.3)
    assert not rig.brake
    rig.enable_when_ready()
    rig.until(lambda: rig.brake)
    rig.spin(0.3)
    assert [m.data for m in rig.brake] == [False]


# --- feedback -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'spoil',
    [lambda values: None, not_a_number, lambda values: [*values, 0.0]],
    ids=['stalled', 'not finite', 'wrong size'],
)
def test_feedback_that_cannot_be_used_stops_the_robot(make_rig, spoil):
    rig = make_rig(feedback_timeout=1.5)
    rig.drive()
    rig.measured['left_gripper'] = spoil(rig.measured['left_gripper'])
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert rig.state.message == 'feedback_stale'
    assert list(rig.state.components) == ['left_gripper']
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    assert not rig.reset().success
    rig.measured['left_gripper'] = [GRIPPER * 1000]
    rig.until(lambda: rig.reset().success)


class _Driver:
    """Publishes the left gripper's position with stamps that the test gives."""

    def __init__(self, rig, stamp):
        rig.measured['left_gripper'] = None
        self.stamp = stamp
        self._publisher = rig.node.create_publisher(JointState, FEEDBACK['left_gripper'], 5)
        rig.node.create_timer(0.02, self._publish)

    def _publish(self):
        message = JointState(position=[GRIPPER * 1000])
        message.header.stamp = stamp_from_seconds(self.stamp())
        self._publisher.publish(message)


def test_feedback_whose_stamps_run_back_stops_the_robot_and_is_counted(make_rig):
    rig, heard = make_rig(feedback_timeout=1.5), []
    rig.node.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    stamps = itertools.count(0.0, 0.02)
    driver = _Driver(rig, lambda: 500.0 + next(stamps))
    rig.drive()
    driver.stamp = lambda: 500.0 - next(stamps)
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert (rig.state.message, list(rig.state.components)) == ('feedback_stale', ['left_gripper'])
    heard.clear()
    rig.until(lambda: len(heard) > 1)
    (feedback,) = [s for s in heard[-1].status if s.name == 'action_dispatcher: feedback']
    assert feedback.level == DiagnosticStatus.WARN
    refused = {v.key: int(v.value) for v in feedback.values}
    assert refused.pop('refused/left_gripper') > 10
    assert refused == {f'refused/{n}': 0 for n in ('left_arm', 'right_arm', 'right_gripper')}
    # Its clock was set back, it turns out: it goes on from there.
    assert not rig.reset().success
    driver.stamp = lambda: 300.0 + next(stamps)
    rig.until(lambda: rig.reset().success)


class _SimulatedTime:
    """Tells the time from `zero` on, and feedback by it."""

    def __init__(self, rig):
        self.zero, self._start = 5000.0, time.monotonic()
        clock = rig.node.create_publisher(Clock, '/clock', 10)
        _Driver(rig, self.now)
        rig.node.create_timer(
            0.01, lambda: clock.publish(Clock(clock=stamp_from_seconds(self.now())))
        )

    def now(self):
        return self.zero + time.monotonic() - self._start


def test_when_the_clock_is_set_back_feedback_counts_again_at_once(make_rig):
    rig = make_rig(use_sim_time=True, feedback_timeout=1000.0)
    clock = _SimulatedTime(rig)
    rig.enable_when_ready()
    clock.zero = 100.0  # a simulation that begins anew
    rig.until(lambda: not rig.state.enabled)
    assert rig.state.message == 'the clock was set back: enable again'
    rig.until(lambda: rig.enable().success)


def test_a_clock_that_is_set_back_is_acted_on_without_waiting_for_the_next_tick(make_rig):
    rig = make_rig(use_sim_time=True, feedback_timeout=1000.0, dispatch_rate=0.5)
    clock = _SimulatedTime(rig)
    rig.enable_when_ready()
    rig.spin(0.2)
    clock.zero, begun = 100.0, time.monotonic()
    rig.until(lambda: not rig.state.enabled)
    assert time.monotonic() - begun < 1.0  # the period is 2 s


# --- emergency stop -----------------------------------------------------------------------------


def test_the_emergency_stop_stops_and_its_release_alone_does_not_reset(make_rig):
    rig = make_rig(estop__enable=True)
    button = rig.node.create_publisher(Bool, 'estop', 1)
    rig.drive()
    rig.until(button.get_subscription_count)
    button.publish(Bool(data=True))
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert rig.state.message == 'estop'
    rig.until(lambda: rig.base_speeds[-1] == 0.0)
    refused = rig.reset()
    assert not refused.success
    assert 'estop' in refused.message
    button.publish(Bool(data=False))
    rig.spin(0.3)
    assert rig.state.action == DispatcherState.ACTION_STOP
    rig.until(lambda: rig.reset().success)


def test_the_emergency_stop_does_not_wait_for_the_next_tick(make_rig):
    rig = make_rig(estop__enable=True, dispatch_rate=0.5)
    button = rig.node.create_publisher(Bool, 'estop', 1)
    rig.enable_when_ready()
    assert rig.send().accepted
    rig.until(button.get_subscription_count)
    begun = time.monotonic()
    button.publish(Bool(data=True))
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert time.monotonic() - begun < 1.0  # the period is 2 s


def test_a_silent_emergency_stop_stops(make_rig):
    rig = make_rig(estop__enable=True, estop__timeout=2.0)
    button = rig.node.create_publisher(Bool, 'estop', 1)
    timer = rig.node.create_timer(0.05, lambda: button.publish(Bool(data=False)))
    rig.drive()
    timer.cancel()
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert rig.state.message == 'estop_silent'


# --- what it says about itself ------------------------------------------------------------------


def test_a_late_subscriber_gets_the_state(rig):
    rig.enable_when_ready()
    heard = []
    rig.node.create_subscription(
        DispatcherState, '/action_dispatcher/state', heard.append, LATCHED
    )
    rig.until(lambda: heard)
    assert heard[0].enabled


def test_what_is_sent_is_shown_as_planned(rig):
    planned = []
    rig.node.create_subscription(ActionChunkMsg, '/action_dispatcher/planned', planned.append, 50)
    rig.drive()
    rig.until(lambda: planned)
    names = [c.name for c in planned[-1].components]
    assert names == list(COMMANDS)
    assert planned[-1].components[1].data[0] == pytest.approx(GRIPPER, abs=0.04)  # SI
    assert planned[-1].num_steps == 1


def test_a_dry_run_computes_and_reports_but_commands_nothing(make_rig):
    rig = make_rig(dry_run=True)
    planned = []
    rig.node.create_subscription(ActionChunkMsg, '/action_dispatcher/planned', planned.append, 50)
    rig.until(lambda: rig.states and rig.enable().success)
    assert rig.send().accepted
    rig.move_until(lambda: planned and planned[-1].components[5].data[0] > 0.05)
    rig.dispatcher.leave()
    rig.spin(0.2)
    assert not any(rig.sent.values())
    assert not rig.brake
    names = {
        name
        for name, _ in rig.dispatcher.get_publisher_names_and_types_by_node(
            'action_dispatcher', '/'
        )
    }
    assert '/action_dispatcher/planned' in names
    assert not {n for n in names if n.startswith('/motion_target')}


def test_diagnostics_name_the_state_the_rejections_and_the_punctuality(rig):
    heard = []
    rig.node.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    rig.until(rig.connected)
    assert rig.send().reason == 'not_enabled'
    rig.sequence_id += 4
    assert rig.send().reason == 'not_enabled'
    rejections = {}

    def told():
        for status in [s for array in heard for s in array.status]:
            if status.name == 'action_dispatcher: chunks':
                rejections.update({v.key: v.value for v in status.values})
        return rejections.get('rejected/not_enabled') == '2'

    rig.until(told)
    assert rejections == {'accepted': '0', 'missing': '4', 'rejected/not_enabled': '2'}
    names = {s.name.partition(': ')[2]: s for s in heard[-1].status}
    assert set(names) == {'state', 'chunks', 'feedback', 'tick'}
    assert {v.key for v in names['tick'].values} == {'mean_ms', 'p99_ms', 'max_ms'}
    assert names['state'].hardware_id == 'r1_lite'


def test_in_a_namespace_diagnostics_are_those_of_the_namespace(make_rig):
    rig, heard = make_rig(dispatcher=False), []
    rig.node.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    rig.dispatcher = make_node(rig.context, namespace='left/robot')
    rig.executor.add_node(rig.dispatcher)
    rig.dispatcher.configure()
    rig.until(lambda: heard)
    assert {s.hardware_id for s in heard[-1].status} == {'left/robot'}


def test_parameters_cannot_change_while_it_runs(rig):
    client = rig.node.create_client(SetParameters, '/action_dispatcher/set_parameters')
    rig.until(client.service_is_ready)
    change = Parameter('base.max_velocity', value=[9.0, 9.0, 9.0]).to_parameter_msg()
    future = client.call_async(SetParameters.Request(parameters=[change]))
    rig.until(future.done)
    assert not future.result().results[0].successful
    assert 'base.max_velocity' in future.result().results[0].reason
