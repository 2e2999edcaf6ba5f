"""Goals: one at a time, and motion only when the goal asks for it.

A policy does not know that it is done: a goal ends by its time limit or by a supervisor's flag
(success), by a cancel, by another instruction on the topic, or by a failure with one of the
action's error codes. `~/start_instruction` begins a goal too, without a handle, limit or motion.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import time
from typing import Any, TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_srvs.srv import SetBool
from unique_identifier_msgs.msg import UUID

from faster_vla_msgs.action import ExecuteInstruction
from faster_vla_msgs.msg import DispatcherState
from faster_vla_ros import qos
from faster_vla_ros.ages import Ages, Moment
from faster_vla_ros.conversions import duration_from_seconds, seconds_from_stamp
from faster_vla_ros.instructions import NOT_ACTIVE

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode

Result = ExecuteInstruction.Result
SUCCESSES = (Result.NONE, Result.TIME_LIMIT_REACHED)
# Looks of `watch`, ten a second, that an answer of the dispatcher may take. Not seconds: an answer
# cannot be heard while an inference keeps the executor.
NUM_LOOKS = 30
BUSY = 'a goal is running: cancel it first'


@dataclasses.dataclass(kw_only=True)
class Goal:
    """A goal that runs.

    Attributes:
        handle: of the action; None if it came by service.
        limit: seconds; 0 is none.
        end: done with (code, text) when it is to end.
        started: `time.monotonic`.
        last_chunk: when the newest chunk came, or none could be expected.
        num_before, num_reported: of the node's chunks, at the start and in the newest feedback.
        motion: whether the dispatcher was asked to enable motion.
        enabled: whether it has answered that motion is enabled.
        moving: whether it has said since that motion is enabled.
        num_off: how often it has said since that it is not, in a row.
        disabled: its answer when it was asked to disable motion again.
        motion_off: whether it has no motion enabled for this goal, as far as is known.
    """

    handle: ServerGoalHandle | None = None
    limit: float = 0.0
    end: Future = dataclasses.field(default_factory=Future)
    started: float = dataclasses.field(default_factory=time.monotonic)
    last_chunk: Moment
    num_before: int = 0
    num_reported: int = 0
    motion: bool = False
    enabled: bool = False
    moving: bool = False
    num_off: int = 0
    disabled: Future | None = None
    motion_off: bool = True


class GoalServer:
    """Runs goals of the action and of the services; all in the executor's thread."""

    def __init__(self, node: PolicyNode) -> None:
        """Create the action server; listen to the dispatcher and its enable service."""
        self._node = node
        group = ReentrantCallbackGroup()
        self._service = node.resolve_service_name(node.config['enable_service'])
        self._enable = node.create_client(
            SetBool, node.config['enable_service'], callback_group=group
        )
        self._state = None
        if topic := node.config['state_topic']:
            self._state = qos.subscription(
                node, DispatcherState, topic, self._on_state, qos.LATCHED
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
        self._goal: Goal | None = None
        # Answers of the dispatcher that are waited for, and for how many more looks.
        self._answers: dict[Future, int] = {}
        self._ages = Ages(node.get_clock())

    @property
    def running(self) -> bool:
        """Whether there is a goal, be it one whose motion is still being disabled."""
        return self._goal is not None

    @property
    def goal_id(self) -> UUID | None:
        """Id of the action's goal that is carried out, if any."""
        goal = self._goal
        if goal is None or goal.handle is None or goal.end.done():
            return None
        return goal.handle.goal_id

    def clock_jumped(self) -> None:
        """Expect the next chunk from now on: time that was jumped over does not count."""
        if self._goal is not None:
            self._goal.last_chunk = self._ages.now()

    def destroy(self) -> None:
        """Free the endpoints, after `end`; what the dispatcher still answers is not heard."""
        self._give_up(self._answers)
        self._server.destroy()
        self._node.destroy_client(self._enable)
        if self._state is not None:
            self._node.destroy_subscription(self._state)

    def start(self, instruction: str) -> str:
        """Begin a goal without the action; returns why not, empty if it runs."""
        if self.running:
            return BUSY
        if refusal := self._refusal(instruction):
            return refusal[1]
        self._node.instructions.begin(instruction.strip())
        self._goal = self._new_goal()
        return ''

    def succeed(self, why: str) -> None:
        """End the running goal because a supervisor says that it is reached."""
        self._finish(Result.NONE, why)

    def preempt(self, why: str) -> None:
        """End the running goal because somebody else took over."""
        self._finish(Result.PREEMPTED, why)

    def end(self, why: str) -> None:
        """End the running goal because the node is not active any more."""
        self._finish(Result.NOT_ACTIVE, why)

    def _on_state(self, state: DispatcherState) -> None:
        """End a goal whose motion the dispatcher has disabled: it must not go on by itself."""
        goal = self._goal
        if goal is None or not goal.motion or goal.end.done():
            return
        if state.enabled:
            goal.moving, goal.num_off = True, 0
        elif goal.enabled:
            goal.num_off += 1
        # One that comes after the answer may have been said before it, but no two.
        if not state.enabled and (goal.moving or goal.num_off > 1):
            why = f'the dispatcher has disabled motion: {state.message or "it was asked to"}'
            self._finish(Result.COMMAND_REJECTED, why)

    def _on_goal(self, request: Any) -> GoalResponse:
        if self.running:
            self._node.get_logger().warning('goal rejected: another one is running')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        limit = seconds_from_stamp(handle.request.time_limit)
        self._goal = self._new_goal(handle=handle, limit=limit)
        handle.execute()

    def _new_goal(self, **fields: Any) -> Goal:
        count = self._node.outcomes.num_published
        now = self._ages.now()
        return Goal(num_before=count, num_reported=count, last_chunk=now, **fields)

    async def _execute(self, handle: ServerGoalHandle) -> Result:
        goal = self._goal
        try:
            code, text = await self._carry_out(goal, handle.request)
        finally:
            self._goal = None
            self._node.instructions.goal_ended(motion_off=goal.motion_off)
        result = Result(error_code=code, error_msg='' if code in SUCCESSES else text)
        result.num_chunks = self._node.outcomes.num_published - goal.num_before
        result.total_elapsed_time = duration_from_seconds(time.monotonic() - goal.started)
        if handle.is_cancel_requested:
            handle.canceled()
        elif code in SUCCESSES:
            handle.succeed()
        else:
            handle.abort()
        return result

    async def _carry_out(self, goal: Goal, request: ExecuteInstruction.Goal) -> tuple[int, str]:
        if goal.end.done():  # before it began
            return goal.end.result()
        if goal.limit < 0:
            return Result.UNKNOWN, f'time_limit: expected at least 0 s, found {goal.limit} s'
        if refusal := self._refusal(request.instruction):
            return refusal
        if not request.enable_motion:
            return await self._follow(goal, request.instruction)
        if not self._enable.service_is_ready():
            why = f'no service {self._service}: is the dispatcher running?'
            return Result.COMMAND_REJECTED, why
        goal.motion, goal.motion_off = True, False
        try:
            if why := await self._why_not(self._ask(True)):
                return Result.COMMAND_REJECTED, why
            goal.enabled = True
            return await self._follow(goal, request.instruction)
        finally:
            # Also when enabling failed: the answer may only have been late.
            self._disable(goal)
            if why := await self._why_not(goal.disabled):
                self._node.get_logger().error(f'could not disable motion after the goal: {why}')
            goal.motion_off = not why

    def _refusal(self, instruction: str) -> tuple[int, str] | None:
        """Return why a goal cannot begin; None if it can, and nothing is being followed then.

        A goal starts anew, even with the instruction that is being followed. What is going on
        ends before the policy is asked: nobody wants it any more.
        """
        node = self._node
        if not node.active:
            return Result.NOT_ACTIVE, NOT_ACTIVE
        if node.instructions.paused:
            return Result.NOT_ACTIVE, 'the policy node is paused: resume it by ~/pause'
        if not instruction.strip():
            return Result.EMPTY_INSTRUCTION, 'the instruction is empty'
        node.instructions.clear('a goal starts')
        if why := node.instructions.why_not(instruction):
            node.instructions.clear(f'instruction refused: {why}')
            return Result.INFERENCE_FAILED if node.status.faulted else Result.UNKNOWN, why
        return None

    async def _follow(self, goal: Goal, instruction: str) -> tuple[int, str]:
        goal.last_chunk = self._ages.now()
        if not goal.end.done():
            self._node.instructions.begin(instruction.strip())
        return await goal.end

    def _disable(self, goal: Goal) -> None:
        """Ask for motion to be disabled again, once; not where it never was asked for."""
        if goal.motion and goal.disabled is None:
            goal.disabled = self._ask(False)

    def _ask(self, on: bool) -> Future:
        """Ask the dispatcher; the result is None if no answer comes in time."""
        answer = self._enable.call_async(SetBool.Request(data=on))
        self._answers[answer] = NUM_LOOKS if self._enable.service_is_ready() else 0
        return answer

    async def _why_not(self, answer: Future) -> str:
        """Return why motion is not as it was asked for; empty if it is."""
        response = await answer
        if response is None:
            return f'{self._service} did not answer in time: is the dispatcher running?'
        return '' if response.success else f'the dispatcher refused: {response.message}'

    def _look_for_answers(self) -> None:
        """Wait no longer for answers that had all their looks."""
        self._give_up([a for a, looks in self._answers.items() if looks <= 0])
        self._answers = {a: n - 1 for a, n in self._answers.items() if not a.done()}

    def _give_up(self, answers: Iterable[Future]) -> None:
        for answer in answers:
            if not answer.done():
                answer.set_result(None)

    def watch(self) -> None:
        """Publish feedback and end the goal when its time has come; called ten times a second."""
        now = time.monotonic()
        self._look_for_answers()
        goal = self._goal
        if goal is None or goal.end.done():
            return
        node = self._node
        if node.outcomes.num_published > goal.num_reported:
            goal.num_reported, goal.last_chunk = node.outcomes.num_published, self._ages.now()
            self._publish_feedback(goal, now - goal.started)
        if node.instructions.paused or self._answers:
            goal.last_chunk = self._ages.now()  # no chunk is expected
        timeout = node.config['observation_timeout']
        if goal.handle is not None and goal.handle.is_cancel_requested:
            self._finish(Result.PREEMPTED, 'cancelled')
        elif goal.limit > 0 and now - goal.started >= goal.limit:
            self._finish(Result.TIME_LIMIT_REACHED, 'the time of the goal is over')
        elif node.outcomes.failures_in_a_row >= node.config['max_decode_failures']:
            self._finish(Result.DECODE_FAILED, node.outcomes.last_error)
        elif node.status.faulted:
            self._finish(Result.INFERENCE_FAILED, node.status.message)
        elif self._ages.since(goal.last_chunk) > timeout:
            why = f'no chunk for {timeout} s; {node.status.message}'
            self._finish(Result.OBSERVATION_TIMEOUT, why)

    def _publish_feedback(self, goal: Goal, elapsed: float) -> None:
        if goal.handle is None:
            return
        outcomes = self._node.outcomes
        feedback = ExecuteInstruction.Feedback(
            sequence_id=self._node.chunks.sequence_id,
            elapsed_time=duration_from_seconds(elapsed),
            observation_age_ms=outcomes.observation_age_ms,
            inference_ms=outcomes.durations[-1] if outcomes.durations else 0.0,
        )
        if goal.limit > 0:
            feedback.remaining = duration_from_seconds(max(0.0, goal.limit - elapsed))
        goal.handle.publish_feedback(feedback)

    def _finish(self, code: int, text: str) -> None:
        """End the goal; what it had the policy do ends with it."""
        goal = self._goal
        if goal is None or goal.end.done():
            return
        goal.end.set_result((code, text))
        self._disable(goal)  # at once: whoever ends the process may not wait for the goal's end
        if self._node.active:
            self._node.instructions.clear(text)
        if goal.handle is None:
            self._goal = None
            self._node.get_logger().info(f'the goal has ended: {text}')
