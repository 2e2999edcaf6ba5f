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
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
        )
        # From acceptance until motion is disabled again.
        self.running = False
        self._handle: ServerGoalHandle | None = None
        self._end: Future | None = None
        self._enabling: tuple[Future, float] | None = None

    @property
    def goal_id(self) -> UUID | None:
        """Id of the goal that is carried out, if any."""
        handle, end = self._handle, self._end
        return None if handle is None or end is None or end.done() else handle.goal_id

    def destroy(self) -> None:
        """Free the endpoints; `running` should be False."""
        self._server.destroy()
        self._node.destroy_client(self._enable)

    def preempt(self, why: str) -> None:
        """End the running goal because somebody else took over."""
        self._finish(Result.PREEMPTED, why)

    def end(self, why: str) -> None:
        """End the running goal because the node is not active any more."""
        self._finish(Result.NOT_ACTIVE, why)

    def _on_goal(self, request: Any) -> GoalResponse:
        if self.running:
            self._node.get_logger().warning('goal rejected: another one is running')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        self.running, self._end = True, Future()
        handle.execute()

    async def _execute(self, handle: ServerGoalHandle) -> Result:
        node, self._handle = self._node, handle
        self._started = self._last_chunk = time.monotonic()
        self._limit = seconds_from_stamp(handle.request.time_limit)
        self._first = self._reported = node.num_published
        try:
            code, text = await self._carry_out(handle.request)
        finally:
            self._handle, self._end, self.running = None, None, False
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

    async def _carry_out(self, request: ExecuteInstruction.Goal) -> tuple[int, str]:
        if refusal := self._refusal(request):
            return refusal
        # A goal starts anew, even with the instruction that is being followed; and nothing is
        # being followed at the moment motion is enabled.
        self._node.clear_instruction('a goal starts')
        if not request.enable_motion:
            return await self._follow(request.instruction)
        try:
            if why := await self._set_motion(True):
                return Result.COMMAND_REJECTED, why
            return await self._follow(request.instruction)
        finally:
            # Also when enabling failed: the answer may only have been late.
            if why := await self._set_motion(False):
                self._node.get_logger().error(f'could not disable motion after the goal: {why}')

    def _refusal(self, request: ExecuteInstruction.Goal) -> tuple[int, str] | None:
        node = self._node
        if not node.active:
            return Result.NOT_ACTIVE, node.why_not('')
        if not request.instruction.strip():
            return Result.EMPTY_INSTRUCTION, 'the instruction is empty'
        if self._limit < 0:
            return Result.UNKNOWN, f'time_limit: expected at least 0 s, found {self._limit} s'
        if why := node.why_not(request.instruction):
            return Result.INFERENCE_FAILED if node.status.faulted else Result.UNKNOWN, why
        return None

    async def _follow(self, instruction: str) -> tuple[int, str]:
        self._last_chunk = time.monotonic()
        if not self._end.done() and (why := self._node.set_instruction(instruction)):
            return Result.UNKNOWN, why
        return await self._end

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
        if self._handle is None or self._end.done():
            return
        node, now = self._node, time.monotonic()
        if node.num_published > self._reported:
            self._reported, self._last_chunk = node.num_published, now
            self._publish_feedback(now - self._started)
        timeout = node.config['observation_timeout']
        if self._handle.is_cancel_requested:
            self._finish(Result.PREEMPTED, 'cancelled')
        elif self._limit > 0 and now - self._started >= self._limit:
            self._finish(Result.TIME_LIMIT_REACHED, '')
        elif node.failures_in_a_row >= node.config['max_decode_failures']:
            self._finish(Result.DECODE_FAILED, node.last_outcome_error)
        elif node.status.faulted:
            self._finish(Result.INFERENCE_FAILED, node.status.message)
        elif self._enabling is None and now - self._last_chunk > timeout:
            why = f'no chunk for {timeout} s; {node.status.message}'
            self._finish(Result.OBSERVATION_TIMEOUT, why)

    def _publish_feedback(self, elapsed: float) -> None:
        node = self._node
        feedback = ExecuteInstruction.Feedback(
            sequence_id=node.chunks.sequence_id,
            elapsed_time=duration_from_seconds(elapsed),
            observation_age_ms=node.observation_age_ms,
            inference_ms=node.durations[-1],
        )
        if self._limit > 0:
            feedback.remaining = duration_from_seconds(max(0.0, self._limit - elapsed))
        self._handle.publish_feedback(feedback)

    def _finish(self, code: int, text: str) -> None:
        """End the goal; what it had the policy do ends with it."""
        if self._end is None or self._end.done():
            return
        self._end.set_result((code, text))
        if self._node.active:
            self._node.clear_instruction(text or 'the time of the goal is over')
