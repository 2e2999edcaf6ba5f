"""The gripper action, where control_msgs can be imported (it is not on PyPI).

Not run against the real control_msgs: its tests use another action type over DDS and types with
the same fields beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import threading
from typing import Any, TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse, GoalResponse

from faster_core.sim.controllers import GripperGoal, GripperResult
from faster_vla_ros.dialects.joint_port import JointPort

if TYPE_CHECKING:
    from rclpy.node import Node


def action_type(kind: str) -> type | None:
    """Return the action of a gripper controller ('parallel', 'classic'), None if not installed."""
    name = {'parallel': 'ParallelGripperCommand', 'classic': 'GripperCommand'}[kind]
    try:
        import control_msgs.action
    except ImportError:
        return None
    return getattr(control_msgs.action, name, None)


def read_goal(kind: str, goal: Any) -> Sequence[float]:
    """Return the positions of a goal."""
    position = goal.command.position
    return list(position) if kind == 'parallel' else [position]


def fill_result(kind: str, result: Any, ended: GripperResult | None) -> Any:
    """Write how the goal ended into a result; None: by a cancel or by another goal."""
    if ended is not None:
        result.reached_goal, result.stalled = ended.reached_goal, ended.stalled
        if kind == 'parallel':
            result.state.position = [ended.position]
        else:
            result.position = ended.position
    return result


class GripperAction:
    """Serves one gripper's action.

    A goal stays accepted until the controller model ends it (`update`, in the physics thread);
    only then is it handed to the executor, which sends the result. So nothing waits in a thread.
    """

    def __init__(
        self,
        node: Node,
        kind: str,
        name: str,
        port: JointPort,
        lock: threading.Lock,
        clock: Callable[[], float],
        *,
        action: type,
        read: Callable[[str, Any], Sequence[float]] = read_goal,
        fill: Callable[[str, Any, GripperResult | None], Any] = fill_result,
    ) -> None:
        """Create the server; `read` and `fill` translate its goals and results."""
        self._kind, self._port, self._lock, self._clock = kind, port, lock, clock
        self._action, self._read, self._fill = action, read, fill
        self._logger = node.get_logger()
        self._active: tuple[Any, int] | None = None
        self._ended: dict[bytes, tuple[GripperGoal, GripperResult | None]] = {}
        self._server = ActionServer(
            node,
            action,
            name,
            execute_callback=self._finish,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def update(self) -> None:
        """Hand a goal that has ended, or is to be cancelled, to the executor (lock held)."""
        if self._active is None:
            return
        handle, goal_id = self._active
        gripper = self._port.gripper
        if handle.is_cancel_requested and gripper.goal_id == goal_id:
            self._port.cancel_gripper_goal()
        if gripper.goal_id != goal_id:
            self._hand_over(handle, GripperGoal.ABORTED, None)
        elif gripper.goal is not GripperGoal.ACTIVE:
            self._hand_over(handle, gripper.goal, gripper.result)

    def _hand_over(self, handle: Any, goal: GripperGoal, result: GripperResult | None) -> None:
        self._active = None
        self._ended[bytes(handle.goal_id.uuid)] = (goal, result)
        handle.execute()

    def _on_goal(self, request: Any) -> GoalResponse:
        positions = self._read(self._kind, request)
        if len(positions) != 1:
            self._logger.warning(f'gripper goal rejected: {len(positions)} positions, expected 1')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: Any) -> None:
        with self._lock:
            if self._active is not None:
                self._hand_over(self._active[0], GripperGoal.ABORTED, None)
            self._port.take_gripper_goal(self._read(self._kind, handle.request), self._clock())
            self._active = (handle, self._port.gripper.goal_id)

    def _finish(self, handle: Any) -> Any:
        goal, ended = self._ended.pop(bytes(handle.goal_id.uuid))
        if handle.is_cancel_requested:
            handle.canceled()
        elif goal is GripperGoal.SUCCEEDED:
            handle.succeed()
        else:  # stalled, or somebody else took over
            handle.abort()
        return self._fill(self._kind, self._action.Result(), ended)
