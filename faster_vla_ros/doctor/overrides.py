"""What `qos_overrides` of a robot file do to our endpoints, as rclpy applies them."""

from __future__ import annotations

from collections.abc import Mapping
import copy
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# Depth and history decide nothing between two endpoints.
_POLICIES = {'reliability': ReliabilityPolicy, 'durability': DurabilityPolicy}


def overridden(
    profile: QoSProfile, parameters: Mapping[str, Any], topic: str, side: str
) -> QoSProfile:
    """Return a profile with what a node's parameters change in it.

    Args:
        profile: of `faster_vla_ros.qos`; not changed.
        parameters: flat, of the node, and accepted by it.
        topic: full name.
        side: 'publisher' or 'subscription'.
    """
    result = copy.copy(profile)
    for policy, kinds in _POLICIES.items():
        value = parameters.get(f'qos_overrides.{topic}.{side}.{policy}')
        if isinstance(value, str) and value.upper() in kinds.__members__:
            setattr(result, policy, kinds[value.upper()])
    return result
