"""The topics of a robot under ros2_control, with the semantics of its controllers.

Every part has a controller name: `<controller>/joint_trajectory` and `<controller>/commands`
(Float64MultiArray of a forwarding controller), grippers also `<controller>/gripper_cmd` (an
action, where control_msgs is installed). A base listens to `cmd_vel` and forgets it after
`cmd_vel_timeout`. What a controller rejects is logged and counted on /diagnostics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist, TwistStamped
import numpy as np
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from faster_core.sim.controllers import BaseController, FLAVOURS, JointTrajectoryController
from faster_core.sim.robot import PartKind
from faster_vla_ros.conversions import seconds_from_stamp, stamp_from_seconds
from faster_vla_ros.dialects.gripper_action import action_type, GripperAction
from faster_vla_ros.dialects.joint_port import JointPort
from faster_vla_ros.dialects.joint_topics import JointTopics, SYSTEM_QOS
from faster_vla_ros.parameters import Spec


def _per_arm(left: str, right: str) -> dict[str, str]:
    """Return the controllers of two arms that have a controller manager each."""
    spaces = {'left': left, 'right': right}
    return {
        f'{side}_{part}': f'{space}/{part}_controller'
        for side, space in spaces.items()
        for part in ('arm', 'gripper')
    }


# Arm -> part -> controller; what is not here is `<part>_controller`.
CONTROLLERS = {
    'fr3': {'arm': 'fr3_arm_controller'},
    'ur5e': {'arm': 'joint_trajectory_controller'},
    'xarm7': {'arm': 'xarm7_traj_controller'},
    'vx300s': _per_arm('follower_left', 'follower_right'),
    'wxai': _per_arm('trossen_arm_2', 'trossen_arm_1'),
}
DIAGNOSTICS_PERIOD = 1.0


class Ros2ControlDialect(JointTopics):
    """Trajectory, forwarding, gripper and base controllers at 200 Hz."""

    @staticmethod
    def parameters(robot: Any, names: Mapping[str, str]) -> dict[str, Spec]:
        """Names of controllers and joints, and how the controllers are configured."""
        known = CONTROLLERS.get(names['arm_model'], {})
        found = JointTopics.parameters(robot, names)
        for part in robot.parts:
            if part.kind is not PartKind.BASE:
                name = known.get(part.name, f'{part.name}_controller')
                found[f'{part.name}.controller'] = Spec(
                    type=str, default=name, help=f'controller of {part.name}'
                )
        return found | {
            'controller_flavour': Spec(
                type=str,
                default='jazzy',
                one_of=FLAVOURS,
                help='whose acceptance rules and replacement of trajectories',
            ),
            'interpolate_from_desired_state': Spec(
                type=bool,
                default=True,
                help='new trajectories start at the last command (Humble: open_loop_control)',
            ),
            'allow_partial_joints_goal': Spec(
                type=bool, default=False, help='accept trajectories for some of the joints'
            ),
            'cmd_timeout': Spec(
                type=float, default=0.0, at_least=0.0, help='s after the last point; 0: off'
            ),
            'cmd_vel.topic': Spec(type=str, default='cmd_vel', help='speed of the base'),
            'cmd_vel.stamped': Spec(
                type=bool, default=True, help='TwistStamped; else Twist (Humble can be set so)'
            ),
            'cmd_vel_timeout': Spec(
                type=float, default=0.5, at_least=0.0, help='s until a base speed is forgotten'
            ),
        }

    def __init__(self, *args: Any) -> None:
        """Create the endpoints (arguments: `Dialect`)."""
        super().__init__(*args)
        values, node = self._values, self._node
        self._flavour = values['controller_flavour']
        self._ports: dict[str, JointPort] = {}
        self._controllers: dict[str, str] = {}
        self._actions: list[GripperAction] = []
        for part in self._parts:
            self._add_part(part.name, part.kind, values[f'{part.name}.controller'])
        if self._has_base:
            kind = TwistStamped if values['cmd_vel.stamped'] else Twist
            node.create_subscription(kind, values['cmd_vel.topic'], self._on_twist, SYSTEM_QOS)
        self._base = self._make_base()
        self._base_counts = [0, 0, '']
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', SYSTEM_QOS)
        self._next_diagnostics = 0.0

    def _add_part(self, part: str, kind: PartKind, controller: str) -> None:
        # Humble has the classic gripper controller only.
        gripper = 'classic' if self._flavour == 'humble' else 'parallel'
        is_gripper = kind is PartKind.GRIPPER
        port = JointPort(
            self.joints[part],
            self._flavour,
            self._robot.sim.joint_feedback(part)[0],
            self._make_trajectory,
            gripper if is_gripper else '',
        )
        self._ports[part], self._controllers[part] = port, controller
        subscribe, bind = self._node.create_subscription, functools.partial
        topic = f'{controller}/joint_trajectory'
        subscribe(JointTrajectory, topic, bind(self._on_trajectory, part), SYSTEM_QOS)
        topic = f'{controller}/commands'
        subscribe(Float64MultiArray, topic, bind(self._on_array, part), SYSTEM_QOS)
        action = action_type(gripper) if is_gripper else None
        if action is not None:
            name = f'{controller}/gripper_cmd'
            self._actions.append(
                GripperAction(
                    self._node, gripper, name, port, self._lock, self._clock, action=action
                )
            )

    def _make_trajectory(
        self, joints: Sequence[str], position: np.ndarray
    ) -> JointTrajectoryController:
        return JointTrajectoryController(
            joints,
            self._flavour,
            position,
            period=self.slice,
            from_desired=self._values['interpolate_from_desired_state'],
            cmd_timeout=self._values['cmd_timeout'],
            allow_partial_joints_goal=self._values['allow_partial_joints_goal'],
        )

    def _make_base(self) -> BaseController:
        timeout = self._values['cmd_vel_timeout']
        return BaseController('mecanum', self._flavour, cmd_vel_timeout=timeout)

    def reset(self) -> None:
        """Activate all controllers anew where the joints are."""
        for name, port in self._ports.items():
            port.reset(self._robot.sim.joint_feedback(name)[0])
        self._base = self._make_base()

    # --- commands (executor thread) -------------------------------------------------------------

    def _on_trajectory(self, part: str, msg: JointTrajectory) -> None:
        with self._lock:
            reason = self._ports[part].take_trajectory(msg, self._clock())
        self._tell(part, 'joint_trajectory', reason)

    def _on_array(self, part: str, msg: Float64MultiArray) -> None:
        with self._lock:
            reason = self._ports[part].take_array(msg)
        self._tell(part, 'commands', reason)

    def _on_twist(self, msg: Twist | TwistStamped) -> None:
        stamp = None
        if isinstance(msg, TwistStamped):
            stamp, msg = seconds_from_stamp(msg.header.stamp), msg.twist
        speed = [msg.linear.x, msg.linear.y, msg.angular.z]
        with self._lock:
            reason = self._base.accept(speed, stamp, self._clock())
            self._base_counts[1 if reason else 0] += 1
            self._base_counts[2] = reason or self._base_counts[2]
        if reason:
            topic = self._values['cmd_vel.topic']
            self._node.get_logger().warning(f'{topic} ignored: {reason}')
            self._publish_diagnostics()

    def _tell(self, part: str, topic: str, reason: str) -> None:
        if reason:
            name = self._controllers[part]
            self._node.get_logger().error(f'{name}/{topic} rejected: {reason}')
            self._publish_diagnostics()

    # --- control cycle (physics thread) ---------------------------------------------------------

    def before_slice(self, now: float) -> None:
        """Run one cycle of every controller."""
        sim = self._robot.sim
        for name, port in self._ports.items():
            self._set_positions(name, port.update(now, sim.joint_feedback(name)))
        for action in self._actions:
            action.update()
        if self._has_base:
            self._set_base_speed(self._base.update(now))
        if not 0.0 <= self._next_diagnostics - now <= DIAGNOSTICS_PERIOD:
            self._next_diagnostics = now + DIAGNOSTICS_PERIOD
            self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        msg = DiagnosticArray()
        msg.header.stamp = stamp_from_seconds(self._clock())
        rows = [
            (self._controllers[name], p.num_accepted, p.num_rejected, p.last_reason)
            for name, p in self._ports.items()
        ]
        if self._has_base:
            rows.append((self._values['cmd_vel.topic'], *self._base_counts))
        for name, accepted, rejected, reason in rows:
            status = DiagnosticStatus(name=f'{self._node.get_name()}: {name}')
            status.level = DiagnosticStatus.WARN if rejected else DiagnosticStatus.OK
            status.message = reason or 'nothing rejected'
            status.values = [
                KeyValue(key='accepted', value=str(accepted)),
                KeyValue(key='rejected', value=str(rejected)),
            ]
            msg.status.append(status)
        self._diagnostics.publish(msg)
