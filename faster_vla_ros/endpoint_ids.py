"""Ids of publishers and subscriptions: every process knows an endpoint by the same.

A name tells a node neither from its predecessor that was killed, which DDS counts for another 20
s, nor from a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rclpy.node import Node

Endpoint = TypeVar('Endpoint')
# Bytes of a GID that tell: Humble fills them up with zeros to 24.
SIZE = 16


def endpoint_id(info: Any) -> str:
    """Return the hexadecimal id of a `TopicEndpointInfo`."""
    return bytes(info.endpoint_gid)[:SIZE].hex()


def is_of(node: Node, info: Any) -> bool:
    """Whether an endpoint is of a node, by its name."""
    return (info.node_namespace, info.node_name) == (node.get_namespace(), node.get_name())


def identified(
    node: Node,
    find: Callable[[str], Sequence[Any]],
    topic: str,
    create: Callable[[], Endpoint],
) -> tuple[Endpoint, frozenset[str]]:
    """Create an endpoint; returns it and its id (empty if the middleware does not list it).

    Args:
        node: whose endpoint it will be.
        find: the node's `get_publishers_info_by_topic`, or that of subscriptions.
        topic: full name.
        create: creates the endpoint.
    """
    before = {endpoint_id(i) for i in find(topic)}
    endpoint = create()
    after = {endpoint_id(i) for i in find(topic) if is_of(node, i)}
    return endpoint, frozenset(after - before)
