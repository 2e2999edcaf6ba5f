"""What one look at a running graph brought home: plain data that every check reads."""

from __future__ import annotations

import collections
from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import Any

from rclpy.qos import QoSProfile

# Different lists of joint names kept per topic: publishers that share it send different ones.
MAX_NAMES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A publisher or subscription: the full name of its node, message type and QoS."""

    node: str
    type: str
    qos: QoSProfile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrival:
    """When a message came, by the wall clock and by `/clock` (NaN without one), and its stamp (s).

    `sent_at` is 0 for a stamp that was never set.
    """

    wall: float
    simulated: float
    sent_at: float


@dataclasses.dataclass(kw_only=True)
class Heard:
    """What came on one topic.

    Attributes:
        arrivals: one per message, in order.
        messages: list of names in the message -> the newest one with it; images have none.
        sizes: (width, height) in pixels -> number of images.
        refused: why images cannot be used -> how many of them.
        pictures: fingerprints of the images' bytes.
        undecodable: why the last image could not be decoded; empty if it could.
    """

    arrivals: list[Arrival] = dataclasses.field(default_factory=list)
    messages: dict[tuple[str, ...], Any] = dataclasses.field(default_factory=dict)
    sizes: collections.Counter[tuple[int, int]] = dataclasses.field(
        default_factory=collections.Counter
    )
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    pictures: set[int] = dataclasses.field(default_factory=set)
    undecodable: str = ''

    @property
    def rate(self) -> float:
        """Messages per second between the first and the last; 0 with fewer than two."""
        times = [a.wall for a in self.arrivals]
        return (len(times) - 1) / (times[-1] - times[0]) if _grows(times) else 0.0

    @property
    def largest_gap(self) -> float:
        """Longest silence between two messages (s); infinite with fewer than two."""
        times = [a.wall for a in self.arrivals]
        return max((b - a for a, b in itertools.pairwise(times)), default=math.inf)


def _grows(times: list[float]) -> bool:
    return len(times) > 1 and times[-1] > times[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controller:
    """A controller of ros2_control and its state: 'active', 'inactive', ..."""

    name: str
    state: str
    type: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One look at a graph; all names are full ones.

    Attributes:
        duration: seconds of listening.
        nodes: full names, one entry per node, so that two of the same name are two entries.
        topics: topic -> message types.
        publishers, subscriptions: topic -> endpoints, without those of the doctor.
        services: service -> (type, node that offers it).
        heard: topic -> what came.
        parameters: node -> parameters it runs with; without nodes that did not answer.
        policy_checksum: of the embodiment a running policy node announced; empty without one.
        policy_state: last `PolicyStatus` of the policy node, None without one.
        dispatcher_state: last `DispatcherState` of the dispatcher, None without one.
        robot_description: latched URDF; empty without one.
        controllers: of a controller manager; None if it could not be asked.
        controllers_problem: why it could not be asked.
        environment: what decides who is seen, name -> value.
    """

    duration: float
    nodes: tuple[str, ...] = ()
    topics: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    publishers: Mapping[str, tuple[Endpoint, ...]] = dataclasses.field(default_factory=dict)
    subscriptions: Mapping[str, tuple[Endpoint, ...]] = dataclasses.field(default_factory=dict)
    services: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    heard: Mapping[str, Heard] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    policy_checksum: str = ''
    policy_state: Any = None
    dispatcher_state: Any = None
    robot_description: str = ''
    controllers: tuple[Controller, ...] | None = None
    controllers_problem: str = ''
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, topic: str) -> Heard:
        """Return what came on a topic; an empty record if nothing did."""
        return self.heard.get(topic) or Heard()

    @property
    def sim_time(self) -> bool:
        """Whether stamps are simulated time: the nodes say so, else somebody publishes /clock."""
        told = [p['use_sim_time'] for p in self.parameters.values() if 'use_sim_time' in p]
        return any(told) if told else bool(self.publishers.get('/clock'))


def message_type(kind: type) -> str:
    """Return the name of a message class as the graph spells it: `sensor_msgs/msg/Image`."""
    package, folder = kind.__module__.split('.')[:2]
    return f'{package}/{folder}/{kind.__name__}'
