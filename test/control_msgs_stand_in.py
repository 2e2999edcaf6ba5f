"""Stand-ins for control_msgs, which is not on PyPI: classes with the fields of the real ones.

Checked by eye against ros-controls/control_msgs (FollowJointTrajectory.action,
GripperCommand.action, ParallelGripperCommand.action). They have no wire format, so what runs over
DDS with the real package is not proven here.
"""

import dataclasses
import sys
import types

from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory


@dataclasses.dataclass
class Command:
    """`control_msgs/GripperCommand`."""

    position: float = 0.0
    max_effort: float = 0.0


class GripperCommand:
    """`GripperCommand.action`."""

    @dataclasses.dataclass
    class Goal:
        command: Command = dataclasses.field(default_factory=Command)


class ParallelGripperCommand:
    """`ParallelGripperCommand.action`."""

    @dataclasses.dataclass
    class Goal:
        command: JointState = dataclasses.field(default_factory=JointState)


class FollowJointTrajectory:
    """`FollowJointTrajectory.action`."""

    @dataclasses.dataclass
    class Goal:
        trajectory: JointTrajectory = dataclasses.field(default_factory=JointTrajectory)


def install(monkeypatch, *names):
    """Let `import control_msgs.action` find these types, all of them by default."""
    kinds = (FollowJointTrajectory, GripperCommand, ParallelGripperCommand)
    package, module = types.ModuleType('control_msgs'), types.ModuleType('control_msgs.action')
    for kind in kinds:
        if not names or kind.__name__ in names:
            setattr(module, kind.__name__, kind)
    package.action = module
    monkeypatch.setitem(sys.modules, 'control_msgs', package)
    monkeypatch.setitem(sys.modules, 'control_msgs.action', module)
