"""Quality of service of every endpoint, with the reason; overrides and reports of mismatches.

Every endpoint made here can be changed by parameters (`qos_overrides.<topic>.subscription.depth`)
and says once, as an error, when somebody on its topic cannot be heard or served.

rclpy's own callbacks are left out. Every one is a thing to wait for, built and looked at in Python
before and after each wait, and all that they would add is a warning about a topic of another type,
which Fast DDS never gives; the doctor looks for those (docs/doctor.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import copy
from typing import Any, TYPE_CHECKING

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from faster_core.errors import ConfigError

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.subscription import Subscription


def _profile(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


# Best effort matches every publisher; an old image is worth nothing.
IMAGE = _profile(2, reliable=False)
# Several messages are kept so that the one nearest to an image can be chosen.
STATE = _profile(10, reliable=False)
# Volatile: a transient-local subscription would silently not match `ros2 topic pub`.
INSTRUCTION = _profile(1)
# Reliable publishers satisfy both kinds of subscriber; only the newest chunk or command counts.
CHUNK = _profile(1)
COMMAND = _profile(1)
# Every report, timing and edge of a flag is wanted.
REPORT = _profile(10)
# Late subscribers get the current state.
LATCHED = _profile(1, latched=True)

# Centuries; "infinite" is the largest number of nanoseconds, or of seconds, depending on the RMW.
_INFINITE = 2**62
_PREFIX = 'qos_overrides'
_PUBLISHER = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
# Whoever knows that a publisher latches may ask for it.
_SUBSCRIPTION = (*_PUBLISHER, QoSPolicyKind.DURABILITY)
_POLICIES = {'publisher': _PUBLISHER, 'subscription': _SUBSCRIPTION}
_ALLOWED = {
    'history': ('keep_last', 'keep_all'),
    'reliability': ('reliable', 'best_effort'),
    'durability': ('volatile', 'transient_local'),
}
# Endpoints that rclpy makes.
_OF_RCLPY = ('/clock', '/parameter_events', '/rosout')


def publisher(
    node: Node, kind: type, topic: str, profile: QoSProfile, *, lifecycle: bool = False
) -> Publisher:
    """Create a publisher whose history, depth and reliability parameters may override.

    Args:
        node: that publishes.
        kind: message type.
        topic: relative name.
        profile: one of this module; not changed.
        lifecycle: silent unless the node is active.

    Raises:
        ConfigError: an override of the node is unknown or has a value that is not allowed.
    """
    _check_overrides(node)
    create = node.create_lifecycle_publisher if lifecycle else node.create_publisher
    return create(
        kind,
        topic,
        copy.copy(profile),  # rclpy writes the overrides into it
        event_callbacks=PublisherEventCallbacks(
            incompatible_qos=_reporter(node, topic, 'a subscriber cannot be served'),
            use_default_callbacks=False,
        ),
        qos_overriding_options=QoSOverridingOptions(_PUBLISHER),
    )


def subscription(
    node: Node, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile
) -> Subscription:
    """Create a subscription whose history, depth, reliability and durability may be overridden.

    Args:
        node: that subscribes.
        kind: message type.
        topic: relative name.
        callback: called with every message.
        profile: one of this module; not changed.

    Raises:
        ConfigError: an override of the node is unknown or has a value that is not allowed.
    """
    _check_overrides(node)
    return node.create_subscription(
        kind,
        topic,
        callback,
        copy.copy(profile),  # rclpy writes the overrides into it
        event_callbacks=SubscriptionEventCallbacks(
            incompatible_qos=_reporter(node, topic, 'a publisher cannot be heard'),
            use_default_callbacks=False,
        ),
        qos_overriding_options=QoSOverridingOptions(_SUBSCRIPTION),
    )


def incompatible(publisher: QoSProfile, subscription: QoSProfile) -> str:
    """Return why a subscription cannot hear a publisher; empty if it can."""
    result, reason = qos_check_compatible(_finite(publisher), _finite(subscription))
    return reason.strip('; ') if result == QoSCompatibility.ERROR else ''


def _finite(profile: QoSProfile) -> QoSProfile:
    """Return the part of a profile that decides, with no duration where it is infinite.

    The graph reports 'none' as infinite, our own profiles as unset; compared with each other, the
    two would be incompatible.
    """
    return QoSProfile(
        depth=1,
        reliability=profile.reliability,
        durability=profile.durability,
        liveliness=profile.liveliness,
        deadline=_duration(profile.deadline),
        liveliness_lease_duration=_duration(profile.liveliness_lease_duration),
    )


def _duration(duration: Duration) -> Duration:
    return Duration() if duration.nanoseconds >= _INFINITE else duration


def refuse_unused_overrides(node: Node, without: Iterable[str] = ()) -> None:
    """Refuse overrides of topics the node does not have; called when all endpoints exist.

    Args:
        node: whose overrides they are.
        without: full names of topics it would publish on, were this no dry run.

    Raises:
        ConfigError: names the parameter.
    """
    own = {(p.topic_name, 'publisher') for p in node.publishers}
    own |= {(s.topic_name, 'subscription') for s in node.subscriptions}
    own |= {(topic, 'publisher') for topic in without}
    for name, (topic, side, _), _ in _overrides(node):
        if (topic, side) not in own:
            raise ConfigError(f'{name}: the node has no such {side}')


def _check_overrides(node: Node) -> None:
    """Check all overrides of a node, so that the first endpoint is refused and none is left over.

    Raises:
        ConfigError: names the parameter.
    """
    for name, (_, side, policy), value in _overrides(node):
        if side not in _POLICIES:
            raise ConfigError(f'{name}: expected <topic>.publisher or <topic>.subscription')
        policies = [p.name.lower() for p in _POLICIES[side]]
        if policy not in policies:
            raise ConfigError(f'{name}: expected one of {", ".join(policies)}')
        if policy == 'depth':
            if type(value) is not int or value < 1:
                raise ConfigError(f'{name}: expected int of at least 1, found {value!r}')
        elif value not in _ALLOWED[policy]:
            allowed = ', '.join(_ALLOWED[policy])
            raise ConfigError(f'{name}: expected one of {allowed}, found {value!r}')


def _overrides(node: Node) -> list[tuple[str, tuple[str, str, str], Any]]:
    """Return name, (topic, side, policy) and value of what the user has overridden.

    rclpy declares the others itself when it makes an endpoint, read-only and for ever: they may
    be of a topic the node had when it was configured before.
    """
    found = []
    for name, parameter in node.get_parameters_by_prefix(_PREFIX).items():
        rest, _, policy = name.rpartition('.')
        topic, _, side = rest.rpartition('.')
        whole = f'{_PREFIX}.{name}'
        if topic not in _OF_RCLPY and not node.describe_parameter(whole).read_only:
            found.append((whole, (topic, side, policy), parameter.value))
    return found


def _reporter(node: Node, topic: str, what: str) -> Callable[[Any], None]:
    name, told = node.resolve_topic_name(topic), set()

    def report(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        if policy not in told:
            told.add(policy)
            node.get_logger().error(f'{name}: incompatible QoS, {what}: {policy} differs')

    return report
