"""ROS 2 runtime of FASTer: nodes, message conversion, graph description and commands."""
