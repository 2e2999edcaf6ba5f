"""A single arm (Franka, UR, xArm): `ros2 launch faster_vla_ros single_arm.launch.py`.

`--show-args` lists the arguments. What runs stands in `faster_vla_ros/graph.py`, which
`faster-vla up single_arm` reads too.
"""

from faster_vla_ros.graph import single_arm
from faster_vla_ros.launching import describe


def generate_launch_description():
    """Declare the graph's arguments; the nodes follow once their values are known."""
    return describe(single_arm)
