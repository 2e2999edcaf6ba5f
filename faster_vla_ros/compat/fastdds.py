"""Under which variable Fast DDS looks for a profile: version 2 (Humble, Jazzy) and 3 differ.

Version 2 does not know the name of version 3, and rmw_fastrtps of Kilted warns of the old one in
every process, so that exactly the right one is set.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
import sys

VERSION_3 = 'FASTDDS_DEFAULT_PROFILES_FILE'
VERSION_2 = 'FASTRTPS_DEFAULT_PROFILES_FILE'


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
