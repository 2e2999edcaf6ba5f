"""What is heard of a dispatcher and its policy, and whether the commands kept to the limits.

Every command is kept with the times it was sent and received at. They are judged afterwards, in
the order in which they were sent.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import math
import time
from typing import Any

from geometry_msgs.msg import TwistStamped
import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from faster_vla_msgs.msg import ActionChunk, ChunkReport, DispatcherState, PolicyStatus
from faster_vla_ros.conversions import seconds_from_stamp
from scripts.reliability.chunk_source import TOPIC as CHUNKS
from scripts.reliability.motion import BASE_SPEED
from scripts.reliability.observer import LimitObserver, Limits
from scripts.reliability.robot import PER_METRE, Robot
from scripts.reliability.safety import all_safe, Command

BASE_TOPIC = '/motion_target/target_speed_chassis'
COMMANDS = {
    'left_arm': (JointState, '/motion_target/target_joint_state_arm_left'),
    'left_gripper': (JointState, '/motion_target/target_position_gripper_left'),
    'right_arm': (JointState, '/motion_target/target_joint_state_arm_right'),
    'right_gripper': (JointState, '/motion_target/target_position_gripper_right'),
    'torso': (TwistStamped, '/motion_target/target_speed_torso'),
    'base': (TwistStamped, BASE_TOPIC),
}
AXES = {
    'torso': (('linear', 'x'), ('linear', 'z'), ('angular', 'y'), ('angular', 'z')),
    'base': (('linear', 'x'), ('linear', 'y'), ('angular', 'z')),
}
FOLLOWING = (DispatcherState.ACTION_FOLLOW, DispatcherState.ACTION_LIMIT)
EARS = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
GOING_ON = 0.1  # s without a command are silence


class Witness:
    """Listens on a node of somebody else, and moves the robot as commanded.

    Attributes:
        commands: component -> what was sent since `forget`.
        states: what the dispatcher said since then: (when it was sent (ns), message).
        reports: on chunks, in the same form.
        sent_chunks: number -> (when it was sent (ns), message).
        state: what the dispatcher said last; None: nothing since it was started.
        status: what the policy node said last; None likewise.
        violations: of the limits, by what was judged so far.
        num_judged: commands judged so far.
        topics: component -> type and topic of its commands.
    """

    topics: Mapping[str, tuple[type, str]] = COMMANDS

    def __init__(
        self, node: Node, robot: Robot, limits: Mapping[str, Limits], period: float
    ) -> None:
        """Subscribe.

        Args:
            node: that listens.
            robot: is told where to go.
            limits: of the robot file, by component.
            period: of the commands (s).
        """
        self._robot, self._limits, self._period = robot, limits, period
        self.commands: dict[str, list[Command]] = collections.defaultdict(list)
        self.states: list[tuple[int, DispatcherState]] = []
        self.reports: list[tuple[int, ChunkReport]] = []
        self.sent_chunks: dict[int, tuple[int, ActionChunk]] = {}
        self.state: DispatcherState | None = None
        self.status: PolicyStatus | None = None
        self._observer = LimitObserver(limits, period)
        self.violations, self.num_judged = self._observer.violations, 0
        # When set-points begin anew (ns), and whether speeds do too: those of a dispatcher that
        # goes on do not.
        self._fresh: list[tuple[int, bool]] = []
        self._newest: dict[str, Command] = {}
        self._awaited: set[str] = set()  # what begins anew with the next accepted chunk
        # What was sent before these moments (ns) and is heard later is of what was before.
        self._awaited_since = self._started = 0
        listen = node.create_subscription
        for name, (kind, topic) in self.topics.items():
            listen(kind, topic, self._ear(name), EARS)
        listen(DispatcherState, '/action_dispatcher/state', self._take_state, LATCHED)
        listen(ChunkReport, '/action_dispatcher/chunk_report', self._take_report, 500)
        listen(ActionChunk, CHUNKS, self._take_chunk, EARS)
        listen(PolicyStatus, '/policy_node/status', self._take_status, LATCHED)

    # --- ears ---------------------------------------------------------------------------------

    def _ear(self, name: str) -> Callable[[Any, Any], None]:
        at = AXES.get(name)

        def take(message: Any, info: Any) -> None:
            if at:
                values = np.array([getattr(getattr(message.twist, a), b) for a, b in at])
            else:
                values = np.array(message.position)
                values = values / PER_METRE if 'gripper' in name else values
                self._robot.go(name, values)
            self._newest[name] = command = Command(
                sent_ns=info['source_timestamp'],
                received_ns=info['received_timestamp'],
                stamp=seconds_from_stamp(message.header.stamp),
                values=values,
            )
            self.commands[name].append(command)

        return take

    def _take_state(self, message: DispatcherState, info: Any) -> None:
        if info['source_timestamp'] >= self._started:
            self.state = message
        self.states.append((info['source_timestamp'], message))

    def _take_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _take_chunk(self, message: ActionChunk, info: Any) -> None:
        self.sent_chunks[message.sequence_id] = (info['source_timestamp'], message)

    def _take_report(self, message: ChunkReport, info: Any) -> None:
        self.reports.append((info['source_timestamp'], message))
        new = info['source_timestamp'] >= self._awaited_since
        if message.accepted and new and self._awaited:
            self._fresh.append((info['source_timestamp'], 'speeds' in self._awaited))
            self._awaited.clear()

    # --- the limits ---------------------------------------------------------------------------

    def forget(self) -> None:
        """Judge what was heard and forget it."""
        self._judge()
        for heard in (self.commands, self.states, self.reports, self.sent_chunks):
            heard.clear()

    def _judge(self) -> None:
        """Hold every command against the limits of the robot file."""
        fresh = [
            (at, name, None)
            for at, speeds in self._fresh
            for name, limits in self._limits.items()
            if limits.position or speeds
        ]
        seen = [(c.sent_ns, n, c) for n, found in self.commands.items() for c in found]
        for _, name, command in sorted(fresh + seen, key=lambda item: item[0]):
            if command is None:
                self._observer.silent(name)
            else:
                self._observer.see(name, command.stamp, command.values)
        self._fresh.clear()
        self.num_judged = self._observer.num_checked

    def begin_anew(self, at_ns: int) -> None:
        """Do not compare commands sent after a moment with those before."""
        self._fresh.append((at_ns, True))

    def expect_dispatcher(self) -> None:
        """A new dispatcher starts: nothing was heard of it, what it commands begins anew."""
        self._awaited |= {'places', 'speeds'}
        self.state = None
        self._started = self._awaited_since = time.time_ns()

    def expect_motion(self) -> None:
        """The dispatcher gets enabled: set-points begin anew unless they have to go on."""
        if not self._goes_on():
            self._awaited.add('places')
            self._awaited_since = time.time_ns()

    def _goes_on(self) -> bool:
        """Whether commands still go out and the robot is where they say: they must not jump."""
        now = time.time_ns()
        return all(
            name in self._newest
            and now - self._newest[name].sent_ns < GOING_ON * 1e9
            and np.allclose(self._newest[name].values, place, atol=1e-5)
            for name, place in self._robot.place.items()
        )

    # --- what it came to ----------------------------------------------------------------------

    def moving(self) -> bool:
        """Whether chunks are followed, we hear them too, and the base drives as fast as they say.

        A policy that has just been started may know the dispatcher seconds before it knows us.
        """
        base = self.commands['base']
        fast = bool(base) and math.isclose(base[-1].values[0], BASE_SPEED, rel_tol=0.01)
        following = self.state.action in FOLLOWING
        accepted = any(r.accepted for _, r in self.reports)
        return fast and following and accepted and bool(self.sent_chunks)

    def disabled(self) -> bool:
        """Whether the dispatcher said since `forget` that it is; `state` may be from before."""
        return bool(self.states) and not self.states[-1][1].enabled

    def plan_end_ns(self) -> int:
        """Return when the last row of the newest accepted chunk was due (ns, wall clock).

        By the report on it: of a policy that is killed while it sends, the chunk itself may have
        reached the dispatcher only. All chunks are timed alike.
        """
        report = [r for _, r in self.reports if r.accepted and r.num_rows][-1]
        _, chunk = next(reversed(self.sent_chunks.values()))
        rows = (report.num_rows - 1) * seconds_from_stamp(chunk.step_period)
        offset = seconds_from_stamp(chunk.first_step_offset) + rows
        stamp = report.header.stamp
        return stamp.sec * 10**9 + stamp.nanosec + round(offset * 1e9)

    def safe(self, trigger_ns: int, until_ns: int) -> dict[str, Command | None]:
        """Return the first safe command of every component from one moment to another."""
        heard = {
            n: [c for c in found if c.sent_ns <= until_ns] for n, found in self.commands.items()
        }
        return all_safe(heard, self._limits, trigger_ns, self._period)
