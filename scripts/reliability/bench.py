"""A robot, an operator and an observer in one node, around a dispatcher in a process of its own.

The observer keeps every command with the times it was sent and received at, and judges them
afterwards in the order in which they were sent.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import math
import signal
import time
from typing import Any

from geometry_msgs.msg import TwistStamped
import numpy as np
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from faster_core.embodiment import Embodiment
from faster_core.execution.config import robot_file_parameters
from faster_vla_msgs.msg import ActionChunk, ChunkReport, DispatcherState, PolicyStatus
from faster_vla_ros.conversions import seconds_from_stamp
from faster_vla_ros.interlocks.takeover import GUARD
from scripts.reliability import faults
from scripts.reliability.chunk_source import TOPIC as CHUNKS
from scripts.reliability.motion import BASE_SPEED
from scripts.reliability.observer import LimitObserver, read_limits
from scripts.reliability.processes import Processes, ROOT
from scripts.reliability.robot import PER_METRE, Robot
from scripts.reliability.safety import all_safe, Command

ROBOT = ROOT / 'config' / 'robots' / 'r1_lite.yaml'
EMBODIMENT = ROOT / 'config' / 'embodiments' / 'r1_lite.yaml'
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
GUARD_TIMEOUT = 0.1
EARS = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PATIENCE = 60.0
TRIALS = 3  # to set the robot in motion
GOING_ON = 0.1  # s without a command are silence
DISCOVERY = 1.0  # s from when we know a process to when it knows the others


class BenchError(RuntimeError):
    """What a measurement waits for does not come."""


class Bench:
    """Everything around one dispatcher; use it as a context manager.

    Attributes:
        commands: component -> what was sent since `forget`.
        robot: what the dispatcher moves.
        chunks: publisher beside the policy's.
    """

    def __init__(
        self,
        domain: int,
        *,
        real_node: bool = False,
        sim_time: bool = False,
        changes: Mapping[str, Any] | None = None,
        rows: int = 20,
        seed: int = 0,
    ) -> None:
        """Join the domain; nothing is started yet.

        Args:
            domain: ROS domain.
            real_node: the policy is the policy node with a policy that sleeps; else a source of
                chunks.
            sim_time: this robot publishes /clock.
            changes: of the robot file's parameters of the dispatcher.
            rows: of a chunk.
            seed: of losses and of the phase between fault and tick.
        """
        self._real_node, self._sim_time, self._rows = real_node, sim_time, rows
        self.rng, self._seed = np.random.default_rng(seed), seed
        self.embodiment = Embodiment.load(EMBODIMENT)
        self.file_parameters = robot_file_parameters(ROBOT)
        self.parameters = self.file_parameters | {'embodiment': str(EMBODIMENT)}
        self.parameters |= {'estop.enable': True, 'estop.timeout': 0.5}
        self.parameters |= {'permit.topic': ''}  # no remote control here
        self.parameters |= {'use_sim_time': sim_time} | dict(changes or {})
        self.period = 1.0 / self.parameters['dispatch_rate']
        self.limits = read_limits(ROBOT, EMBODIMENT)
        # Killed processes take locks of shared memory with them: plain UDP.
        self.processes = Processes(domain, {'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'})
        self.processes.__enter__()
        self.context = Context()
        self.context.init(domain_id=domain)
        self.node = Node(
            'robot', context=self.context, use_global_arguments=False, enable_rosout=False
        )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.robot = Robot(self.node, cameras=real_node, sim_time=sim_time)
        self.violations: list[str] = []
        self.num_judged = 0
        # When set-points begin anew (ns), and whether speeds do too: those of a dispatcher that
        # goes on do not.
        self._fresh: list[tuple[int, bool]] = []
        self._newest: dict[str, Command] = {}
        self._awaited: set[str] = set()  # what begins anew with the next accepted chunk
        self._observer = LimitObserver(self.limits, self.period)
        self._create_endpoints()
        self.forget()

    def __enter__(self) -> Bench:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """End all processes and leave the domain."""
        self.processes.close()
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()

    def _create_endpoints(self) -> None:
        listen, speak = self.node.create_subscription, self.node.create_publisher
        for name, (kind, topic) in COMMANDS.items():
            listen(kind, topic, self._ear(name), EARS)
        listen(DispatcherState, '/action_dispatcher/state', self._take_state, LATCHED)
        listen(ChunkReport, '/action_dispatcher/chunk_report', self._take_report, 500)
        listen(ActionChunk, CHUNKS, self._take_chunk, EARS)
        listen(PolicyStatus, '/policy_node/status', self._take_status, LATCHED)
        self.chunks = speak(ActionChunk, CHUNKS, 1)  # an operator may send chunks as well

    # --- ears ---------------------------------------------------------------------------------

    def _ear(self, name: str) -> Callable[[Any, Any], None]:
        at = AXES.get(name)

        def take(message: Any, info: Any) -> None:
            if at:
                values = np.array([getattr(getattr(message.twist, a), b) for a, b in at])
            else:
                values = np.array(message.position)
                values = values / PER_METRE if 'gripper' in name else values
                if self.robot.follows:
                    self.robot.place[name] = values
            self._newest[name] = command = Command(
                sent_ns=info['source_timestamp'],
                received_ns=info['received_timestamp'],
                stamp=seconds_from_stamp(message.header.stamp),
                values=values,
            )
            self.commands[name].append(command)

        return take

    def _take_state(self, message: DispatcherState, info: Any) -> None:
        self.state = message
        self.states.append((info['source_timestamp'], message))

    def _take_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _take_chunk(self, message: ActionChunk, info: Any) -> None:
        self.sent_chunks[message.sequence_id] = (info['source_timestamp'], message)

    def _take_report(self, message: ChunkReport, info: Any) -> None:
        self.reports.append((info['source_timestamp'], message))
        if message.accepted and self._awaited:
            self._fresh.append((info['source_timestamp'], 'speeds' in self._awaited))
            self._awaited.clear()

    def forget(self) -> None:
        """Judge what was seen and forget it."""
        if hasattr(self, 'commands'):
            self.judge()
        self.commands: dict[str, list[Command]] = collections.defaultdict(list)
        self.states: list[tuple[int, DispatcherState]] = []
        self.reports: list[tuple[int, ChunkReport]] = []
        self.sent_chunks: dict[int, tuple[int, ActionChunk]] = {}
        if not hasattr(self, 'state'):
            self.state = self.status = None

    def judge(self) -> None:
        """Hold every command against the limits of the robot file; `violations` grows."""
        fresh = [
            (at, name, None)
            for at, speeds in self._fresh
            for name, limits in self.limits.items()
            if limits.position or speeds
        ]
        seen = [(c.sent_ns, n, c) for n, found in self.commands.items() for c in found]
        for _, name, command in sorted(fresh + seen, key=lambda item: item[0]):
            if command is None:
                self._observer.silent(name)
            else:
                self._observer.see(name, command.stamp, command.values)
        self._fresh.clear()
        self.violations = self._observer.violations
        self.num_judged = self._observer.num_checked

    def begin_anew(self, at_ns: int) -> None:
        """Do not compare commands sent after a moment with those before."""
        self._fresh.append((at_ns, True))

    def start_over(self) -> None:
        """End all processes after a failure, so that what comes next has a chance."""
        self.processes.end_all()
        self.robot.paused.clear()
        self.robot.frozen.clear()
        self.robot.follows, self.state = True, None
        self.forget()

    # --- processes ----------------------------------------------------------------------------

    def start_dispatcher(self, fifo: int = 0) -> None:
        """Start the dispatcher (`Processes.start`); what it commands begins anew."""
        self._awaited |= {'places', 'speeds'}
        self.state = None
        self.processes.start(
            'action_dispatcher',
            'faster_vla_ros.action_dispatcher',
            parameters=self.parameters,
            remappings={'action_chunk': CHUNKS},
            fifo=fifo,
        )

    def start_guard(self) -> None:
        """Start the guard of the base."""
        self.processes.start(
            'guard',
            'faster_vla_ros.guard',
            parameters={'topics': [BASE_TOPIC], 'timeout': GUARD_TIMEOUT},
        )

    def start_policy(self) -> None:
        """Start the source of chunks, or the policy node, which begins by itself."""
        faults.command(self.processes.folder, '')
        if not self._real_node:
            self.processes.start(
                'policy_node',
                'scripts.reliability.chunk_source',
                arguments=['--rows', str(self._rows), '--seed', str(self._seed)],
                parameters={'use_sim_time': self._sim_time},
                environment=faults.environment(self.processes.folder),
            )
            return
        self.status = None
        self.processes.start(
            'policy_node',
            'scripts.reliability.policy_process',
            files=[ROBOT],
            arguments=['--rows', str(self._rows)],
            parameters={
                'checkpoint_path': 'none',
                'default_instruction': 'move',
                'min_replan_period': 0.25,
                'use_sim_time': self._sim_time,
            },
            environment=faults.environment(self.processes.folder),
        )

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal a process and forget it; returns when (ns)."""
        return self.processes.signal(name, number)

    def fault(self, text: str) -> int:
        """Order a fault of the policy; returns when (ns)."""
        faults.command(self.processes.folder, text)
        return time.time_ns()

    # --- the operator -------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Handle messages for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.02))

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Handle messages until a condition holds (BenchError)."""
        end, look = time.monotonic() + patience, 0.0
        while not condition():
            now = time.monotonic()
            if now > end:
                raise BenchError(f'{what} did not come within {patience} s: {self.state}')
            if now > look:
                self.processes.check()
                look = now + 0.2
            self._executor.spin_once(timeout_sec=0.02)

    def call(self, name: str, request: Any) -> Any:
        """Call a service of the dispatcher; returns its answer."""
        kind = SetBool if isinstance(request, SetBool.Request) else Trigger
        client = self.node.create_client(kind, f'/action_dispatcher/{name}')
        try:
            self.until(client.service_is_ready, f'service {name}')
            future = client.call_async(request)
            self.until(future.done, f'answer of {name}')
            return future.result()
        finally:
            self.node.destroy_client(client)

    def enable(self) -> None:
        """Reset if need be and enable (BenchError)."""

        def enabled() -> bool:
            if self.call('enable', SetBool.Request(data=True)).success:
                return True
            self.call('reset', Trigger.Request())
            self.spin(0.05)
            return False

        if self.state is not None and self.state.enabled:
            return
        if not self._goes_on():  # asked before: the next chunk may come at once
            self._awaited.add('places')
        self.until(enabled, 'motion enabled')

    def _goes_on(self) -> bool:
        """Whether commands still go out and the robot is where they say: they must not jump."""
        now = time.time_ns()
        return all(
            name in self._newest
            and now - self._newest[name].sent_ns < GOING_ON * 1e9
            and np.allclose(self._newest[name].values, place, atol=1e-5)
            for name, place in self.robot.place.items()
        )

    def stop(self) -> None:
        """Stop by service."""
        self.call('stop', Trigger.Request())
        self.until(lambda: not self.state.enabled, 'the stop')

    def reset(self) -> None:
        """Reset after a stop by service."""
        self.call('reset', Trigger.Request())

    def drive(self, *, guard: bool = False) -> None:
        """Have everything up, enabled and moving, at a random phase of the ticks (BenchError)."""
        new_guard = guard and 'guard' not in self.processes
        if new_guard:
            self.start_guard()
        if 'action_dispatcher' not in self.processes:
            self.start_dispatcher()
        if 'policy_node' not in self.processes:
            self.start_policy()
        self.until(self.connected, 'discovery')
        # More: one that was killed is remembered for 20 s.
        self.until(lambda: self.node.count_publishers(CHUNKS) >= 2, 'the policy')
        self._set_in_motion()
        if new_guard:
            # A dispatcher that was up and moving before it has to be found by it.
            self.until(self._guarded, 'the guard')
            self.spin(DISCOVERY)
        self.spin(float(self.rng.uniform(0.1, 0.4)))

    def _set_in_motion(self) -> None:
        """Enable until it moves.

        A machine that stands still loses the heartbeat of the e-stop, and a guard may be taken
        for a rival as long as its name is not known.
        """
        for _ in range(TRIALS):
            self.enable()
            self.forget()
            self.until(lambda: self._moving() or self._disabled(), 'motion')
            if not self._disabled():
                return
            print(f'disabled before it moved: {self.state.message}')
        raise BenchError(f'disabled {TRIALS} times before it moved: {self.state}')

    def _disabled(self) -> bool:
        # By what has been said since it was enabled: `state` may still be from before.
        return bool(self.states) and not self.states[-1][1].enabled

    def connected(self) -> bool:
        """Whether robot, operator and dispatcher have found each other."""
        heard = self.robot.connected and self.chunks.get_subscription_count()
        return self.state is not None and bool(heard)

    def _guarded(self) -> bool:
        found = self.node.get_publishers_info_by_topic(BASE_TOPIC)
        return any(info.node_name == GUARD for info in found)

    def _moving(self) -> bool:
        base = self.commands['base']
        following = self.state.action in (
            DispatcherState.ACTION_FOLLOW,
            DispatcherState.ACTION_LIMIT,
        )
        fast = bool(base) and math.isclose(base[-1].values[0], BASE_SPEED, rel_tol=0.01)
        return fast and following and any(r.accepted for _, r in self.reports)

    # --- what is measured ---------------------------------------------------------------------

    def plan_end_ns(self) -> int:
        """Return when the last row of the newest accepted chunk was due (ns, wall clock)."""
        accepted = [r.sequence_id for _, r in self.reports if r.accepted and r.num_rows]
        _, chunk = self.sent_chunks[accepted[-1]]
        rows = (chunk.num_steps - 1) * seconds_from_stamp(chunk.step_period)
        offset = seconds_from_stamp(chunk.first_step_offset) + rows
        stamp = chunk.header.stamp
        return stamp.sec * 10**9 + stamp.nanosec + round(offset * 1e9)

    def safe(self, trigger_ns: int, until_ns: int) -> dict[str, Command | None]:
        """Return the first safe command of every component from one moment to another."""
        seen = {
            n: [c for c in found if c.sent_ns <= until_ns] for n, found in self.commands.items()
        }
        return all_safe(seen, self.limits, trigger_ns, self.period)
