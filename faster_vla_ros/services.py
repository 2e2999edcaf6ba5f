"""Services whose answers are sent again until the asker can hear them, and askers who ask again.

Discovery tells a server of an asker's request writer and of the reader of its answers one after
the other, so that a request may be heard before its answer can be. rmw_fastrtps then waits 0.1 s,
in the middle of the executor, and drops the answer (`__rmw_send_response`, rmw_response.cpp); the
asker waits in vain although its request was carried out. rclpy warns (Iron and later) or raises
(early Humble), which would end the node. It is rare: not seen in 650 calls made for it, twice in
runs of all tests.

A request may be lost as well: Fast DDS remembers a process that was killed for up to 20 s. As long
as its successor is not found, the service of the dead one counts as ready and gets the request.
"""

from __future__ import annotations

from collections.abc import Callable
import math
import threading
import time
from typing import Any, TYPE_CHECKING
import warnings

from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle

if TYPE_CHECKING:
    from rclpy.client import Client
    from rclpy.node import Node
    from rclpy.service import Service

# Seconds until an answer is sent again. Every time may keep the executor for 0.1 s.
RETRY = 0.5
NUM_TRIES = 3
LOST = 'failed to send response'
# Seconds until an asker without an answer asks again.
PATIENCE = 2.0
_CATCHING = threading.Lock()  # warnings are caught in the whole process


def service(
    node: Node, kind: type, name: str, callback: Callable[[Any, Any], Any], **options: Any
) -> Service:
    """Create a service; arguments as of `Node.create_service`."""
    made = node.create_service(kind, name, callback, **options)
    made.send_response = _Answers(node, made)  # what an executor calls
    return made


class Asking:
    """One question to a service, repeated until there is an answer.

    The service may get it more than once: only for what does the same twice as once.
    """

    def __init__(self, client: Client, request: Any, patience: float = PATIENCE) -> None:
        """Ask nothing yet.

        Args:
            client: of the service; asked in the thread that spins its node.
            request: of the service's type.
            patience: seconds until it is asked again.
        """
        self._client, self._request, self._patience = client, request, patience
        self._futures: list[Any] = []
        self._next = -math.inf

    def answered(self) -> bool:
        """Whether an answer came; ask, or ask again, if it is time. Call it while spinning."""
        if any(future.done() for future in self._futures):
            return True
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._patience
            self._futures.append(self._client.call_async(self._request))
        return False

    def answer(self) -> Any:
        """Return the first answer (StopIteration if there is none yet)."""
        return next(future.result() for future in self._futures if future.done())


class _Answers:
    """Sends the answers of one service, each up to `NUM_TRIES` times."""

    def __init__(self, node: Node, made: Service) -> None:
        self._node, self._name = node, made.srv_name
        self._send = made.send_response

    def __call__(self, response: Any, header: Any) -> None:
        why = self._lost(response, header)
        if not why:
            return
        tries = 1

        def again() -> None:
            nonlocal tries, why
            tries += 1
            why = self._lost(response, header)
            if why and tries < NUM_TRIES:
                return
            self._node.destroy_timer(timer)
            if why:
                self._node.get_logger().warning(f'{self._name}: nobody heard the answer: {why}')

        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self._node.create_timer(RETRY, again, clock=steady)

    def _lost(self, response: Any, header: Any) -> str:
        """Send an answer; returns why it was lost, empty if it was not."""
        why = ''
        with _CATCHING, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always', RuntimeWarning)
            try:
                self._send(response, header)
            except InvalidHandle:  # the service is gone: nobody waits any more
                pass
            except RuntimeError as error:  # RCLError
                why = str(error)
        for warning in caught:
            if LOST in (text := str(warning.message)):
                why = text
            else:  # of another thread
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        return why
