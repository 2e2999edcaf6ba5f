"""Closed-loop evaluation without ROS: the policy, dispatcher and simulator of the graph."""
