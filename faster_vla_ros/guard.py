"""The last line behind the dispatcher: zeros when it disappears while a base moves.

It listens to what is commanded. When the newest command of a topic is not zero and no other
follows for `timeout`, whoever sent it is gone: killed, hung, or cut off. A chassis that keeps its
last target (the R1 Lite's does) would drive on, so the guard sends zeros on the same topic.

A process of its own without policy, without plan and without state; it needs nobody's word that
the dispatcher has gone. Whoever starts both ends both when one of them dies, so a guard that is
asked to end stays until nothing moves any more. What it cannot cover is its own death: run it on
the robot's computer, have it restarted (systemd `Restart=always`), and keep the remote control at
hand. It says on `~/state` whom it hears, and a dispatcher told of it (`guard.topic`) moves nothing
before, and brakes when it falls silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import signal
import sys
import threading
import time
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import Float64MultiArray

from faster_core.errors import ConfigError, FasterVlaError
from faster_vla_msgs.msg import GuardState
from faster_vla_ros import parameters, qos
from faster_vla_ros.compat.fastdds import leave_shared_memory
from faster_vla_ros.endpoint_ids import endpoint_id, identified, is_of
from faster_vla_ros.graph_guard import DEFAULT_TIMEOUT
from faster_vla_ros.parameters import Spec

# Looks per timeout: how late the first zero may come at most is timeout x (1 + 1 / this), ...
LOOKS = 8
# ... and so many looks later after it stood still for half of one itself: those it leaves out.
PATIENCE = 4
# Seconds it stays at most once it was asked to end; launch and supervisor have more patience.
LAST_DUTY = 3.0
# Seconds between two states.
STATE_PERIOD = 0.5
# Seconds after which whoever we know knows us too, and gets our zeros: a message of discovery that
# was lost is repeated every 3 s (Fast DDS, heartbeats of the endpoint discovery).
SETTLED = 3.5
_AXES = ('x', 'y', 'z')
PARAMETERS = {
    'topics': Spec(type=tuple, item=str, help='of velocity commands'),
    'types': Spec(
        type=tuple,
        item=str,
        default=(),
        help='per topic: twist_stamped (the default), twist or float64_array',
    ),
    'timeout': Spec(type=float, default=DEFAULT_TIMEOUT, above=0.0, help='s without a command'),
    'duration': Spec(
        type=float, default=2.0, above=0.0, help='s that zeros are sent, unless commands come back'
    ),
}


def _twist_moves(twist: Twist) -> bool:
    return any(getattr(part, a) != 0.0 for part in (twist.linear, twist.angular) for a in _AXES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """What a type of message needs: whether it commands motion, and the zero in reply to one."""

    message: type
    moves: Callable[[Any], bool]
    zero: Callable[[Any], Any]


def _zero_stamped(like: TwistStamped) -> TwistStamped:
    message = TwistStamped()
    message.header.frame_id = like.header.frame_id
    return message


KINDS = {
    'twist_stamped': _Kind(
        message=TwistStamped, moves=lambda m: _twist_moves(m.twist), zero=_zero_stamped
    ),
    'twist': _Kind(message=Twist, moves=_twist_moves, zero=lambda _: Twist()),
    'float64_array': _Kind(
        message=Float64MultiArray,
        moves=lambda m: any(v != 0.0 for v in m.data),
        zero=lambda m: Float64MultiArray(data=[0.0] * len(m.data)),
    ),
}


class _Watch:
    """One topic: its newest command and when it came."""

    def __init__(self, node: Guard, topic: str, kind: _Kind) -> None:
        self._node, self._kind, self.topic = node, kind, node.resolve_topic_name(topic)
        self._last: Any = None
        self._heard = 0.0
        self._since: float | None = None  # when zeros began
        self._known: dict[str, float] = {}  # id of a subscription -> since when
        # Our own zeros must not pass for a command; reliable satisfies every subscriber.
        self._publisher = qos.publisher(node, kind.message, topic, qos.COMMAND)
        _, self.ids = identified(
            node,
            node.get_subscriptions_info_by_topic,
            self.topic,
            lambda: qos.subscription(node, kind.message, topic, self._take, qos.STATE),
        )

    def _take(self, message: Any) -> None:
        if self._since is not None and not self._kind.moves(message):
            return  # our own zero, or somebody's who agrees
        self._last, self._heard = message, time.perf_counter()
        if self._since is not None:
            self._since = None
            self._node.get_logger().warning(f'{self.topic}: commands are back')

    def senders(self) -> set[str]:
        """Return the ids of the publishers it hears, which a known one of another type is not."""
        node = self._node
        ears = node.get_subscriptions_info_by_topic(self.topic)
        own = [ear for ear in ears if endpoint_id(ear) in self.ids]
        return {
            endpoint_id(info)
            for info in node.get_publishers_info_by_topic(self.topic)
            for ear in own
            if not is_of(node, info) and info.topic_type == ear.topic_type
            if not qos.incompatible(info.qos_profile, ear.qos_profile)
        }

    def listeners(self) -> set[str]:
        """Return the ids of the subscriptions that its zeros reach for sure."""
        found = self._node.get_subscriptions_info_by_topic(self.topic)
        now = time.perf_counter()
        self._known = {
            each: self._known.get(each, now)
            for each in {endpoint_id(info) for info in found} - self.ids
        }
        return {each for each, since in self._known.items() if now - since >= SETTLED}

    @property
    def zeroing(self) -> bool:
        """Whether zeros are being sent."""
        return self._since is not None

    @property
    def moves(self) -> bool:
        """Whether something was commanded to move and has not been brought to zero."""
        return self.zeroing or (self._last is not None and self._kind.moves(self._last))

    def look(self, timeout: float, duration: float) -> None:
        """Send a zero if it is time for one."""
        now = time.perf_counter()
        if self._since is None:
            if self._last is None or not self._kind.moves(self._last):
                return
            if now - self._heard <= timeout:
                return
            self._since = now
            self._node.get_logger().error(
                f'{self.topic}: no command for {now - self._heard:.3f} s after one that moves: '
                'sending zeros'
            )
        if now - self._since > duration:
            self._since, self._last = None, None
            return
        message = self._kind.zero(self._last)
        if hasattr(message, 'header'):
            message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


class Guard(Node):
    """Watches topics of velocity commands; see docs/execution.md for its parameters."""

    def __init__(self, **kwargs: Any) -> None:
        """Read the parameters and start to watch.

        Raises:
            ConfigError: a parameter is unknown, missing or out of range.
        """
        super().__init__('guard', automatically_declare_parameters_from_overrides=True, **kwargs)
        values = parameters.read(self, PARAMETERS)
        topics, types = values['topics'], values['types']
        types = types or ('twist_stamped',) * len(topics)
        if not topics or len(types) != len(topics):
            raise ConfigError(
                f'types: expected one for each of {list(topics)}, found {list(types)}'
            )
        if unknown := [t for t in types if t not in KINDS]:
            raise ConfigError(f'types: expected some of {", ".join(KINDS)}, found {unknown[0]!r}')
        self._watches = [
            _Watch(self, topic, KINDS[kind]) for topic, kind in zip(topics, types, strict=True)
        ]
        self._state = qos.publisher(self, GuardState, '~/state', qos.LATCHED)
        qos.refuse_unused_overrides(self)
        parameters.refuse_changes(self)
        self._timeout, self._duration = values['timeout'], values['duration']
        self._looked, self._patient_until, self._patient = time.perf_counter(), 0.0, False
        # Steady: simulated time that stands still is no reason to sleep.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self._timeout / LOOKS, self._look, clock=steady)
        self.create_timer(STATE_PERIOD, self._tell, clock=steady)
        watched = ', '.join(w.topic for w in self._watches)
        self.get_logger().info(f'watching {watched}: zeros after {self._timeout:g} s')
        self._tell()

    def see_out(self, executor: SingleThreadedExecutor) -> None:
        """Go on until every topic is at rest: by its own commands, or by `duration` of our zeros.

        It takes a time-out at least, as a command may still be on its way, and `LAST_DUTY` at
        most: commands that do not cease then have a sender of their own.
        """
        # With a long time-out, half of what is left is for zeros all the same.
        self._timeout = min(self._timeout, LAST_DUTY / 2)
        told = time.perf_counter()
        while (passed := time.perf_counter() - told) < LAST_DUTY:
            if passed > self._timeout and not any(w.moves for w in self._watches):
                return
            executor.spin_once(timeout_sec=self._timeout / LOOKS)
            self._look()

    def _look(self) -> None:
        """Send the zeros that are due.

        If it stood still itself, as on a machine that stopped for a moment, it first hears what
        waits, and whoever stood still with it may speak. Half a time-out is enough: the newest
        command was there before the last look already.
        """
        before, self._looked = self._looked, time.perf_counter()
        # Not twice in a row: it may be so slow that every look is late.
        if not self._patient and self._looked - before > self._timeout / 2:
            self._patient_until = self._looked + PATIENCE / LOOKS * self._timeout
        self._patient = self._looked < self._patient_until
        if self._patient:
            return
        for watch in self._watches:
            watch.look(self._timeout, self._duration)

    def _tell(self) -> None:
        """Publish the state: what is watched, who is heard, where zeros go out."""
        message = GuardState(
            topics=[w.topic for w in self._watches],
            zeroing=[w.topic for w in self._watches if w.zeroing],
        )
        try:
            for watch in self._watches:
                message.publishers += sorted(watch.senders())
                message.subscriptions += sorted(watch.ids)
                message.listeners += sorted(watch.listeners())
        except Exception as e:  # what is said of others must not end the zeros
            self.get_logger().error(f'whom it hears is not known: {e}', throttle_duration_sec=5.0)
        message.header.stamp = self.get_clock().now().to_msg()
        self._state.publish(message)


def main(args: Sequence[str] | None = None) -> int:
    """Run until asked to end and nothing moves; 1 if a parameter is wrong."""
    ending = threading.Event()
    leave_shared_memory(get_rmw_implementation_identifier())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    executor = SingleThreadedExecutor()
    try:
        node = Guard()
        executor.add_node(node)
        while not ending.is_set():
            executor.spin_once(timeout_sec=0.1)
        node.see_out(executor)
        node.destroy_node()
    except ExternalShutdownException:
        pass
    except FasterVlaError as e:
        get_logger('guard').fatal(str(e))
        return 1
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
