"""R1 Lite under whole-body control: `ros2 launch faster_vla_ros r1lite_wbc.launch.py`.

`--show-args` lists the arguments. What runs stands in `faster_vla_ros/graph.py`, which
`faster-vla up r1lite_wbc` reads too.
"""

from faster_vla_ros.graph import r1lite_wbc
from faster_vla_ros.launching import describe


def generate_launch_description():
    """Declare the graph's arguments; the nodes follow once their values are known."""
    return describe(r1lite_wbc)
