"""Services of the policy node: reset, pause, and twins of the action for tools without actions."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

from std_srvs.srv import SetBool, Trigger

from faster_vla_ros import services
from faster_vla_ros.instructions import NOT_ACTIVE

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode

CANCELLED = 'cancelled by ~/cancel_instruction'


class PolicyServices:
    """`~/reset`, `~/pause`, `~/start_instruction`, `~/cancel_instruction`.

    An answer without success names the state found and what would help.
    """

    def __init__(self, node: PolicyNode) -> None:
        """Create the services."""
        self._node = node
        self._services = [
            services.service(node, kind, name, self._answering(handle))
            for kind, name, handle in (
                (Trigger, '~/reset', self._reset),
                (SetBool, '~/pause', self._pause),
                (Trigger, '~/start_instruction', self._start),
                (Trigger, '~/cancel_instruction', self._cancel),
            )
        ]

    def destroy(self) -> None:
        """Free the services."""
        for service in self._services:
            self._node.destroy_service(service)

    def _answering(self, handle: Any) -> Any:
        def answer(request: Any, response: Any) -> Any:
            active = self._node.active
            result = handle(request) if active else (False, NOT_ACTIVE)
            response.success, response.message = result
            return response

        return answer

    def _reset(self, request: Trigger.Request) -> tuple[bool, str]:
        node = self._node
        if node.goals.running:
            return False, 'a goal is running: cancel it first'
        node.instructions.clear('reset')
        node.inputs.clear()
        node.worker.reset()
        return True, 'buffers and instruction dropped'

    def _pause(self, request: SetBool.Request) -> tuple[bool, str]:
        self._node.instructions.pause(request.data)
        return True, 'paused' if request.data else 'resumed'

    def _start(self, request: Trigger.Request) -> tuple[bool, str]:
        """Begin a goal with the topic's last instruction; motion stays as it is."""
        node = self._node
        text = node.instructions.last or node.config['default_instruction']
        if not text:
            return False, (
                'no instruction yet: publish one on the topic instruction or set '
                'default_instruction'
            )
        why = node.goals.start(text)
        return not why, why or f'started: {text}'

    def _cancel(self, request: Trigger.Request) -> tuple[bool, str]:
        node = self._node
        if not (node.goals.running or node.instructions.text):
            return False, 'no instruction is being carried out'
        node.goals.preempt(CANCELLED)
        # Also what waits for the end of a goal that was ending already.
        node.instructions.clear(CANCELLED)
        return True, 'cancelled'
