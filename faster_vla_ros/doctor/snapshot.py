"""What one look at a running graph brought home: plain data that every check reads."""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
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

    `sent_at` is 0 for a stamp that was never set; `names` are the joints it names.
    """

    wall: float
    simulated: float
    sent_at: float
    names: tuple[str, ...] = ()


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

    def silence(self, end: float) -> float:
        """Return the seconds between the last message and an end; infinite without messages."""
        return end - self.arrivals[-1].wall if self.arrivals else math.inf

    def largest_gap(self, end: float) -> float:
        """Return the longest silence up to an end (s), from the first message on."""
        times = [a.wall for a in self.arrivals]
        return max((b - a for a, b in itertools.pairwise([*times, end])), default=math.inf)

    def naming(self, names: Collection[tuple[str, ...]]) -> Heard:
        """Return the part of this record whose messages have one of these lists of names."""
        return dataclasses.replace(
            self,
            arrivals=[a for a in self.arrivals if a.names in names],
            messages={n: m for n, m in self.messages.items() if n in names},
        )


def _grows(times: list[float]) -> bool:
    return len(times) > 1 and times[-1] > times[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spoken:
    """What came on a topic that can forbid motion.

    Attributes:
        at: when the newest message came (s, wall clock).
        message: the newest one, of whatever type; None if there was none.
        problem: why its type cannot be read; empty if it can, or if nobody publishes.
    """

    at: float = math.nan
    message: Any = None
    problem: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controller:
    """A controller of ros2_control, its state ('active', 'inactive', ...) and its manager.

    `manager` is a full name: two arms may each have an `arm_controller`.
    """

    name: str
    state: str
    type: str
    manager: str = '/controller_manager'

    @property
    def full_name(self) -> str:
        """Below which its topics and actions stand: controllers live where their manager does."""
        return f'{self.manager.rpartition("/")[0]}/{self.name}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One look at a graph; all names are full ones.

    Attributes:
        duration: seconds of listening.
        end: when listening ended (s, wall clock).
        nodes: full names, one entry per node, so that two of the same name are two entries.
        topics: topic -> message types.
        publishers, subscriptions: topic -> endpoints, without those of the doctor.
        services: service -> (type, node that offers it).
        heard: topic -> what came.
        spoken: topic that can forbid motion -> what came.
        parameters: node -> parameters it runs with; without nodes that did not answer.
        policy_checksum: of the embodiment a running policy node announced; empty without one.
        policy_state: last `PolicyStatus` of the policy node, None without one.
        dispatcher_state: last `DispatcherState` of the dispatcher, None without one.
        robot_description: latched URDF; empty without one.
        controllers: of all controller managers; None if one could not be asked.
        controllers_problem: why it could not be asked.
        controller_parameters: node above a commanded topic or action -> its parameters.
        environment: what decides who is seen, name -> value.
    """

    duration: float
    end: float
    nodes: tuple[str, ...] = ()
    topics: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    publishers: Mapping[str, tuple[Endpoint, ...]] = dataclasses.field(default_factory=dict)
    subscriptions: Mapping[str, tuple[Endpoint, ...]] = dataclasses.field(default_factory=dict)
    services: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    heard: Mapping[str, Heard] = dataclasses.field(default_factory=dict)
    spoken: Mapping[str, Spoken] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    policy_checksum: str = ''
    policy_state: Any = None
    dispatcher_state: Any = None
    robot_description: str = ''
    controllers: tuple[Controller, ...] | None = None
    controllers_problem: str = ''
    controller_parameters: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict
    )
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
