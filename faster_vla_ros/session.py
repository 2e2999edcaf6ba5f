"""A client of a running graph: asks, sends instructions and observes what goes over the wire.

Used by the commands, the demo and the evaluation. Everything it knows it learned from topics and
services; nothing in it is faster or nearer than what a person with `ros2 topic echo` has.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
import time
from typing import Any

from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from faster_core.errors import FasterVlaError
from faster_vla_msgs.msg import DispatcherState, GuardState, PolicyStatus
from faster_vla_msgs.srv import ResetEpisode
from faster_vla_ros.compat.discovery import local_environment
from faster_vla_ros.compat.fastdds import profile_environment
from faster_vla_ros.graph import fastdds_profile, Graph
from faster_vla_ros.interlocks.guarded import UNMET
from faster_vla_ros.services import Asking

INSTRUCTION_TOPIC, POLICY_NODE = 'instruction', 'policy_node'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SERVICE_TIMEOUT = 10.0
# Seconds in which dispatcher, guard and robot have to meet; `guard.SETTLED` is part of it.
MEETING_TIME = 8.0
# Domains 1..101 are safe on Linux; ours stay away from the low numbers people use.
OWN_DOMAINS = range(30, 100)


class SessionError(FasterVlaError, RuntimeError):
    """The running graph did not answer, or refused."""


def own_domain() -> int:
    """Return the domain the user set, else one that another graph of ours hardly uses."""
    given = os.environ.get('ROS_DOMAIN_ID')
    if not given:
        return OWN_DOMAINS[os.getpid() % len(OWN_DOMAINS)]
    if not given.isdecimal():
        raise SessionError(f'ROS_DOMAIN_ID: expected a whole number, found {given!r}')
    return int(given)


def isolated_environment(domain: int) -> dict[str, str]:
    """Return variables that keep a graph on this machine and in its domain."""
    return {'ROS_DOMAIN_ID': str(domain), **local_environment()}


class Session:
    """One node that spins only inside its own methods; use it as a context manager."""

    def __init__(
        self,
        *,
        domain: int | None = None,
        name: str = 'faster_vla',
        localhost: bool = False,
        namespace: str = '',
    ) -> None:
        """Join a domain.

        Args:
            domain: ROS domain; None: `ROS_DOMAIN_ID`.
            name: of the node; the process id is appended.
            localhost: look for nobody beyond this machine.
            namespace: of the robot that is spoken to, 'robot1'.
        """
        self._prefix = f'/{namespace.strip("/")}' if namespace.strip('/') else ''
        os.environ.update(profile_environment(fastdds_profile()))
        if localhost:
            os.environ.update(local_environment())
        # A context of its own: no signal handlers, and the caller may have another one.
        self.context = Context()
        self.context.init(domain_id=domain)
        self.node = Node(
            f'{name}_{os.getpid()}',
            context=self.context,
            use_global_arguments=False,
            enable_rosout=False,
        )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._instructions = self.node.create_publisher(
            String, f'{self._prefix}/{INSTRUCTION_TOPIC}', 1
        )

    def __enter__(self) -> Session:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the domain."""
        self.close()

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        with contextlib.suppress(RuntimeError):  # shut down already
            self.context.shutdown()

    def spin_until(
        self,
        condition: Callable[[], bool],
        timeout: float,
        check: Callable[[], None] | None = None,
    ) -> bool:
        """Handle messages until `condition` holds; False after `timeout` seconds.

        Args:
            condition: asked after every message.
            timeout: seconds.
            check: called about ten times a second; what it raises ends the wait.
        """
        deadline, next_check = time.monotonic() + timeout, 0.0
        while not condition():
            now = time.monotonic()
            if now > deadline:
                return False
            if check is not None and now >= next_check:
                check()
                next_check = now + 0.1
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def spin(self, duration: float) -> None:
        """Handle messages for so many seconds."""
        self.spin_until(lambda: False, duration)

    def now_ns(self) -> int:
        """Return the node's clock in nanoseconds."""
        return self.node.get_clock().now().nanoseconds

    def wait_until_ready(
        self,
        graph: Graph,
        timeout: float,
        check: Callable[[], None] | None = None,
        on_late: Callable[[str], None] | None = None,
    ) -> None:
        """Wait until every node of the graph says on its latched topic that it works.

        Args:
            graph: whose nodes.
            timeout: seconds.
            check: called again and again meanwhile; what it raises ends the waiting.
            on_late: called with a sentence after every `timeout` seconds, and there is no end then
                but by `check`; None: the sentence is raised.

        Raises:
            SessionError: a node reports a fault, or is not ready within `timeout` seconds.
        """
        heard: dict[str, Any] = {}
        subscriptions = []
        nodes = [spec for spec in graph.nodes if spec.ready_topic]
        for spec in nodes:
            kind, _ = _READY[spec.executable]
            take = _taker(heard, spec.name)
            subscriptions.append(
                self.node.create_subscription(kind, spec.ready_topic, take, LATCHED)
            )

        def ready(spec) -> bool:
            return spec.name in heard and _READY[spec.executable][1](heard[spec.name])

        try:
            waited = 0.0
            while not self.spin_until(lambda: all(map(ready, nodes)), timeout, check):
                waited += timeout
                missing = ', '.join(
                    f'{s.name} ({_last_word(heard.get(s.name))})' for s in nodes if not ready(s)
                )
                late = f'not ready after {waited:.0f} s: {missing}'
                if on_late is None:
                    raise SessionError(late)
                on_late(late)
        finally:
            for subscription in subscriptions:
                self.node.destroy_subscription(subscription)

    def call(self, kind: Any, name: str, request: Any, timeout: float = SERVICE_TIMEOUT) -> Any:
        """Call a service, again while it does not answer.

        Raises:
            SessionError: nobody offers it, or no answer came within `timeout` seconds.
        """
        client = self.node.create_client(kind, name)
        try:
            if not self.spin_until(client.service_is_ready, timeout):
                raise SessionError(f'nobody offers the service {name}')
            asking = Asking(client, request)
            if not self.spin_until(asking.answered, timeout):
                raise SessionError(f'no answer from the service {name} within {timeout:.0f} s')
            return asking.answer()
        finally:
            self.node.destroy_client(client)

    def trigger(self, name: str) -> str:
        """Call a Trigger service; returns its message, SessionError if it refuses."""
        name = f'{self._prefix}{name}'
        return _accepted(name, self.call(Trigger, name, Trigger.Request()))

    def enable(self, on: bool) -> str:
        """Allow or forbid motion; returns the dispatcher's message.

        A dispatcher that has just been started may still have to meet its guard: it is asked again
        for `MEETING_TIME`.
        """
        name = f'{self._prefix}/action_dispatcher/enable'
        deadline = time.monotonic() + MEETING_TIME
        while True:
            answer = self.call(SetBool, name, SetBool.Request(data=on))
            unmet = not answer.success and answer.message.startswith(UNMET)
            if not unmet or time.monotonic() > deadline:
                return _accepted(name, answer)
            self.spin(0.5)

    def reset_episode(self, seed: int, task: str) -> str:
        """Put the simulated robot into an episode's initial state; returns the instruction."""
        name = f'{self._prefix}/mujoco_robot/reset_episode'
        answer = self.call(ResetEpisode, name, ResetEpisode.Request(seed=seed, task=task))
        _accepted(name, answer)
        return answer.instruction

    def say(self, text: str, timeout: float = SERVICE_TIMEOUT) -> int:
        """Publish an instruction once the policy node listens; returns the time (ns) it was sent.

        Raises:
            SessionError: the policy node does not listen, or a listener hangs.
        """
        if not self.spin_until(self._policy_listens, timeout):
            raise SessionError(
                f'no node {self._prefix}/{POLICY_NODE} listens to the topic '
                f'{self._instructions.topic_name}: is the policy up?'
            )
        at = self.now_ns()
        self._instructions.publish(String(data=text))
        # Sending is asynchronous: do not leave before it is on its way.
        if not self._instructions.wait_for_all_acked(Duration(seconds=timeout)):
            raise SessionError(f'a listener did not take the instruction in {timeout:.0f} s')
        return at

    def _policy_listens(self) -> bool:
        """Whether an instruction reaches the policy node, whoever else listens."""
        topic, wanted = self._instructions.topic_name, (POLICY_NODE, self._prefix or '/')
        listeners = self.node.get_subscriptions_info_by_topic(topic)
        known = wanted in ((i.node_name, i.node_namespace) for i in listeners)
        return known and self._instructions.get_subscription_count() > 0


def _policy_ready(status: PolicyStatus) -> bool:
    """Whether a policy works: it says nothing before it is loaded and warm.

    It may say then that it waits for its first observation, or that a camera is late.
    """
    if status.state == PolicyStatus.STATE_FAULT:
        raise SessionError(f'the policy reports a fault: {status.message}')
    return True


# executable -> type of its ready topic, and whether a message on it says that the node works
_READY: dict[str, tuple[type, Callable[[Any], bool]]] = {
    'mujoco_robot': (Bool, lambda _: True),
    'action_dispatcher': (DispatcherState, lambda _: True),
    'guard': (GuardState, lambda _: True),
    'policy_node': (PolicyStatus, _policy_ready),
}


def _taker(heard: dict[str, Any], name: str) -> Callable[[Any], None]:
    def take(msg: Any) -> None:
        heard[name] = msg

    return take


def _last_word(msg: Any) -> str:
    if msg is None:
        return 'silent'
    return getattr(msg, 'message', '') or 'not yet'


def _accepted(name: str, answer: Any) -> str:
    if not answer.success:
        raise SessionError(f'{name} refused: {answer.message}')
    return answer.message
