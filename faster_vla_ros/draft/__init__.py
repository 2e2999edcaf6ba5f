"""A first draft of a robot's two files, made from its URDF."""
