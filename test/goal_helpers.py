"""A client of `execute_instruction` and the dispatcher's enable service, for tests of goals."""

import threading
import time

from builtin_interfaces.msg import Duration
import policy_node_helpers as h
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool

from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros import qos
from faster_vla_ros.services import service

Result = ExecuteInstruction.Result
SERVICE = '/action_dispatcher/enable'
STATE = '/action_dispatcher/state'


class Client:
    """Sends goals to the policy node of a rig."""

    def __init__(self, rig, patience=h.WAIT, discovery=0.0):
        self.rig, self.feedback = rig, []
        name = '/policy_node/execute_instruction'
        self._client = ActionClient(rig.robot, ExecuteInstruction, name)
        rig.until(self._client.server_is_ready, patience=patience)
        # A server in another process may know us later than we know it: its answer would be lost.
        rig.spin(discovery)

    def send(self, text='grasp the cup', *, limit=0.0, motion=False):
        """Send a goal; returns its handle once it was accepted or refused."""
        goal = ExecuteInstruction.Goal(instruction=text, enable_motion=motion)
        whole = int(limit // 1)
        goal.time_limit = Duration(sec=whole, nanosec=int((limit - whole) * 1e9))
        future = self._client.send_goal_async(
            goal, feedback_callback=lambda m: self.feedback.append(m.feedback)
        )
        self.rig.until(future.done)
        return future.result()

    def result(self, handle):
        """Wait for the end of a goal; returns status and result."""
        future = handle.get_result_async()
        self.rig.until(future.done)
        return future.result().status, future.result().result

    def run(self, text='grasp the cup', **options):
        return self.result(self.send(text, **options))


def start(rig, client, **options):
    """Send a goal and wait until it is being followed."""
    handle = client.send(**options)
    rig.until(lambda: rig.node.instruction)
    return handle


class Dispatcher:
    """The dispatcher's enable service and state, in a thread and an executor of its own."""

    def __init__(self, context, rig):
        self.calls, self.followed, self._rig = [], [], rig
        self.answer, self.delay = (True, ''), 0.0
        self._node = Node('action_dispatcher', context=context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        service(self._node, SetBool, SERVICE, self._on_enable)
        self._state = self._node.create_publisher(DispatcherState, STATE, qos.LATCHED)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _on_enable(self, request, response):
        self.calls.append(request.data)
        self.followed.append(self._rig.node.instruction if self._rig else None)
        time.sleep(self.delay)
        response.success, response.message = self.answer
        return response

    def say(self, enabled, message=''):
        """Say whether motion is enabled, and why not."""
        self._state.publish(DispatcherState(enabled=enabled, message=message))

    def close(self):
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()
