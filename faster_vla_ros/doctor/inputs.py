"""What policy node and dispatcher listen to: one input per camera and per topic of states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
import dataclasses
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from faster_core.errors import ObservationError
from faster_vla_ros import qos
from faster_vla_ros.dispatcher_parameters import DispatcherNodeConfig
from faster_vla_ros.doctor.overrides import overridden
from faster_vla_ros.doctor.snapshot import Heard
from faster_vla_ros.policy_parameters import PolicyNodeConfig
from faster_vla_ros.sensors.images import TYPES
from faster_vla_ros.sensors.state import StateSource

POLICY, DISPATCHER = 'policy_node', 'action_dispatcher'
_FEEDBACK = ' feedback'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """A topic that policy node or dispatcher read.

    Attributes:
        subject: for the table.
        topic: full name.
        kind: message class.
        qos: node of ours -> profile of its subscription.
        camera: id, of an image topic.
        sources: name for the table -> how a component is read, of any other topic.
        timeouts: camera or source -> seconds of silence after which it is stale.
        stamped: whether the stamps are used.
    """

    subject: str
    topic: str
    kind: type
    qos: Mapping[str, QoSProfile]
    camera: str = ''
    sources: Mapping[str, StateSource] = dataclasses.field(default_factory=dict)
    timeouts: Mapping[str, float]
    stamped: bool

    @property
    def timeout(self) -> float:
        """Seconds of silence after which something of it is stale."""
        return min(self.timeouts.values())

    @property
    def measured(self) -> bool:
        """Whether the dispatcher reads it."""
        return any(n.endswith(_FEEDBACK) for n in self.sources)

    def part(self, names: Collection[str]) -> Input:
        """Return the input as if it had only these sources."""
        return dataclasses.replace(
            self,
            subject=_subject(names),
            sources={n: self.sources[n] for n in names},
            timeouts={n: self.timeouts[n] for n in names},
            stamped=self.stamped and any(not n.endswith(_FEEDBACK) for n in names),
        )


def inputs(
    policy: PolicyNodeConfig | None,
    dispatcher: DispatcherNodeConfig | None,
    sources: Mapping[str, StateSource],
    raw: Mapping[str, Mapping[str, Any]],
    resolve: Callable[[str], str],
) -> tuple[Input, ...]:
    """Return one input per camera and per topic of states, cameras first.

    Args:
        policy: parameters; None without.
        dispatcher: the same.
        sources: state component -> how the policy reads it.
        raw: node -> flat parameters, with overrides of QoS.
        resolve: makes full names.
    """

    def demands(topic: str, profile: QoSProfile, *nodes: str) -> dict[str, QoSProfile]:
        return {n: overridden(profile, raw.get(n, {}), topic, 'subscription') for n in nodes}

    stamped = policy is None or not policy['use_receive_time']
    found = []
    for name, camera in (policy.cameras if policy else {}).items():
        topic = resolve(camera.topic)
        found.append(
            Input(
                subject=name,
                topic=topic,
                kind=TYPES[camera.transport],
                qos=demands(topic, qos.IMAGE, POLICY),
                camera=name,
                timeouts={name: camera.timeout},
                stamped=stamped,
            )
        )
    # A topic that fills several components is one input.
    by_topic: dict[tuple[str, type], dict[str, StateSource]] = {}
    for name, source in sources.items():
        key = (resolve(source.config.topic), source.message_type)
        by_topic.setdefault(key, {})[name] = source
    for name, source in (dispatcher.sources if dispatcher else {}).items():
        key = (resolve(source.config.topic), JointState)
        by_topic.setdefault(key, {})[f'{name}{_FEEDBACK}'] = source
    for (topic, kind), users in by_topic.items():
        measured = [n for n in users if n not in sources]
        listening = [POLICY] * (len(measured) < len(users)) + [DISPATCHER] * bool(measured)
        found.append(
            Input(
                subject=_subject(users),
                topic=topic,
                kind=kind,
                qos=demands(topic, qos.STATE, *listening),
                sources=users,
                timeouts={
                    n: dispatcher.rules.feedback_timeout if n in measured else s.config.timeout
                    for n, s in users.items()
                },
                stamped=stamped and POLICY in listening,
            )
        )
    return tuple(found)


def _subject(users: Collection[str]) -> str:
    components = list(dict.fromkeys(n.removesuffix(_FEEDBACK) for n in users))
    return components[0] if len(components) == 1 else f'{components[0]} +{len(components) - 1}'


def streams(each: Input, heard: Heard) -> Iterator[tuple[Input, Heard]]:
    """Split what came on a topic by who can use it: several drivers may share `joint_states`.

    Sources that use the same messages stay together. One that can use none is left out (the check
    `values` says why), unless that holds for all.
    """
    groups: dict[frozenset[tuple[str, ...]], list[str]] = {}
    for name, source in each.sources.items():
        usable = frozenset(n for n, m in heard.messages.items() if _usable(source, m))
        groups.setdefault(usable, []).append(name)
    groups.pop(frozenset(), None)
    if not groups:
        yield each, heard
    for names, users in groups.items():
        yield each.part(users), heard.naming(names)


def _usable(source: StateSource, message: Any) -> bool:
    try:
        source.parse(message)
    except ObservationError:
        return False
    return True
