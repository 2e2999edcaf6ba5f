"""Which variable keeps a graph on this machine: Humble and its successors differ.

Humble knows only the old one, and the others warn of it.
"""

from __future__ import annotations

from collections.abc import Mapping
import os


def local_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variable with which nodes look for nobody beyond this machine.

    Args:
        environment: its `ROS_DISTRO` names the distribution; the wheels set none and are newer.
    """
    if environment.get('ROS_DISTRO') == 'humble':
        return {'ROS_LOCALHOST_ONLY': '1'}
    return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
