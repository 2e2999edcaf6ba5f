"""Measurements of docs/reliability.md: what the dispatcher does to a robot, seen from outside."""
