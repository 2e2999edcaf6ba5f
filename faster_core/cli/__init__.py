"""Commands of `faster-vla` that need no ROS; each module has `add_parser(subparsers)`."""
