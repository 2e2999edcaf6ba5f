"""Listens to a running graph for a few seconds and asks it what it is; changes nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import functools
import math
import os
import time
from typing import Any
import zlib

from rclpy.context import Context
from rclpy.node import NodeNameNonExistentError
from rclpy.utilities import get_rmw_implementation_identifier
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from faster_core.errors import ObservationError
from faster_vla_msgs.msg import DispatcherState, Embodiment, PolicyStatus
from faster_vla_ros import qos
from faster_vla_ros.compat.fastdds import profile_variable
from faster_vla_ros.conversions import seconds_from_stamp
from faster_vla_ros.doctor.asking import Asker, DISCOVERY, join, opened_context
from faster_vla_ros.doctor.commands import controller_of
from faster_vla_ros.doctor.expected import Expected
from faster_vla_ros.doctor.inputs import DISPATCHER, Input, POLICY
from faster_vla_ros.doctor.snapshot import (
    Arrival,
    Controller,
    Endpoint,
    Heard,
    MAX_NAMES,
    Snapshot,
    Spoken,
)
from faster_vla_ros.interlocks.any_topic import AnyTopic
from faster_vla_ros.sensors import images

LIST_CONTROLLERS = 'controller_manager_msgs/srv/ListControllers'
# Seconds between two looks for the type of a topic.
LOOK_PERIOD = 0.2
SCOPE = ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_STATIC_PEERS')


def look(expected: Expected, seconds: float, environment: dict[str, str]) -> Snapshot:
    """Listen and ask.

    Takes `DISCOVERY`, `seconds` in which everybody is heard, and what does not answer its time.
    """
    with opened_context() as context:
        listener = Listener(context, expected)
        try:
            listener.spin(DISCOVERY + seconds, listener.look)
            return listener.snapshot(DISCOVERY + seconds, environment)
        finally:
            listener.close()


def scope() -> dict[str, str]:
    """Return what decides who sees whom, as the user's shell has it; before any context is."""
    profile = profile_variable()
    return {
        **{name: os.environ.get(name, '') for name in SCOPE},
        'RMW_IMPLEMENTATION': get_rmw_implementation_identifier(),
        profile: os.environ.get(profile, ''),
    }


class Listener(Asker):
    """One node that only listens."""

    def __init__(self, context: Context, expected: Expected) -> None:
        """Subscribe to everything the checks read."""
        super().__init__(context, expected.namespace)
        self._expected = expected
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
            # Ours asks for nothing; whether the nodes' own hear it is a check.
            profile = qos.IMAGE if each.camera else qos.STATE
            subscribe(each.kind, each.topic, functools.partial(take, each), profile)
        self._spoken: dict[str, Spoken] = {}
        self._speakers = [self._speaker(t) for t in expected.forbidding]
        self._look_again = 0.0
        for kind, name in (
            (PolicyStatus, f'{POLICY}/status'),
            (Embodiment, f'{POLICY}/embodiment'),
            (DispatcherState, f'{DISPATCHER}/state'),
            (String, 'robot_description'),
        ):
            take = functools.partial(self._latched.__setitem__, name)
            subscribe(kind, expected.name(name), take, qos.LATCHED)

    # --- messages -------------------------------------------------------------------------------

    def _on_clock(self, message: Clock) -> None:
        self._clock = seconds_from_stamp(message.clock)

    def _speaker(self, topic: str) -> AnyTopic:
        def take(message: Any) -> None:
            self._spoken[topic] = Spoken(at=self._wall(), message=message)

        return AnyTopic(self.node, topic, take)

    def look(self) -> bool:
        """Subscribe to what can forbid motion, once its type is known; False, for `spin`."""
        if (now := time.monotonic()) > self._look_again:
            self._look_again = now + LOOK_PERIOD
            for speaker in self._speakers:
                speaker.look()
        return False

    def _wall(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def _arrived(self, each: Input, message: Any, names: tuple[str, ...] = ()) -> Heard:
        heard = self.heard[each.topic]
        heard.arrivals.append(
            Arrival(
                wall=self._wall(),
                simulated=self._clock,
                sent_at=seconds_from_stamp(message.header.stamp),
                names=names,
            )
        )
        return heard

    def _on_state(self, each: Input, message: Any) -> None:
        names = tuple(getattr(message, 'name', ()))
        heard = self._arrived(each, message, names)
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
        end = self._wall()
        spoken = {
            s.topic: self._spoken.get(s.topic) or Spoken(problem=s.problem) for s in self._speakers
        }
        heard = {topic: _copy(h) for topic, h in self.heard.items()}
        self._decode()
        for topic, h in heard.items():
            h.undecodable = self.heard[topic].undecodable
        nodes = self.nodes()
        services = self._services(nodes)
        controllers, problem = self._controllers(services)
        topics = dict(self.node.get_topic_names_and_types())
        status = self._latched.get(f'{POLICY}/status')
        embodiment = self._latched.get(f'{POLICY}/embodiment')
        description = self._latched.get('robot_description')
        return Snapshot(
            duration=duration,
            end=end,
            nodes=nodes,
            topics={t: tuple(types) for t, types in topics.items()},
            publishers=dict(self._endpoints(topics, self.node.get_publishers_info_by_topic)),
            subscriptions=dict(self._endpoints(topics, self.node.get_subscriptions_info_by_topic)),
            services=services,
            heard=heard,
            spoken=spoken,
            parameters={n: p for n in self._ours(nodes) if (p := self.parameters(n))},
            policy_checksum=embodiment.checksum if embodiment else '',
            policy_state=status,
            dispatcher_state=self._latched.get(f'{DISPATCHER}/state'),
            robot_description=description.data if description else '',
            controllers=controllers,
            controllers_problem=problem,
            controller_parameters={
                n: p for n in self._commanded(nodes) if (p := self.parameters(n))
            },
            environment=environment,
        )

    def _ours(self, nodes: tuple[str, ...]) -> list[str]:
        names = [self._expected.name(n) for n in (POLICY, DISPATCHER)]
        return [n for n in names if n in nodes]

    def _commanded(self, nodes: tuple[str, ...]) -> list[str]:
        """Return the nodes below whose names our commands go: controllers of ros2_control."""
        dispatcher = self._expected.dispatcher
        outputs = dispatcher.outputs.values() if dispatcher is not None else ()
        owners = {controller_of(self._expected, config) for _, config in outputs}
        return [n for n in nodes if n in owners]

    def _endpoints(
        self, topics: dict[str, list[str]], ask: Callable[[str], Any]
    ) -> Iterator[tuple[str, tuple[Endpoint, ...]]]:
        own = (self.node.get_name(), self.node.get_namespace())
        for topic in topics:
            found = tuple(
                Endpoint(
                    node=join(i.node_namespace, i.node_name),
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
            answer = self.call(ListControllers, name, ListControllers.Request())
            if answer is None:
                return None, f'{name} did not answer'
            found += [
                Controller(
                    name=c.name, state=c.state, type=c.type, manager=name.rpartition('/')[0]
                )
                for c in answer.controller
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
