"""Stand-ins for ROS packages that are not on PyPI; the real one is preferred where it exists."""
