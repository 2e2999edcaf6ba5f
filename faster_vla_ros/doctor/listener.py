"""Listens to a running graph for a few seconds and asks it what it is; changes nothing in it.

The node has no publisher but that of rclpy's parameter events, and calls only services that read
(`get_parameters`, `list_parameters`, `list_controllers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import functools
import math
import os
import time
from typing import Any
import zlib

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.parameter import parameter_value_to_python
from rclpy.utilities import get_rmw_implementation_identifier
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from faster_core.errors import ObservationError
from faster_vla_msgs.msg import DispatcherState, Embodiment, PolicyStatus
from faster_vla_ros import qos
from faster_vla_ros.compat.fastdds import profile_environment, profile_variable
from faster_vla_ros.conversions import seconds_from_stamp
from faster_vla_ros.doctor.expected import DISPATCHER, Expected, Input, POLICY
from faster_vla_ros.doctor.snapshot import (
    Arrival,
    Controller,
    Endpoint,
    Heard,
    MAX_NAMES,
    Snapshot,
)
from faster_vla_ros.graph import fastdds_profile
from faster_vla_ros.sensors import images

# Seconds a service gets to be found and to answer.
PATIENCE = 2.0
# Seconds until everybody is found. Fast DDS announces itself a few times at once and then every
# 3 s; who started just before us and was missed is found by the next announcement only.
DISCOVERY = 3.5
LIST_CONTROLLERS = 'controller_manager_msgs/srv/ListControllers'
SCOPE = ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_STATIC_PEERS')


def look(expected: Expected, seconds: float) -> Snapshot:
    """Listen and ask.

    Takes `DISCOVERY`, `seconds` in which everybody is heard, and what does not answer its time.
    """
    environment = _environment()
    os.environ.update(profile_environment(fastdds_profile()))
    context = Context()
    context.init()
    try:
        listener = Listener(context, expected)
        try:
            listener.spin(DISCOVERY + seconds)
            return listener.snapshot(DISCOVERY + seconds, environment)
        finally:
            listener.close()
    finally:
        with contextlib.suppress(RuntimeError):  # shut down already
            context.shutdown()


def _environment() -> dict[str, str]:
    """Return what decides who sees whom, as the user's shell has it."""
    profile = profile_variable()
    return {
        **{name: os.environ.get(name, '') for name in SCOPE},
        'RMW_IMPLEMENTATION': get_rmw_implementation_identifier(),
        profile: os.environ.get(profile, ''),
    }


class Listener:
    """One node that only listens."""

    def __init__(self, context: Context, expected: Expected) -> None:
        """Subscribe to everything the checks read."""
        self._expected = expected
        self.node = Node(
            f'faster_vla_doctor_{os.getpid()}',
            context=context,
            namespace=expected.namespace or None,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.heard: dict[str, Heard] = {}
        self._last_images: dict[str, tuple[str, Any]] = {}
        self._latched: dict[str, Any] = {}
        self._clock = math.nan
        subscribe = self.node.create_subscription
        # First of all: an arrival is also noted by it.
        subscribe(Clock, '/clock', self._on_clock, qos.STATE)
        for each in expected.inputs:
            if each.topic in self.heard:  # given twice: other checks say so
                continue
            self.heard[each.topic] = Heard()
            take = self._on_image if each.camera else self._on_state
            subscribe(each.kind, each.topic, functools.partial(take, each), each.qos)
        for kind, name in (
            (PolicyStatus, f'{POLICY}/status'),
            (Embodiment, f'{POLICY}/embodiment'),
            (DispatcherState, f'{DISPATCHER}/state'),
            (String, 'robot_description'),
        ):
            take = functools.partial(self._latched.__setitem__, name)
            subscribe(kind, expected.name(name), take, qos.LATCHED)

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

    # --- messages -------------------------------------------------------------------------------

    def _on_clock(self, message: Clock) -> None:
        self._clock = seconds_from_stamp(message.clock)

    def _arrived(self, each: Input, message: Any) -> Heard:
        heard = self.heard[each.topic]
        wall = self.node.get_clock().now().nanoseconds * 1e-9
        stamp = seconds_from_stamp(message.header.stamp)
        heard.arrivals.append(Arrival(wall=wall, simulated=self._clock, sent_at=stamp))
        return heard

    def _on_state(self, each: Input, message: Any) -> None:
        heard = self._arrived(each, message)
        names = tuple(getattr(message, 'name', ()))
        if names in heard.messages or len(heard.messages) < MAX_NAMES:
            heard.messages[names] = message

    def _on_image(self, each: Input, message: Any) -> None:
        heard = self._arrived(each, message)
        try:
            heard.sizes[images.check(each.camera, message)] += 1
        except ObservationError as e:
            heard.refused[str(e)] += 1
            return
        heard.pictures.add(zlib.crc32(message.data))
        self._last_images[each.topic] = (each.camera, message)

    def _decode(self) -> None:
        """Decode the last image of every camera."""
        for topic, (camera, message) in self._last_images.items():
            try:
                images.to_rgb(camera, message)
            except ObservationError as e:
                self.heard[topic].undecodable = str(e)

    # --- the graph ------------------------------------------------------------------------------

    def snapshot(self, duration: float, environment: dict[str, str]) -> Snapshot:
        """Return everything; what the graph is asked for, it is asked now."""
        # From now on nothing is added to what was heard.
        heard = {topic: _copy(h) for topic, h in self.heard.items()}
        self._decode()
        for topic, h in heard.items():
            h.undecodable = self.heard[topic].undecodable
        nodes = self._nodes()
        services = self._services(nodes)
        controllers, problem = self._controllers(services)
        topics = dict(self.node.get_topic_names_and_types())
        status = self._latched.get(f'{POLICY}/status')
        embodiment = self._latched.get(f'{POLICY}/embodiment')
        description = self._latched.get('robot_description')
        return Snapshot(
            duration=duration,
            nodes=nodes,
            topics={t: tuple(types) for t, types in topics.items()},
            publishers=dict(self._endpoints(topics, self.node.get_publishers_info_by_topic)),
            subscriptions=dict(self._endpoints(topics, self.node.get_subscriptions_info_by_topic)),
            services=services,
            heard=heard,
            parameters={n: p for n in self._ours(nodes) if (p := self._parameters(n))},
            policy_checksum=embodiment.checksum if embodiment else '',
            policy_state=status,
            dispatcher_state=self._latched.get(f'{DISPATCHER}/state'),
            robot_description=description.data if description else '',
            controllers=controllers,
            controllers_problem=problem,
            environment=environment,
        )

    def _nodes(self) -> tuple[str, ...]:
        found = self.node.get_node_names_and_namespaces()
        own = (self.node.get_name(), self.node.get_namespace())
        return tuple(sorted(_join(space, name) for name, space in found if (name, space) != own))

    def _ours(self, nodes: tuple[str, ...]) -> list[str]:
        names = [self._expected.name(n) for n in (POLICY, DISPATCHER)]
        return [n for n in names if n in nodes]

    def _endpoints(
        self, topics: dict[str, list[str]], ask: Callable[[str], Any]
    ) -> Iterator[tuple[str, tuple[Endpoint, ...]]]:
        own = (self.node.get_name(), self.node.get_namespace())
        for topic in topics:
            found = tuple(
                Endpoint(
                    node=_join(i.node_namespace, i.node_name),
                    type=i.topic_type,
                    qos=i.qos_profile,
                )
                for i in ask(topic)
                if (i.node_name, i.node_namespace) != own
            )
            if found:
                yield topic, found

    def _services(self, nodes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
        """Return what is offered; the list of all services also has those only asked for."""
        services = {}
        for full in dict.fromkeys(nodes):
            space, _, name = full.rpartition('/')
            with contextlib.suppress(NodeNameNonExistentError):  # it left meanwhile
                found = self.node.get_service_names_and_types_by_node(name, space or '/')
                services |= {service: (types[0], full) for service, types in found if types}
        return services

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        """Return the answer of a service that changes nothing; None if there is none in time."""
        client = self.node.create_client(kind, name)
        try:
            if not self.spin(PATIENCE, client.service_is_ready):
                return None
            future = client.call_async(request)
            return future.result() if self.spin(PATIENCE, future.done) else None
        finally:
            self.node.destroy_client(client)

    def _parameters(self, node: str) -> dict[str, Any]:
        listed = self._call(ListParameters, f'{node}/list_parameters', ListParameters.Request())
        names = list(listed.result.names) if listed else []
        request = GetParameters.Request(names=names)
        answer = self._call(GetParameters, f'{node}/get_parameters', request) if names else None
        values = map(parameter_value_to_python, answer.values) if answer else ()
        return dict(zip(names, values, strict=False))

    def _controllers(
        self, services: dict[str, tuple[str, str]]
    ) -> tuple[tuple[Controller, ...] | None, str]:
        """Return the controllers of all controller managers, or why they are not known."""
        managers = [name for name, (kind, _) in services.items() if kind == LIST_CONTROLLERS]
        if not managers:
            return None, ''
        try:
            from controller_manager_msgs.srv import ListControllers
        except ImportError:
            return None, 'there is a controller manager, but no controller_manager_msgs here'
        found: list[Controller] = []
        for name in managers:
            answer = self._call(ListControllers, name, ListControllers.Request())
            if answer is None:
                return None, f'{name} did not answer'
            found += [
                Controller(name=c.name, state=c.state, type=c.type) for c in answer.controller
            ]
        return tuple(found), ''


def _copy(heard: Heard) -> Heard:
    return Heard(
        arrivals=list(heard.arrivals),
        messages=dict(heard.messages),
        sizes=heard.sizes.copy(),
        refused=heard.refused.copy(),
        pictures=set(heard.pictures),
    )


def _join(namespace: str, name: str) -> str:
    return f'{namespace.rstrip("/")}/{name}'
