"""The `execute_instruction` action: one goal at a time, motion only when the goal asks for it.

A policy does not know that it is done: a goal ends by its time limit (success), by a cancel, by
another instruction on the topic, or by a failure with one of the action's error codes.
"""

from __future__ import annotations

import time
from typing import Any, TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_srvs.srv import SetBool
from unique_identifier_msgs.msg import UUID

from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_ros.conversions import duration_from_seconds, seconds_from_stamp

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode

Result = ExecuteInstruction.Result
ENABLE_TIMEOUT = 3.0


class GoalServer:
    """Action server of the policy node; everything runs in the executor's thread."""

    def __init__(self, node: PolicyNode) -> None:
        """Create the action server and the client of the dispatcher's enable service."""
        self._node = node
        group = ReentrantCallbackGroup()
        self._enable = node.create_client(
            SetBool, node.config['enable_service'], callback_group=group
        )
        self._server = ActionServer(
            node,
            ExecuteInstruction,
            '~/execute_instruction',
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
        )
        self.running = False
        self._handle: ServerGoalHandle | None = None
        self._end: Future | None = None
        self._enabling: tuple[Future, float] | None = None

    @property
    def goal_id(self) -> UUID | None:
        """Id of the goal that is carried out, if any."""
        return self._handle.goal_id if self._handle is not None else None

    def destroy(self) -> None:
        """Free the endpoints."""
        self._finish(Result.NOT_ACTIVE, 'the policy node is going down')
        self._server.destroy()
        self._node.destroy_client(self._enable)

    def preempt(self, why: str) -> None:
        """End the running goal because somebody else took over."""
        self._finish(Result.PREEMPTED, why)

    def _on_goal(self, request: Any) -> GoalResponse:
        if self.running:
            self._node.get_logger().warning('goal rejected: another one is running')
            return GoalResponse.REJECT
        self.running = True
        return GoalResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Result:
        node, request = self._node, handle.request
        self._started, self._limit = time.monotonic(), seconds_from_stamp(request.time_limit)
        self._first, self._reported = node.num_published, node.num_published
        self._last_chunk = self._started
        enabled = False
        try:
            if not request.instruction.strip():
                code, text = Result.EMPTY_INSTRUCTION, 'the instruction is empty'
            elif request.enable_motion and (why := await self._set_motion(True)):
                code, text = Result.COMMAND_REJECTED, why
            else:
                enabled = request.enable_motion
                code, text = await self._follow(handle, request.instruction)
        finally:
            self._handle, self._end, self.running = None, None, False
        if enabled and (why := await self._set_motion(False)):
            node.get_logger().error(f'could not disable motion after the goal: {why}')
        result = Result(error_code=code, error_msg=text)
        result.num_chunks = node.num_published - self._first
        result.total_elapsed_time = duration_from_seconds(time.monotonic() - self._started)
        if handle.is_cancel_requested:
            handle.canceled()
        elif code == Result.TIME_LIMIT_REACHED:
            handle.succeed()
        else:
            handle.abort()
        return result

    async def _follow(self, handle: ServerGoalHandle, instruction: str) -> tuple[int, str]:
        node = self._node
        # A goal starts anew, even with the instruction that is being followed.
        node.clear_instruction('a goal starts')
        if why := node.set_instruction(instruction):
            active = 'not active' in why
            return (Result.NOT_ACTIVE if active else Result.UNKNOWN), why
        self._handle, self._end = handle, Future()
        code, text = await self._end
        if code != Result.PREEMPTED:
            node.clear_instruction('the goal ended')
        return code, text

    async def _set_motion(self, on: bool) -> str:
        """Ask the dispatcher; returns why motion is not as wanted, empty if it is."""
        service = self._node.config['enable_service']
        if not self._enable.service_is_ready():
            return f'no service {service}: is the dispatcher running?'
        answer = self._enable.call_async(SetBool.Request(data=on))
        self._enabling = (answer, time.monotonic() + ENABLE_TIMEOUT)
        response = await answer
        self._enabling = None
        if response is None:
            return f'{service} did not answer within {ENABLE_TIMEOUT} s'
        return '' if response.success else f'the dispatcher refused: {response.message}'

    def watch(self) -> None:
        """Publish feedback and end the goal when its time has come; called ten times a second."""
        if self._enabling is not None and time.monotonic() > self._enabling[1]:
            self._enabling[0].set_result(None)
        if self._handle is None:
            return
        node, now = self._node, time.monotonic()
        if node.num_published > self._reported:
            self._reported, self._last_chunk = node.num_published, now
            self._handle.publish_feedback(
                ExecuteInstruction.Feedback(
                    sequence_id=node.sequence_id,
                    elapsed_time=duration_from_seconds(now - self._started),
                    observation_age_ms=node.observation_age_ms,
                    inference_ms=node.durations[-1],
                )
            )
        if self._handle.is_cancel_requested:
            self._finish(Result.PREEMPTED, 'cancelled')
            node.clear_instruction('cancelled')
        elif self._limit > 0 and now - self._started >= self._limit:
            self._finish(Result.TIME_LIMIT_REACHED, '')
        elif node.failures_in_a_row >= node.config['max_decode_failures']:
            self._finish(Result.DECODE_FAILED, node.last_outcome_error)
        elif node.status.faulted:
            self._finish(Result.INFERENCE_FAILED, node.status.message)
        elif now - self._last_chunk > node.config['observation_timeout']:
            self._finish(Result.OBSERVATION_TIMEOUT, node.status.message)

    def _finish(self, code: int, text: str) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result((code, text))
