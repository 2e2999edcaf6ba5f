"""Goals of others at controllers that we command, over DDS with real action servers and clients.

`ExecuteInstruction` stands for `FollowJointTrajectory`, whose package is not on PyPI: the type of
the status topic is the same for every action.
"""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from action_msgs.msg import GoalStatusArray
from action_msgs.srv import CancelGoal
from dispatcher_rig import DOMAIN
from rclpy.action import ActionClient, ActionServer, CancelResponse
from rclpy.action.server import GoalEvent
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from ros_contexts import kept_context, Spinning
from trajectory_msgs.msg import JointTrajectory

from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros import outputs
from faster_vla_ros.interlocks.other_goals import OtherGoals
from faster_vla_ros.outputs.channels import ActionChannel
from faster_vla_ros.outputs.protocol import TRAJECTORY

pytestmark = pytest.mark.ros

TOPIC, ACTION = '/left_controller/joint_trajectory', '/left_controller/follow_joint_trajectory'
STATUS = f'{ACTION}/_action/status'
GOAL = ExecuteInstruction.Goal(instruction='move')


class Controller:
    """An action server with one goal at a time, which a new one replaces.

    The one that is replaced ends as cancelled, as joint_trajectory_controller's does.
    """

    def __init__(self, node):
        self.goals = 0
        self._done = Future()
        self.server = ActionServer(
            node, ExecuteInstruction, ACTION, self._execute, cancel_callback=self._cancel
        )

    async def _execute(self, handle):
        self.finish(replaced=True)
        self.goals += 1
        self._done = Future(executor=handle._action_server._node.executor)
        replaced = await self._done
        if replaced:
            handle._update_state(GoalEvent.CANCEL_GOAL)
        handle.canceled() if handle.is_cancel_requested else handle.succeed()
        return ExecuteInstruction.Result()

    def _cancel(self, handle):
        self.finish()
        return CancelResponse.ACCEPT

    def finish(self, replaced=False):
        """End the goal that is executing."""
        if not self._done.done():
            self._done.set_result(replaced)


def client_of(node):
    return ActionClient(node, ExecuteInstruction, ACTION)


# --- the topic itself ---------------------------------------------------------------------------


class Graph(Spinning):
    """Nodes of two processes: the controller's and the dispatcher's."""

    patience = 90.0

    def __init__(self):
        context = kept_context(DOMAIN)
        self.executor = SingleThreadedExecutor(context=context)
        self.nodes = []
        self.robot, self.ours = self.node('robot'), self.node('action_dispatcher')

    def node(self, name):
        made = Node(name, context=kept_context(DOMAIN), use_global_arguments=False)
        self.nodes.append(made)
        self.executor.add_node(made)
        return made

    def end(self, node):
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def send(self, client):
        """Send a goal and wait until it is accepted; returns its handle."""
        self.until(client.server_is_ready)
        future = client.send_goal_async(GOAL)
        self.until(future.done)
        return future.result()

    def watch(self, is_own=lambda _: False):
        """Return what watches the action, once it knows the server."""
        made = OtherGoals(self.ours, ACTION, is_own)
        self.until(lambda: self.ours.count_publishers(STATUS))
        made.look()
        return made


@pytest.fixture
def graph():
    made = Graph()
    yield made
    made.executor.shutdown()
    for node in made.nodes:
        node.destroy_node()


def test_servers_latch_their_status_where_we_listen(graph):
    controller = Controller(graph.robot)
    (info,) = graph.robot.get_publishers_info_by_topic(STATUS)
    assert info.topic_type == 'action_msgs/msg/GoalStatusArray'
    watch = graph.watch()
    (ours,) = graph.robot.get_subscriptions_info_by_topic(STATUS)
    for policy in ('reliability', 'durability'):
        assert getattr(info.qos_profile, policy) == getattr(ours.qos_profile, policy)
    graph.spin(0.3)
    assert not watch.active
    controller.server.destroy()


def test_a_goal_counts_from_its_acceptance_to_its_end_also_for_who_comes_late(graph):
    controller, client = Controller(graph.robot), client_of(graph.robot)
    graph.send(client)
    graph.until(lambda: controller.goals)
    late = graph.watch()
    graph.until(lambda: late.active)
    controller.finish()
    graph.until(lambda: not late.active)
    heard = []
    later = graph.watch()
    graph.ours.create_subscription(
        GoalStatusArray, STATUS, heard.append, later._subscription.qos_profile
    )
    graph.until(lambda: heard)  # the goal that has ended is still told of
    graph.spin(0.2)
    assert heard[-1].status_list
    assert not later.active
    client.destroy()
    controller.server.destroy()


def test_a_goal_of_our_own_does_not_count_and_one_that_replaces_it_does(graph):
    controller, ours, theirs = (
        Controller(graph.robot),
        client_of(graph.ours),
        client_of(graph.robot),
    )
    failures = []
    channel = ActionChannel(ours, one_at_a_time=False, on_failure=failures.append)
    watch = graph.watch(channel.is_own)
    seen = []
    graph.ours.create_timer(0.01, lambda: seen.append(watch.active))
    graph.until(ours.server_is_ready)
    for number in (1, 2):
        channel.send(GOAL)
        graph.until(lambda n=number: controller.goals == n)
    graph.spin(0.2)
    assert not any(seen)
    graph.send(theirs)
    graph.until(lambda: watch.active)
    assert not failures
    controller.finish()
    for each in (ours, theirs, controller.server):
        each.destroy()


def test_a_controller_that_is_gone_holds_nothing_up_and_one_that_is_left_is_asked_again(graph):
    first, second = graph.node('first'), graph.node('second')
    servers = Controller(first), Controller(second)
    client = client_of(graph.robot)
    watch = graph.watch()
    graph.until(lambda: graph.ours.count_publishers(STATUS) == 2)
    watch.look()
    graph.send(client)
    graph.until(lambda: all(s.goals for s in servers) and watch.active)
    servers[0].server.destroy()
    graph.end(first)
    graph.until(lambda: graph.ours.count_publishers(STATUS) == 1)
    watch.look()
    graph.until(lambda: watch.active)
    servers[1].server.destroy()
    graph.end(second)
    graph.until(lambda: not graph.ours.count_publishers(STATUS))
    watch.look()
    graph.spin(0.2)
    assert not watch.active
    client.destroy()


# --- the dispatcher -----------------------------------------------------------------------------


def ready(rig):
    """Enable and get the base to move."""
    rig.until(lambda: rig.enable().success, 'enabled')
    assert rig.send().accepted
    rig.move_until(lambda: rig.base_speeds and rig.base_speeds[-1] > 0.02)


def test_a_goal_at_the_controller_whose_topic_we_use_takes_over_until_it_ends(make_rig):
    rig = make_rig(left_arm__output='joint_trajectory', left_arm__topic=TOPIC)
    ways = []
    rig.node.create_subscription(JointTrajectory, TOPIC, ways.append, 10)
    controller, client = Controller(rig.node), client_of(rig.node)
    rig.until(client.server_is_ready, 'the controller')
    ready(rig)
    rig.until(lambda: ways, 'trajectories')
    count = len(ways)
    client.send_goal_async(GOAL)
    rig.until(lambda: not rig.state.enabled, 'disabled')
    assert rig.state.message == f'taken over by a goal of somebody else at {ACTION}'
    assert rig.state.action == DispatcherState.ACTION_NONE
    rig.spin(0.3)
    # Neither braked nor replaced: the controller follows the other one.
    assert len(ways) <= count + 1
    assert all(any(w.points[0].velocities) for w in ways[count:])
    speeds = len(rig.base_speeds)
    answer = rig.enable()
    assert not answer.success
    assert ACTION in answer.message
    controller.finish()
    rig.until(lambda: rig.enable().success, 'enabled again')
    assert len(rig.base_speeds) == speeds
    client.destroy()
    controller.server.destroy()


def test_goals_of_others_may_be_tolerated(make_rig):
    rig = make_rig(
        left_arm__output='joint_trajectory', left_arm__topic=TOPIC, takeover__publishers=False
    )
    assert STATUS not in {s.topic_name for s in rig.dispatcher.subscriptions}


class _AsTrajectory:
    """In place of `FollowJointTrajectoryOutput`."""

    KEYS = ('joints',)
    TAKES = TRAJECTORY
    ONE_AT_A_TIME = False
    FAILURE_STOPS = True
    action_type = ExecuteInstruction

    def __init__(self, component, config):
        pass

    def message(self, value, stamp):
        return GOAL

    def leave(self, message, value, seconds):
        assert message is GOAL


@pytest.fixture
def acting(make_rig, monkeypatch):
    """Return rig and controller of an arm that goes out as goals and that moves."""
    monkeypatch.setitem(outputs.OUTPUTS, 'follow_joint_trajectory', _AsTrajectory)
    rig = make_rig(
        left_arm__output='follow_joint_trajectory', left_arm__topic=None, left_arm__action=ACTION
    )
    controller = Controller(rig.node)
    ready(rig)
    rig.move_until(lambda: controller.goals > 2)
    yield rig, controller
    controller.finish()
    rig.spin(0.1)
    controller.server.destroy()


def test_a_goal_of_ours_that_somebody_cancels_stops_the_robot_and_not_that_controller(acting):
    rig, controller = acting
    assert rig.state.enabled  # our own goals are nobody's take-over
    cancel = rig.node.create_client(CancelGoal, f'{ACTION}/_action/cancel_goal')
    rig.until(cancel.service_is_ready, 'the service')
    count = controller.goals
    cancel.call_async(CancelGoal.Request())  # every goal
    rig.until(lambda: rig.state.action == DispatcherState.ACTION_STOP, 'stopped')
    assert 'cancelled by somebody else' in rig.state.message
    rig.until(lambda: rig.base_speeds[-1] == 0.0, 'the base at rest')
    assert controller.goals == count
    assert rig.reset().success
    ready(rig)
    rig.until(lambda: controller.goals > count, 'goals again')


def test_a_controller_that_does_not_answer_stops_the_robot(acting, monkeypatch):
    rig, _ = acting
    monkeypatch.setattr(ActionClient, 'send_goal_async', lambda *_, **__: Future())
    rig.move_until(lambda: rig.state.action == DispatcherState.ACTION_STOP)
    assert 'the controller does not answer' in rig.state.message
    rig.until(lambda: rig.base_speeds[-1] == 0.0, 'the base at rest')


def test_a_foreign_goal_that_replaces_ours_is_a_takeover(acting):
    rig, controller = acting
    theirs = client_of(rig.node)
    rig.until(theirs.server_is_ready, 'the controller')
    theirs.send_goal_async(GOAL)
    rig.until(lambda: not rig.state.enabled, 'disabled')
    assert f'a goal of somebody else at {ACTION}' in rig.state.message
    assert rig.state.action == DispatcherState.ACTION_NONE
    count = controller.goals
    rig.spin(0.3)
    assert controller.goals == count
    # Ours was cancelled by it, which is no failure.
    assert rig.state.action == DispatcherState.ACTION_NONE
    theirs.destroy()
