"""Ids of the endpoints of a topic: every process of one middleware knows an endpoint by the same.

A name tells a node neither from its predecessor that was killed, which DDS counts for another 20
s, nor from a second one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from rclpy.node import Node


class EndpointIds(NamedTuple):
    """Hexadecimal GIDs of one topic: of the node that asked (by name), and of all others."""

    own: frozenset[str]
    others: frozenset[str]


def publisher_ids(node: Node, topic: str) -> EndpointIds:
    """Return the publishers that a node has discovered on a topic (full name)."""
    return _ids(node, node.get_publishers_info_by_topic(topic))


def subscription_ids(node: Node, topic: str) -> EndpointIds:
    """Return the subscriptions that a node has discovered on a topic (full name)."""
    return _ids(node, node.get_subscriptions_info_by_topic(topic))


def _ids(node: Node, found: Iterable[Any]) -> EndpointIds:
    name = (node.get_namespace(), node.get_name())
    ids = {bytes(i.endpoint_gid).hex(): (i.node_namespace, i.node_name) == name for i in found}
    own = frozenset(i for i, ours in ids.items() if ours)
    return EndpointIds(own, frozenset(ids) - own)
