"""Which variable keeps a graph on this machine: Humble and its successors differ.

Humble knows only the old one, and the others warn of it.
"""

from __future__ import annotations

from collections.abc import Mapping
import os

RANGE, OLD = 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY'


def local_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variable with which nodes look for nobody beyond this machine.

    Args:
        environment: its `ROS_DISTRO` names the distribution; the wheels set none and are newer.
    """
    if environment.get('ROS_DISTRO') == 'humble':
        return {OLD: '1'}
    return {RANGE: 'LOCALHOST'}


def is_local(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether nodes look for nobody beyond this machine."""
    return environment.get(OLD) == '1' or environment.get(RANGE, '').upper() == 'LOCALHOST'


def unlimited_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what leaves to the middleware's own settings how far nodes look."""
    if environment.get('ROS_DISTRO') == 'humble':
        return {OLD: '0'}
    # The successors honour the old variable, above the new one, if it is 1.
    return {RANGE: 'SYSTEM_DEFAULT', **({OLD: '0'} if environment.get(OLD) else {})}
