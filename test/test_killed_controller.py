"""A controller that is killed while it follows a goal of ours, and started again, through DDS.

The process that was killed counts as ready until its successor is found and for some time after.
control_msgs is not on PyPI; what is lost and sent again does not depend on the action's type.
"""

import os
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('faster_vla_msgs')

from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_contexts import kept_context

from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_ros.outputs.channels import ActionChannel, servers_of

pytestmark = pytest.mark.ros
DOMAIN = 44
PATIENT = 40.0
ACTION = '/hand/gripper_cmd'
# Accepts every goal, says so, and follows it for ever.
SERVER = f"""
import time, rclpy
from rclpy.action import ActionServer
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from faster_vla_msgs.action import ExecuteInstruction

def follow(goal):
    print(goal.request.instruction, flush=True)
    time.sleep(600)

rclpy.init()
node = Node('controller')
ActionServer(node, ExecuteInstruction, {ACTION!r}, follow)
executor = MultiThreadedExecutor(2)
executor.add_node(node)
executor.spin()
"""


class _Controller:
    def __init__(self, log):
        self.log = log
        with log.open('w') as out:
            self.process = subprocess.Popen(
                [sys.executable, '-c', SERVER],
                stdout=out,
                env=os.environ | {'ROS_DOMAIN_ID': str(DOMAIN)},
            )

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def controllers(tmp_path):
    made = []

    def start():
        made.append(_Controller(tmp_path / f'{len(made)}.log'))
        return made[-1]

    yield start
    for controller in made:
        controller.kill()


def test_the_goal_goes_to_the_successor(controllers):
    node = Node('arm', context=kept_context(DOMAIN))
    client = ActionClient(node, ExecuteInstruction, ACTION)
    failures = []
    channel = ActionChannel(
        client,
        one_at_a_time=True,
        on_failure=failures.append,
        servers=lambda: servers_of(node, ACTION),
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def followed(log, text):
        end = time.monotonic() + PATIENT
        looked = time.monotonic()
        while text not in log.read_text() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.02)
            channel.poll()
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                channel.look()
        return text in log.read_text()

    try:
        first = controllers()
        channel.send(ExecuteInstruction.Goal(instruction='close'))
        assert followed(first.log, 'close'), failures
        for _ in range(10):  # the answer comes
            executor.spin_once(timeout_sec=0.05)
        first.kill()
        told = len(failures)
        second = controllers()
        assert followed(second.log, 'close'), failures
        # That it was started anew, that it did not answer or was gone: as discovery goes.
        assert failures[told:]
    finally:
        executor.shutdown()
        client.destroy()
        node.destroy_node()
