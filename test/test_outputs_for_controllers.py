"""Outputs for controllers that interpolate by themselves: trajectories, gripper goals, actions."""

import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
import control_msgs_stand_in
from rclpy.task import Future
from robot_files import Publishing

from faster_core.embodiment import Component, Kind
from faster_core.errors import ConfigError
from faster_core.execution.spline import Trajectory
from faster_core.execution.state import Action, Tick
from faster_vla_ros import outputs
from faster_vla_ros.outputs import channels, OutputConfig
from faster_vla_ros.outputs import wire as wire_module
from faster_vla_ros.outputs.channels import ActionChannel
from faster_vla_ros.outputs.wire import Wire

pytestmark = pytest.mark.ros

STAMP = Time(sec=12, nanosec=34)
ARM = Component(name='arm', kind=Kind.JOINT_POSITION, names=('a', 'b'))
GRIPPER = Component(name='gripper', kind=Kind.GRIPPER_POSITION, names=('finger',))
TWO_FINGERS = Component(name='hand', kind=Kind.GRIPPER_POSITION, names=('f1', 'f2'))
BASE = Component(name='base', kind=Kind.TWIST, names=('vx', 'vy', 'wz'))
WAY = Trajectory(
    times=np.array([0.1, 0.25]),
    positions=np.array([[0.1, -0.1], [0.2, -0.2]]),
    velocities=np.array([[1.0, -1.0], [0.0, 0.0]]),
)


@pytest.fixture
def control_msgs(monkeypatch):
    control_msgs_stand_in.install(monkeypatch)


def create(output, component, **config):
    return outputs.create(output, component, OutputConfig(topic='t', action='a', **config))


# --- encoding --------------------------------------------------------------------------------


def test_a_trajectory_has_all_joints_positions_velocities_and_no_stamp():
    message = create('joint_trajectory', ARM, joints=('j1', 'j2')).message(WAY, STAMP)
    assert list(message.joint_names) == ['j1', 'j2']
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
    first, last = message.points
    assert list(first.positions) == [0.1, -0.1]
    assert list(last.velocities) == [0.0, 0.0]
    assert (last.time_from_start.sec, last.time_from_start.nanosec) == (0, 250_000_000)
    assert not first.accelerations
    assert not first.effort


def test_an_offset_moves_positions_and_not_speeds():
    message = create('joint_trajectory', ARM, scale=2.0, offset=1.0).message(WAY, STAMP)
    assert list(message.points[0].positions) == pytest.approx([1.2, 0.8])
    assert list(message.points[0].velocities) == pytest.approx([2.0, -2.0])


@pytest.mark.usefixtures('control_msgs')
def test_the_action_takes_the_same_trajectory():
    goal = create('follow_joint_trajectory', ARM).message(WAY, STAMP)
    assert goal.trajectory == create('joint_trajectory', ARM).message(WAY, STAMP)


@pytest.mark.usefixtures('control_msgs')
def test_what_is_left_of_a_goal_is_what_is_left_of_its_trajectory():
    output, topic = create('follow_joint_trajectory', ARM), create('joint_trajectory', ARM)
    goal, message = output.message(WAY, STAMP), topic.message(WAY, STAMP)
    seconds = float(WAY.times[0]) + 0.001
    output.leave(goal, WAY, seconds)
    topic.leave(message, WAY, seconds)
    assert goal.trajectory == message
    assert len(message.points) == len(WAY.times) - 1
    first = message.points[0]
    assert first.time_from_start.nanosec * 1e-9 == pytest.approx(WAY.times[1] - seconds)
    assert list(first.positions) == WAY.positions[1].tolist()


@pytest.mark.usefixtures('control_msgs')
def test_the_classic_gripper_takes_one_position_and_an_effort():
    goal = create('gripper_command', GRIPPER, scale=2.0, max_effort=5.0).message(
        np.array([0.04]), STAMP
    )
    assert goal.command.position == pytest.approx(0.08)
    assert goal.command.max_effort == 5.0


@pytest.mark.usefixtures('control_msgs')
def test_the_parallel_gripper_takes_names_and_an_effort_only_if_there_is_one():
    goal = create('parallel_gripper_command', GRIPPER, joints=('f',)).message(
        np.array([0.04]), STAMP
    )
    assert list(goal.command.name) == ['f']
    assert list(goal.command.position) == [0.04]
    assert not goal.command.effort
    strong = create('parallel_gripper_command', TWO_FINGERS, max_effort=3.0)
    assert list(strong.message(np.zeros(2), STAMP).command.effort) == [3.0, 3.0]


@pytest.mark.usefixtures('control_msgs')
@pytest.mark.parametrize(
    ('output', 'component'),
    [
        ('joint_trajectory', BASE),
        ('follow_joint_trajectory', BASE),
        ('gripper_command', ARM),
        ('gripper_command', TWO_FINGERS),
        ('parallel_gripper_command', ARM),
    ],
)
def test_what_an_output_cannot_express_is_refused(output, component):
    with pytest.raises(ConfigError, match=rf'{component.name}\.output'):
        create(output, component)


@pytest.mark.parametrize(
    'output', ['follow_joint_trajectory', 'gripper_command', 'parallel_gripper_command']
)
def test_without_control_msgs_an_action_says_what_to_install(output, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'control_msgs', None)
    component = ARM if output == 'follow_joint_trajectory' else GRIPPER
    with pytest.raises(ConfigError, match='ros-<distro>-control-msgs'):
        create(output, component)


def test_an_old_control_msgs_is_told_from_none(monkeypatch):
    control_msgs_stand_in.install(monkeypatch, 'GripperCommand')
    with pytest.raises(ConfigError, match=r'no ParallelGripperCommand: .* Jazzy'):
        create('parallel_gripper_command', GRIPPER)


def test_an_action_wants_a_name_and_a_topic_a_topic():
    assert outputs.keys('gripper_command', 'g')[0] == 'action'
    assert outputs.keys('joint_trajectory', 'a')[0] == 'topic'


# --- goals on their way ----------------------------------------------------------------------


class _Client:
    """An action client whose answers the test gives."""

    def __init__(self, ready=True):
        self.ready, self.goals, self.answers, self.results = ready, [], [], []
        self.cancelled, self.ids, self.handles, self.asked = [], [], [], 0

    def server_is_ready(self):
        return self.ready

    def send_goal_async(self, goal, goal_uuid):
        self.goals.append(goal)
        self.ids.append(bytes(goal_uuid.uuid))
        self.answers.append(Future())
        return self.answers[-1]

    def accept(self, which=-1, accepted=True):
        self.results.append(Future())
        result = self.results[-1]
        goal = self.goals[which]

        def ask():
            self.asked += 1
            return result

        handle = types.SimpleNamespace(
            accepted=accepted,
            status=GoalStatus.STATUS_EXECUTING,
            get_result_async=ask,
            cancel_goal_async=lambda: self.cancelled.append(goal),
        )
        self.handles.append(handle)
        self.answers[which].set_result(handle)

    def finish(self, which=-1, status=GoalStatus.STATUS_SUCCEEDED, text=''):
        result = types.SimpleNamespace(error_string=text)
        self.results[which].set_result(types.SimpleNamespace(status=status, result=result))


@pytest.fixture
def failures():
    return []


def channel(client, failures, *, one_at_a_time=True):
    return ActionChannel(client, one_at_a_time=one_at_a_time, on_failure=failures.append)


def test_one_goal_at_a_time_and_the_newest_of_those_that_wait(failures):
    client = _Client()
    made = channel(client, failures)
    for goal in 'abc':
        made.send(goal)
    assert client.goals == ['a']
    client.accept()
    assert client.goals == ['a']
    client.finish()
    assert client.goals == ['a', 'c']
    assert not failures


def test_a_trajectory_does_not_wait_for_the_one_before(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    made.send('b')
    assert client.goals == ['a', 'b']


def test_a_goal_waits_for_its_server(failures):
    client = _Client(ready=False)
    made = channel(client, failures)
    made.send('a')
    made.poll()
    assert failures == ['there is no server']
    client.ready = True
    made.poll()
    assert client.goals == ['a']
    made.poll()
    assert client.goals == ['a']


def test_a_goal_lost_with_its_server_is_sent_to_the_next_one(failures):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    client.accept()
    client.ready = False  # its result never comes
    made.poll()
    made.poll()
    assert failures == ['there is no server']
    client.ready = True
    made.poll()
    assert client.goals == ['a', 'a']
    client.finish(0)  # an answer of the old one changes nothing
    made.send('b')
    assert client.goals == ['a', 'a']


def test_a_trajectory_without_a_server_fails_and_does_not_go_out_later(failures):
    client = _Client(ready=False)
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    client.ready = True
    made.poll()
    assert not client.goals
    assert failures == ['there is no server']


def test_a_trajectory_lost_with_its_server_fails(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    client.accept()
    client.ready = False
    made.poll()
    made.poll()
    assert failures == ['there is no server']


def test_a_rejected_goal_is_tried_again_after_a_while(failures, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(channels.time, 'perf_counter', lambda: clock[0])
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    client.accept(accepted=False)
    made.poll()
    assert client.goals == ['a']
    clock[0] += channels.RETRY
    made.poll()
    assert client.goals == ['a', 'a']


UNANSWERED = 'the controller does not answer'


def look(made, count=channels.NUM_LOOKS):
    for _ in range(count):
        made.look()
        made.poll()


@pytest.mark.parametrize('newer', [(), ('b',)])
def test_a_goal_that_is_not_answered_is_told_and_sent_again_or_makes_way(failures, newer):
    client = _Client()
    made = channel(client, failures)
    for goal in ('a', *newer):
        made.send(goal)
    look(made, channels.NUM_LOOKS - 1)
    assert client.goals == ['a']
    assert not failures
    look(made, 1)
    assert client.goals == ['a', *(newer or 'a')]
    assert failures == [UNANSWERED]
    client.accept()
    client.finish()
    look(made)
    made.send('c')
    assert client.goals[2:] == ['c']
    assert failures == [UNANSWERED]


def test_a_goal_that_is_accepted_too_late_is_cancelled_and_blocks_nothing(failures):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    made.send('b')
    look(made)
    client.accept(0)
    assert client.cancelled == ['a']
    client.accept(1)
    client.finish()
    made.send('c')
    assert client.goals == ['a', 'b', 'c']


def test_a_goal_that_was_answered_may_take_its_time(failures):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    client.accept()
    look(made, 1000)
    made.send('b')
    assert client.goals == ['a']
    assert not failures


@pytest.mark.parametrize('one_at_a_time', [True, False])
def test_a_goal_of_a_server_that_was_killed_is_told_and_sent_to_its_successor(
    failures, one_at_a_time
):
    servers = {'first'}
    client = _Client()  # stays ready: the dead one is remembered until the next is there
    made = ActionChannel(
        client,
        one_at_a_time=one_at_a_time,
        on_failure=failures.append,
        servers=lambda: frozenset(servers),
    )
    made.send('a')
    client.accept()
    look(made, 1 + channels.NUM_ASKS)
    asked = client.asked
    servers.add('second')
    look(made, 1 + channels.NUM_ASKS)
    assert client.asked - asked == channels.NUM_ASKS
    assert not failures  # it may be another server's
    client.finish(status=GoalStatus.STATUS_UNKNOWN)
    assert failures == ['the controller does not know the goal: it was started anew']
    assert client.goals == (['a', 'a'] if one_at_a_time else ['a'])
    servers.remove('first')
    made.send('b')
    if one_at_a_time:
        client.accept()
        look(made)
        client.finish()
    assert client.goals[-1] == 'b'
    assert len(failures) == 1


def test_a_goal_that_was_cancelled_is_not_missed_when_its_server_is_new(failures):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    client.accept()
    made.cancel()
    client.finish(status=GoalStatus.STATUS_UNKNOWN)
    assert client.goals == ['a']
    assert not failures
    made.send('b')
    assert client.goals == ['a', 'b']


@pytest.mark.parametrize(
    ('status', 'told'),
    [
        (GoalStatus.STATUS_SUCCEEDED, []),
        (GoalStatus.STATUS_ABORTED, ['the goal did not succeed: status 6']),
    ],
)
def test_a_goal_whose_result_is_lost_ends_as_its_status_says(failures, status, told):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    client.accept()
    client.handles[0].status = status
    made.send('b')
    look(made, channels.NUM_LOOKS - 1)
    assert client.goals == ['a']
    look(made, 1)
    assert client.goals == ['a', 'b']
    assert failures == told
    client.finish(0)  # after all
    assert failures == told


def test_a_trajectory_that_is_not_answered_fails(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    look(made, 3)
    made.send('b')
    look(made, channels.NUM_LOOKS - 3)
    assert failures == [UNANSWERED]
    assert client.goals == ['a', 'b']


def test_a_trajectory_that_was_replaced_by_one_that_was_answered_did_not_fail(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    look(made, 3)
    made.send('b')
    client.accept()
    look(made)
    assert not failures


@pytest.mark.parametrize('again', [True, False])
def test_a_goal_is_not_sent_again_once_motion_was_disabled(failures, again):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    made.forget()  # as the wire does in every tick without motion
    for _ in range(channels.NUM_LOOKS + 1):
        made.look()
        if not again:  # motion is not enabled again
            made.forget()
        made.poll()
    assert client.goals == ['a']
    client.accept()
    assert client.cancelled == ['a']


def test_a_cancelled_goal_whose_answer_comes_too_late_is_cancelled_at_its_server(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    made.cancel()
    look(made)
    assert not failures
    client.accept()
    assert client.cancelled == ['a']
    assert client.goals == ['a']


@pytest.mark.parametrize('accepted_before', [True, False])
def test_a_cancelled_goal_is_cancelled_at_its_server_also_if_its_answer_is_still_to_come(
    failures, accepted_before
):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    if accepted_before:
        client.accept()
    made.send('b')
    made.cancel()
    if not accepted_before:
        client.accept()
    assert client.cancelled == ['a']
    client.finish(status=GoalStatus.STATUS_CANCELED)
    assert client.goals == ['a']
    assert not failures


def test_a_goal_nobody_wishes_for_any_more_is_not_sent(failures):
    client = _Client(ready=False)
    made = channel(client, failures)
    made.send('a')
    made.forget()
    client.ready = True
    made.poll()
    assert not client.goals


def test_a_rejected_goal_is_told_and_does_not_block_the_next(failures):
    client = _Client()
    made = channel(client, failures)
    made.send('a')
    made.send('b')
    client.accept(accepted=False)
    assert failures == ['the goal was rejected']
    assert client.goals == ['a', 'b']


def test_a_trajectory_that_is_rejected_ends_the_one_before_too(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    client.accept()
    made.send('b')
    client.accept(accepted=False)
    assert failures == ['the goal was rejected']
    assert client.cancelled == ['a']
    client.results[0].set_result(
        types.SimpleNamespace(
            status=GoalStatus.STATUS_CANCELED, result=types.SimpleNamespace(error_string='')
        )
    )
    assert not made.taken
    assert len(failures) == 1


def test_a_goal_that_fails_is_told_with_the_controllers_words(failures):
    client = _Client()
    channel(client, failures).send('a')
    client.accept()
    client.finish(status=GoalStatus.STATUS_ABORTED, text='path tolerance violated')
    assert failures == ['the goal did not succeed: path tolerance violated']


def test_a_goal_somebody_else_cancelled_failed(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    client.accept()
    client.finish(status=GoalStatus.STATUS_CANCELED)
    assert failures == ['the goal did not succeed: cancelled by somebody else']
    assert made.taken
    made.send('b')
    assert not made.taken


def test_a_goal_of_ours_is_known_by_its_id_as_soon_as_it_is_sent(failures):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    for _ in range(3):
        made.send('a')
    assert len(set(client.ids)) == 3
    assert all(made.is_own(i) for i in client.ids)
    assert not made.is_own(bytes(16))


@pytest.mark.parametrize('status', [GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED])
def test_a_goal_that_was_replaced_did_not_fail(failures, status):
    client = _Client()
    made = channel(client, failures, one_at_a_time=False)
    made.send('a')
    client.accept(0)
    made.send('b')
    client.accept(1)
    client.finish(0, status=status)
    assert not failures
    assert not made.taken
    client.finish(1, status=status)
    assert failures


# --- the wire --------------------------------------------------------------------------------


class _Robot:
    action = (ARM, GRIPPER, BASE)


@pytest.fixture
def rig(monkeypatch, control_msgs):
    client = _Client()
    monkeypatch.setattr(wire_module, 'ActionClient', lambda *_: client)
    config = OutputConfig(topic='way', action='grip', deadband=0.004)
    node, told = Publishing(), []
    made = Wire(
        node,
        _Robot,
        {
            'arm': (outputs.create('joint_trajectory', ARM, config), config),
            'gripper': (outputs.create('gripper_command', GRIPPER, config), config),
        },
        lambda *failure: told.append(failure),
    )
    return types.SimpleNamespace(node=node, client=client, wire=made, told=told)


def tick(gripper, *, way=None, action=Action.FOLLOW, enabled=True):
    silent = gripper is None
    value = None if silent else np.array([gripper])
    return Tick(
        commands={'arm': None if silent else np.zeros(2), 'gripper': value, 'base': None},
        goals={'arm': None if silent else np.zeros(2), 'gripper': value},
        trajectories={} if way is None else {'arm': way},
        state=types.SimpleNamespace(action=action, enabled=enabled and action is not Action.STOP),
    )


def test_a_trajectory_goes_out_only_when_there_is_a_new_one(rig):
    rig.wire.send(tick(0.05, way=WAY), STAMP)
    rig.wire.send(tick(0.05), STAMP)
    assert [topic for topic, _ in rig.node.log] == ['way']


def test_a_gripper_gets_a_goal_when_it_differs_by_more_than_the_deadband(rig):
    for position in (0.05, 0.0505, 0.053, 0.0545):
        rig.wire.send(tick(position), STAMP)
    rig.client.accept()
    rig.client.finish()
    assert [g.command.position for g in rig.client.goals] == pytest.approx([0.05, 0.0545])


def test_after_silence_the_first_goal_is_sent_even_if_it_is_the_same(rig):
    rig.wire.send(tick(0.05), STAMP)
    rig.client.accept()
    rig.client.finish()
    rig.wire.send(tick(None), STAMP)
    rig.wire.send(tick(0.05), STAMP)
    assert len(rig.client.goals) == 2


def test_a_failed_gripper_goal_is_told_by_component_and_stops_nothing(rig):
    rig.wire.send(tick(0.05), STAMP)
    rig.client.accept(accepted=False)
    assert rig.told == [('gripper', 'gripper (grip): the goal was rejected', False)]


def test_a_stop_cancels_the_grippers_goal_and_sends_no_other_until_motion_goes_on(rig):
    rig.wire.send(tick(0.02), STAMP)
    rig.client.accept()
    for _ in range(3):
        rig.wire.send(tick(0.045, action=Action.STOP), STAMP)
    assert [g.command.position for g in rig.client.cancelled] == [0.02]
    rig.client.finish(status=GoalStatus.STATUS_CANCELED)
    rig.wire.send(tick(0.045, action=Action.STOP), STAMP)
    rig.wire.send(tick(0.045, action=Action.NONE, enabled=False), STAMP)  # after a reset
    assert len(rig.client.goals) == 1
    rig.wire.send(tick(0.02), STAMP)
    assert [g.command.position for g in rig.client.goals] == [0.02, 0.02]


@pytest.mark.usefixtures('control_msgs')
def test_a_controller_that_somebody_else_took_is_not_told_to_brake(monkeypatch):
    client, config = _Client(), OutputConfig(action='arm_controller/follow_joint_trajectory')
    monkeypatch.setattr(wire_module, 'ActionClient', lambda *_: client)
    arm = outputs.create('follow_joint_trajectory', ARM, config)
    made = Wire(Publishing(), _Robot, {'arm': (arm, config)})
    made.send(tick(0.0, way=WAY), STAMP)
    client.accept()
    client.finish(status=GoalStatus.STATUS_CANCELED)
    made.send(tick(0.0, way=WAY, action=Action.STOP), STAMP)
    assert len(client.goals) == 1
    made.send(tick(0.0, way=WAY), STAMP)  # enabled again
    client.accept()
    client.finish(status=GoalStatus.STATUS_ABORTED)
    made.send(tick(0.0, way=WAY, action=Action.STOP), STAMP)
    assert len(client.goals) == 3
    assert all(made.is_own_goal(i) for i in client.ids)
    assert not made.is_own_goal(bytes(16))


@pytest.mark.usefixtures('control_msgs')
@pytest.mark.parametrize(
    ('output', 'component', 'name', 'expected'),
    [
        ('joint_trajectory', ARM, '/c/joint_trajectory', ('/c/joint_trajectory', True)),
        (
            'follow_joint_trajectory',
            ARM,
            '/c/follow_joint_trajectory',
            ('/c/joint_trajectory', True),
        ),
        ('joint_trajectory', ARM, '/c/way', ('/c/way', False)),
        ('joint_state_stream', ARM, '/c/joint_trajectory', ('/c/joint_trajectory', False)),
        ('gripper_command', GRIPPER, '/c/gripper_cmd', ('', '/c/gripper_cmd')),
    ],
)
def test_a_trajectory_controller_is_commanded_by_its_topic_and_by_its_action(
    output, component, name, expected
):
    topic, action = expected
    action = '/c/follow_joint_trajectory' if action is True else action
    found = outputs.ways_in(create(output, component), name)
    assert found == ((topic,) if topic else (), (action,) if action else ())


def test_an_action_without_server_is_named(rig):
    assert not rig.wire.without_server
    rig.client.ready = False
    assert rig.wire.without_server == ('grip',)
