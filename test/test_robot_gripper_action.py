"""The gripper action: through DDS with an action type that is at hand, and control_msgs' fields.

control_msgs is not on PyPI: its types are stand-ins without a wire format here, so what runs over
DDS is the same server with the goals and results of another action.
"""

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from action_msgs.msg import GoalStatus
import control_msgs_stand_in
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_contexts import kept_context
from std_msgs.msg import Float64MultiArray

from faster_core.sim.controllers import GripperResult, JointTrajectoryController
from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_ros.dialects.gripper_action import (
    action_type,
    fill_result,
    GripperAction,
    read_goal,
)
from faster_vla_ros.dialects.joint_port import JointPort

pytestmark = pytest.mark.ros
PATIENT = 20.0


def make_port():
    return JointPort(
        ['finger'],
        'jazzy',
        np.zeros(1),
        lambda joints, position: JointTrajectoryController(joints, 'jazzy', position),
        'parallel',
    )


def read(kind, request):
    return [float(v) for v in request.instruction.split()]


def fill(kind, result, ended):
    result.error_msg = 'none' if ended is None else f'{ended.reached_goal} {ended.stalled}'
    return result


class Rig:
    """A server on a port whose finger the test moves, and a client."""

    def __init__(self):
        context = kept_context(44)
        self.node = Node('gripper', context=context)
        self.lock, self.port = threading.Lock(), make_port()
        self.position, self.blocked_at, self.now = 0.0, np.inf, 0.0
        self.action = GripperAction(
            self.node,
            'parallel',
            'gripper_cmd',
            self.port,
            self.lock,
            lambda: self.now,
            action=ExecuteInstruction,
            read=read,
            fill=fill,
        )
        self.client = ActionClient(self.node, ExecuteInstruction, 'gripper_cmd')
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)

    def cycle(self):
        with self.lock:
            self.now += 0.05
            wanted = self.port.update(self.now, (np.array([self.position]), np.zeros(1)))[0]
            self.action.update()
        step = np.clip(wanted - self.position, -0.01, 0.01)
        self.position = min(self.position + step, self.blocked_at)

    def run_until(self, future):
        deadline = time.monotonic() + PATIENT
        while not future.done():
            assert time.monotonic() < deadline
            self.executor.spin_once(timeout_sec=0.02)
            self.cycle()
        return future.result()

    def send(self, text):
        assert self.client.wait_for_server(PATIENT)
        goal = ExecuteInstruction.Goal(instruction=text)
        return self.run_until(self.client.send_goal_async(goal))

    def outcome(self, handle):
        found = self.run_until(handle.get_result_async())
        return found.status, found.result.error_msg

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


def test_a_goal_succeeds_when_the_finger_is_there(rig):
    status, message = rig.outcome(rig.send('0.05'))
    assert (status, message) == (GoalStatus.STATUS_SUCCEEDED, 'True False')
    assert rig.position == pytest.approx(0.05, abs=0.011)


def test_a_goal_is_aborted_when_the_finger_stalls(rig):
    rig.blocked_at = 0.02
    status, message = rig.outcome(rig.send('0.05'))
    assert (status, message) == (GoalStatus.STATUS_ABORTED, 'False True')


def test_a_goal_with_two_positions_is_rejected(rig):
    assert not rig.send('0.05 0.06').accepted
    assert rig.port.gripper.goal_id == 0


def test_a_newer_goal_aborts_the_one_that_is_under_way(rig):
    rig.blocked_at = 0.02
    first = rig.send('0.05')
    rig.blocked_at = np.inf
    second = rig.send('0.08')
    assert rig.outcome(first)[0] == GoalStatus.STATUS_ABORTED
    assert rig.outcome(second) == (GoalStatus.STATUS_SUCCEEDED, 'True False')


def test_a_cancelled_goal_leaves_the_finger_where_it_is(rig):
    rig.blocked_at = 0.02
    handle = rig.send('0.5')
    for _ in range(3):
        rig.cycle()
    rig.run_until(handle.cancel_goal_async())
    assert rig.outcome(handle)[0] == GoalStatus.STATUS_CANCELED
    assert rig.port.gripper.command == pytest.approx(rig.position, abs=0.011)


def test_another_topic_that_takes_over_aborts_the_goal(rig):
    handle = rig.send('0.5')
    with rig.lock:
        assert rig.port.take_array(Float64MultiArray(data=[0.0])) == ''
    assert rig.outcome(handle)[0] == GoalStatus.STATUS_ABORTED


def test_without_control_msgs_there_is_no_action(monkeypatch):
    monkeypatch.setitem(sys.modules, 'control_msgs', None)
    assert action_type('parallel') is None and action_type('classic') is None


def test_humble_has_no_parallel_gripper_command(monkeypatch):
    control_msgs_stand_in.install(monkeypatch, 'GripperCommand')
    assert action_type('classic') is not None and action_type('parallel') is None


def test_goals_and_results_have_control_msgs_fields(monkeypatch):
    control_msgs_stand_in.install(monkeypatch)
    classic, parallel = action_type('classic').Goal(), action_type('parallel').Goal()
    classic.command.position = 0.03
    parallel.command.position = [0.03]
    assert list(read_goal('classic', classic)) == [0.03]
    assert list(read_goal('parallel', parallel)) == [0.03]
    ended = GripperResult(0.029, reached_goal=True, stalled=False)
    result = fill_result('classic', SimpleNamespace(), ended)
    assert (result.position, result.reached_goal, result.stalled) == (0.029, True, False)
    result = fill_result('parallel', SimpleNamespace(state=SimpleNamespace()), ended)
    assert (result.state.position, result.reached_goal) == ([0.029], True)
    assert vars(fill_result('classic', SimpleNamespace(), None)) == {}
