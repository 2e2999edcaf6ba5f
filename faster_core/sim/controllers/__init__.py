"""Models of the controllers of ros2_controllers, in numpy: what they accept and what they command.

Written from the sources of ros-controls/ros2_controllers: branch humble (2.54.0), branch jazzy
(4.42.1) and, for Lyrical, branch master (6.9.0), which its own `ros2_controllers.lyrical.repos`
builds from. Times are seconds of the caller's clock.
"""

from faster_core.sim.controllers.base import BaseController
from faster_core.sim.controllers.forward import ForwardCommandController
from faster_core.sim.controllers.gripper import (
    GripperActionController,
    GripperGoal,
    GripperResult,
)
from faster_core.sim.controllers.joint_trajectory import FLAVOURS, JointTrajectoryController
from faster_core.sim.controllers.trajectory import Point

__all__ = [
    'FLAVOURS',
    'BaseController',
    'ForwardCommandController',
    'GripperActionController',
    'GripperGoal',
    'GripperResult',
    'JointTrajectoryController',
    'Point',
]
