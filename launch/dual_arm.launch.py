"""Two arms (ALOHA, Trossen): `ros2 launch faster_vla_ros dual_arm.launch.py`.

`--show-args` lists the arguments. What runs stands in `faster_vla_ros/graph.py`, which
`faster-vla up dual_arm` reads too.
"""

from faster_vla_ros.graph import dual_arm
from faster_vla_ros.launching import describe


def generate_launch_description():
    """Declare the graph's arguments; the nodes follow once their values are known."""
    return describe(dual_arm)
