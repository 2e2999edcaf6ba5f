"""A node that only listens and asks: it has no publisher but that of rclpy's parameter events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
import time
from typing import Any

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from faster_vla_ros.compat.fastdds import profile_environment
from faster_vla_ros.graph import fastdds_profile
from faster_vla_ros.services import Asking

# Seconds a service gets to be found and to answer.
PATIENCE = 2.0
# Seconds until a service is asked again: an answer may be lost (`faster_vla_ros.services`).
AGAIN = 0.5
# Seconds until everybody is found. Fast DDS announces itself a few times at once and then every
# 3 s; who started just before us and was missed is found by the next announcement only.
DISCOVERY = 3.5


@contextlib.contextmanager
def opened_context() -> Iterator[Context]:
    """Open a context of rclpy, which reads the DDS profile with the first one of a process."""
    os.environ.update(profile_environment(fastdds_profile()))
    context = Context()
    context.init()
    try:
        yield context
    finally:
        with contextlib.suppress(RuntimeError):  # shut down already
            context.shutdown()


class Asker:
    """One node; it calls only services that read (`get_parameters`, `list_controllers`, ...)."""

    def __init__(self, context: Context, namespace: str) -> None:
        """Join the graph in a namespace ('' or '/name')."""
        self.node = Node(
            f'faster_vla_doctor_{os.getpid()}',
            context=context,
            namespace=namespace or None,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Handle messages until `until` holds; False after so many seconds."""
        end = time.monotonic() + seconds
        while not until():
            if (left := end - time.monotonic()) <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, 0.05))
        return True

    def nodes(self) -> tuple[str, ...]:
        """Return the full names of all nodes but this one; two of one name are two entries."""
        found = self.node.get_node_names_and_namespaces()
        own = (self.node.get_name(), self.node.get_namespace())
        return tuple(sorted(join(space, name) for name, space in found if (name, space) != own))

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Return the answer of a service that changes nothing; None if there is none in time."""
        client = self.node.create_client(kind, name)
        try:
            if not self.spin(PATIENCE, client.service_is_ready):
                return None
            asking = Asking(client, request, AGAIN)
            return asking.answer() if self.spin(PATIENCE, asking.answered) else None
        finally:
            self.node.destroy_client(client)

    def parameters(self, node: str) -> dict[str, Any]:
        """Return the parameters a node runs with; none if it does not answer in time."""
        listed = self.call(ListParameters, f'{node}/list_parameters', ListParameters.Request())
        names = list(listed.result.names) if listed else []
        request = GetParameters.Request(names=names)
        answer = self.call(GetParameters, f'{node}/get_parameters', request) if names else None
        values = map(parameter_value_to_python, answer.values) if answer else ()
        return dict(zip(names, values, strict=False))


def running_parameters(node: str, namespace: str) -> dict[str, Any] | None:
    """Return the parameters a node runs with; None if it does not run.

    Args:
        node: full name.
        namespace: '' or '/name', of whoever asks.
    """
    with opened_context() as context:
        asker = Asker(context, namespace)
        try:
            if not asker.spin(DISCOVERY, lambda: node in asker.nodes()):
                return None
            return asker.parameters(node)
        finally:
            asker.close()


def join(namespace: str, name: str) -> str:
    """Return a full name."""
    return f'{namespace.rstrip("/")}/{name}'
