"""Which profile Fast DDS gets, and under which variable: version 2 (Humble, Jazzy) and 3 differ.

Version 2 does not know the name of version 3, and rmw_fastrtps of Kilted warns of the old one in
every process, so that exactly the right one is set.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
import sys

from faster_core import paths
from faster_vla_ros.compat import discovery

VERSION_3 = 'FASTDDS_DEFAULT_PROFILES_FILE'
VERSION_2 = 'FASTRTPS_DEFAULT_PROFILES_FILE'
TRANSPORTS = 'FASTDDS_BUILTIN_TRANSPORTS'
PEERS = 'ROS_STATIC_PEERS'


def profile_variable(environment: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> str:
    """Return the name of the variable.

    Args:
        environment: its `AMENT_PREFIX_PATH` lists the prefixes of a distribution.
        prefix: of the Python environment, where the wheels are.
    """
    prefixes = [*environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep), prefix]
    # The ROS package was renamed with the version.
    old = any((pathlib.Path(p) / 'share' / 'fastrtps').is_dir() for p in prefixes if p)
    return VERSION_2 if old else VERSION_3


def profile_environment(
    profile: pathlib.Path, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return what makes Fast DDS read `profile`; a profile the user set stays."""
    name = profile_variable(environment)
    return {name: environment.get(name) or str(profile)}


def local_udp_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what keeps a process on this machine and off shared memory.

    "Localhost only" of ROS brings shared memory whatever the profile says (rmw_fastrtps,
    participant.cpp), so that the profile has to say both.
    """
    profile = paths.share_dir() / 'config' / 'fastdds_udp_localhost.xml'
    return {
        profile_variable(environment): str(profile),
        **discovery.unlimited_environment(environment),
    }


def leave_shared_memory(middleware: str) -> None:
    """Have this process speak UDP only, unless the user chose otherwise; before `rclpy.init`.

    For what moves the robot or stops it; its messages are small. In the shared memory of Fast DDS
    (SharedMemGlobal.hpp)

    - a process that is killed may hold the lock of its port, and whoever sends there waits for up
      to a second: a guard did, with the zeros for the chassis of the dispatcher that was killed;
    - who sends wakes the listener only if nothing was waiting for it, so that a listener that
      misses one call hears nothing for a third of a second: long enough for a false alarm.

    Nothing is done under another middleware, with a profile or transports of the user, or if a
    graph of this machine only has `ROS_STATIC_PEERS`, which only rmw_fastrtps' own set-up reads.

    Args:
        middleware: what `rclpy.utilities.get_rmw_implementation_identifier` returns.
    """
    if 'fastrtps' not in middleware:
        return
    name = profile_variable()
    folder = paths.share_dir() / 'config'
    given = os.environ.get(name)
    if given not in (None, '', str(folder / 'fastdds_shm.xml')):
        return
    if discovery.is_local():
        if not os.environ.get(PEERS):
            os.environ.update(local_udp_environment())
    elif given or not os.environ.get(TRANSPORTS):
        os.environ[name] = str(folder / 'fastdds_udp.xml')
