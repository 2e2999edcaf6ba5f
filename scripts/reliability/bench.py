"""A robot, an operator and a witness in one node, around a dispatcher in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import signal
import time
from typing import Any

import numpy as np
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from faster_core.embodiment import Embodiment
from faster_core.execution.config import robot_file_parameters
from faster_vla_msgs.msg import ActionChunk
from faster_vla_ros.guard import PARAMETERS as GUARD_PARAMETERS
from faster_vla_ros.interlocks.takeover import GUARD
from faster_vla_ros.services import Asking
from scripts.reliability import faults
from scripts.reliability.chunk_source import TOPIC as CHUNKS
from scripts.reliability.observer import read_limits
from scripts.reliability.processes import Processes, ROOT
from scripts.reliability.robot import Robot
from scripts.reliability.witness import BASE_TOPIC, Witness

ROBOT = ROOT / 'config' / 'robots' / 'r1_lite.yaml'
EMBODIMENT = ROOT / 'config' / 'embodiments' / 'r1_lite.yaml'
PATIENCE = 60.0
TRIALS = 3  # to set the robot in motion


def shipped_guard_timeout() -> float:
    """Return the robot file's time-out of the guard (s), or the guard's own default."""
    default = GUARD_PARAMETERS['timeout'].default
    return robot_file_parameters(ROBOT, 'guard').get('timeout', default)


class BenchError(RuntimeError):
    """What a measurement waits for does not come."""


class Bench:
    """Everything around one dispatcher; use it as a context manager.

    Attributes:
        robot_file: what the dispatcher is started with.
        embodiment_file: of the robot.
        policy_arguments: of the source of chunks.
        robot: what the dispatcher moves.
        witness: of all that is said and commanded.
        chunks: publisher beside the policy's.
        guard_timeout: of the shipped guard (s).
    """

    robot_file, embodiment_file = ROBOT, EMBODIMENT
    policy_arguments: tuple[str, ...] = ()
    make_robot, make_witness = Robot, Witness

    def __init__(
        self,
        domain: int,
        *,
        real_node: bool = False,
        sim_time: bool = False,
        changes: Mapping[str, Any] | None = None,
        rows: int = 20,
        seed: int = 0,
        fifo: int = 0,
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
            fifo: real-time priority of dispatcher and guard (`realtime_priority` of the graphs).
        """
        self._real_node, self._sim_time, self._rows = real_node, sim_time, rows
        self._fifo = fifo
        self.rng, self._seed = np.random.default_rng(seed), seed
        self.embodiment = Embodiment.load(self.embodiment_file)
        self.file_parameters = robot_file_parameters(self.robot_file)
        self.parameters = self.file_parameters | {'embodiment': str(self.embodiment_file)}
        self.parameters |= {'estop.enable': True, 'estop.timeout': 0.5}
        self.parameters |= {'permit.topic': ''}  # no remote control here
        self.parameters |= {'use_sim_time': sim_time} | dict(changes or {})
        self.period = 1.0 / self.parameters['dispatch_rate']
        self.guard_timeout = shipped_guard_timeout()
        self.limits = read_limits(self.robot_file, self.embodiment_file)
        self.processes = Processes(domain)
        self.processes.__enter__()
        self.context = Context()
        self.context.init(domain_id=domain)
        self.node = Node(
            'robot', context=self.context, use_global_arguments=False, enable_rosout=False
        )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.robot = self.make_robot(self.node, cameras=real_node, sim_time=sim_time)
        self.witness = self.make_witness(self.node, self.robot, self.limits, self.period)
        # An operator may send chunks as well.
        self.chunks = self.node.create_publisher(ActionChunk, CHUNKS, 1)

    def __enter__(self) -> Bench:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """End all processes and leave the domain."""
        self.processes.close()
        self.robot.close()
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()

    def start_over(self) -> None:
        """End all processes after a failure, so that what comes next has a chance."""
        self.processes.end_all()
        self.robot.recover()
        self.witness.state = None
        self.witness.forget()

    # --- processes ----------------------------------------------------------------------------

    def start_dispatcher(self) -> None:
        """Start the dispatcher (`Processes.start`); what it commands begins anew.

        It wants to be heard by the guard if there is one.
        """
        self.witness.expect_dispatcher()
        guard = self.parameters.get('guard.topic', '') if 'guard' in self.processes else ''
        self.processes.start(
            'action_dispatcher',
            'faster_vla_ros.action_dispatcher',
            parameters=self.parameters | {'guard.topic': guard},
            remappings={'action_chunk': CHUNKS},
            fifo=self._fifo,
        )

    def set_guard(self, wanted: bool) -> None:
        """Start or end the guard, as the robot file has it; a dispatcher that knew better ends."""
        if wanted == ('guard' in self.processes):
            return
        if 'action_dispatcher' in self.processes:
            self.processes.end('action_dispatcher')
        if not wanted:
            self.processes.end('guard')
            return
        self.processes.start('guard', 'faster_vla_ros.guard', files=[ROBOT], fifo=self._fifo)

    def start_policy(self) -> None:
        """Start the source of chunks, or the policy node, which begins by itself."""
        faults.command(self.processes.folder, '')
        if not self._real_node:
            self.processes.start(
                'policy_node',
                'scripts.reliability.chunk_source',
                arguments=[
                    *('--rows', str(self._rows), '--seed', str(self._seed)),
                    *self.policy_arguments,
                ],
                parameters={'use_sim_time': self._sim_time},
                environment=faults.environment(self.processes.folder),
            )
            return
        self.witness.status = None
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
                raise BenchError(f'{what} did not come within {patience} s: {self.witness.state}')
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
            asking = Asking(client, request)
            self.until(asking.answered, f'answer of {name}')
            return asking.answer()
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

        state = self.witness.state
        if state is not None and state.enabled:
            return
        self.witness.expect_motion()  # before it is enabled: the next chunk may come at once
        self.until(enabled, 'motion enabled')

    def stop(self) -> None:
        """Stop by service."""
        self.call('stop', Trigger.Request())
        self.until(lambda: not self.witness.state.enabled, 'the stop')

    def stand_still(self, names: Sequence[str], seconds: float) -> None:
        """Let time pass in which these and the robot stop for a moment, again and again.

        As on a computer that does: they wake in any order, and what was sent waits for all.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin(1.0)
            processes = [self.processes[name] for name in names]
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.1, 0.25))
            for i in self.rng.permutation(len(processes)):
                processes[i].send_signal(signal.SIGCONT)
        self.spin(1.0)

    def disable(self) -> None:
        """Disable by service."""
        self.call('enable', SetBool.Request(data=False))
        self.until(lambda: not self.witness.state.enabled, 'motion disabled')

    def reset(self) -> None:
        """Reset after a stop by service."""
        self.call('reset', Trigger.Request())

    def drive(self, *, guard: bool = False) -> None:
        """Have everything up, enabled and moving, at a random phase of the ticks (BenchError)."""
        if guard:
            self.set_guard(True)
        if 'action_dispatcher' not in self.processes:
            self.start_dispatcher()
        if 'policy_node' not in self.processes:
            self.start_policy()
        self.until(self.connected, 'discovery')
        # More: one that was killed is remembered for 20 s.
        self.until(lambda: self.node.count_publishers(CHUNKS) >= 2, 'the policy')
        if guard:
            self.until(self._guarded, 'the guard')
        self.set_in_motion()
        self.spin(float(self.rng.uniform(0.1, 0.4)))

    def set_in_motion(self) -> None:
        """Enable until it moves.

        A machine that stands still loses the heartbeat of the e-stop, and a guard may be taken
        for a rival as long as its name is not known.

        Raises:
            BenchError: disabled again and again before it moved.
        """
        witness = self.witness
        for _ in range(TRIALS):
            self.enable()
            witness.forget()
            self.until(lambda: witness.moving() or witness.disabled(), 'motion')
            if not witness.disabled():
                return
            print(f'disabled before it moved: {witness.state.message}')
        raise BenchError(f'disabled {TRIALS} times before it moved: {witness.state}')

    def connected(self) -> bool:
        """Whether robot, operator and dispatcher have found each other."""
        heard = self.robot.connected and self.chunks.get_subscription_count()
        return self.witness.state is not None and bool(heard)

    def _guarded(self) -> bool:
        """Whether we know the guard, whose zeros we are to hear; that it knows us it says."""
        found = self.node.get_publishers_info_by_topic(BASE_TOPIC)
        return any(info.node_name == GUARD for info in found)
