"""Action chunks and measured positions in; commands in the robot's own messages out.

All decisions are those of `faster_core.execution.Dispatcher`; this node moves messages. It is the
process before the motors: small, without torch, and every way out of it ends in the safe command.

A plain node, not a lifecycle one: it has nothing slow to configure, and its latched `~/state`,
published from the start on, says that it works. Nothing moves before `~/enable` unless
`require_enable` is false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import signal
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from faster_core.errors import FasterVlaError, ObservationError
from faster_core.execution.config import DispatcherConfig
from faster_core.execution.dispatcher import CLOCK_TOLERANCE, Dispatcher
from faster_core.execution.errors import ChunkError
from faster_core.execution.state import Answer, DispatcherSnapshot, Tick
from faster_core.execution.warm_up import warm_up
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_ros import dispatcher_parameters, punctual, qos, services
from faster_vla_ros.at_enable import EnableMessages
from faster_vla_ros.compat.fastdds import leave_shared_memory
from faster_vla_ros.compat.message_info import seconds_waited, with_info
from faster_vla_ros.conversions import chunk_from_message
from faster_vla_ros.dispatcher_status import DispatcherBoard
from faster_vla_ros.interlocks.authority import Authority
from faster_vla_ros.interlocks.estop import EmergencyStop
from faster_vla_ros.live_limits import LiveLimits
from faster_vla_ros.outputs.wire import Wire
from faster_vla_ros.pace import Pace
from faster_vla_ros.planned_path import PlannedPath
from faster_vla_ros.sending import Sending
from faster_vla_ros.sensors.joint_states import OtherJointsError
from faster_vla_ros.sensors.stamp_order import StampOrder
from faster_vla_ros.state_log import ENDING, StateLog

STATUS_PERIOD = 1.0
# Seconds between two looks at who else publishes, and at goals without an answer.
LOOK_PERIOD = 0.2
# Seconds everything gets to come to rest at the end; then velocities are cut to zero.
SETTLE_TIME = 2.0
# Zeros sent last: a best-effort subscriber may miss one.
NUM_ZEROS = 5
# Seconds between commands at the end, at most: whoever asked to end does not wait long.
ENDING_PERIOD = 0.02
_ASKING_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Commands = Mapping[str, np.ndarray | None]


class ActionDispatcher(Node):
    """Messages around one `Dispatcher`; see docs/ros.md for topics and parameters."""

    def __init__(self, **kwargs: Any) -> None:
        """Create the node; `configure` makes it work."""
        super().__init__(
            'action_dispatcher', automatically_declare_parameters_from_overrides=True, **kwargs
        )
        self._configured = False

    def configure(self) -> None:
        """Check the parameters, create everything that talks, start ticking.

        Raises:
            FasterVlaError: a parameter or the embodiment file is wrong; nothing was published.
        """
        self.config = dispatcher_parameters.read(self)
        self.embodiment, rules = self.config.embodiment, self.config.rules
        self._period = 1.0 / rules.dispatch_rate
        dry = self.config['dry_run']
        outputs = {} if dry else self.config.outputs
        self._wire = Wire(self, self.embodiment, outputs, self._on_goal_failure)
        self.dispatcher = Dispatcher(
            self.embodiment,
            rules,
            self.config.trajectories,
            lambda: not self._authority.why_not_enable(),
        )
        self._sending = Sending(
            self._wire,
            self.dispatcher,
            lambda: warm_up(self.embodiment, rules, self.config.trajectories),
        )
        self._at_enable = None if dry else EnableMessages(self, self.config.values)
        self._board = DispatcherBoard(self, self.embodiment, rules, self.config.frame_id)
        self._log = StateLog(self.get_logger())
        self._path = PlannedPath(self, self.embodiment, self.config.frame_id)
        self._last_reason = ''
        self._bad_feedback: set[str] = set()
        self._estop = None
        if self.config['estop.enable']:
            self._estop = EmergencyStop(self, self.config['estop.timeout'], self._tick_at_once)
        self._authority = Authority(self, self.config, wire=self._wire, twin=self._board.twin)
        for name, source in self.config.sources.items():
            take = with_info(self._feedback_taker(name))
            qos.subscription(self, JointState, source.config.topic, take, qos.STATE)
        qos.subscription(self, ActionChunkMsg, 'action_chunk', self._on_chunk, qos.CHUNK)
        qos.refuse_unused_overrides(self, self._command_topics() if dry else ())
        # Last: endpoints declare parameters of their own.
        LiveLimits(self, self.config.parameters, self.embodiment, self._set_rules)
        services.service(self, SetBool, '~/enable', self._on_enable)
        services.service(self, Trigger, '~/stop', self._on_stop)
        services.service(self, Trigger, '~/reset', self._on_reset)
        # Steady: simulated time that stands still must not stop the watchdog.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        # By the steady clock: when the newest tick began, and when it read the time.
        self._begun: float | None = None
        self._last_reading: float | None = None
        self._pace = Pace()
        self._timer = self.create_timer(self._period, self._on_timer, clock=steady)
        self.create_timer(STATUS_PERIOD, self._board.publish, clock=steady)
        self.create_timer(LOOK_PERIOD, self._on_look, clock=steady)
        set_back = JumpThreshold(
            min_forward=None,
            min_backward=Duration(seconds=-CLOCK_TOLERANCE),
            on_clock_change=False,
        )
        self._jumps = self.get_clock().create_jump_callback(
            set_back, post_callback=lambda _: self._tick_at_once()
        )
        self._authority.look()
        self._configured = True
        self._tick()
        self.get_logger().info(f'ready: {self.embodiment.name}{", dry run" if dry else ""}')

    def _command_topics(self) -> list[str]:
        """Return the topics of commands, which a dry run does not publish on."""
        topics = [config.topic for _, config in self.config.outputs.values()]
        topics += [self.config['brake.topic'], self.config['acceleration_limit.topic']]
        return [self.resolve_topic_name(t) for t in topics if t]

    def _set_rules(self, rules: DispatcherConfig) -> None:
        self.dispatcher.set_config(rules)
        self._board.rules = rules

    def leave(self) -> None:
        """Come to rest, send zeros, go silent; safe to call from any state.

        Raises:
            Exception: what went wrong on the way to rest, after the zeros were sent.
        """
        if not self._configured:
            return
        self._configured = False
        self._timer.cancel()
        self._jumps.unregister()
        pause, others = min(self._period, ENDING_PERIOD), False
        try:
            # Asked once: what others say is not heard any more, and must not end the braking.
            elsewhere, others = self._authority.reason, self._authority.others_command
            self.dispatcher.stop(self._now(), ENDING)
            end, before = time.perf_counter() + SETTLE_TIME, None
            while time.perf_counter() < end:
                commands = self._tick(elsewhere).commands
                if before is not None and _at_rest(before, commands):
                    break
                before = commands
                time.sleep(pause)
        finally:
            # Also if nothing was ever commanded here: a chassis that latches its last target may
            # still follow that of a dispatcher that was killed. Not if somebody else commands it.
            for _ in range(0 if others else NUM_ZEROS):
                self._wire.send_zeros(self.get_clock().now().to_msg())
                time.sleep(pause)

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    # --- ticks --------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        if self._begun is not None:
            self._board.timed(time.perf_counter() - self._begun - self._period)
        self._tick()

    def _tick_at_once(self) -> None:
        """Command without waiting for the next tick, which could take a period.

        The timer starts anew, so commands never come farther apart than a period; the core moves
        by the time that really passed.
        """
        self._tick()
        self._timer.reset()

    def _tick(self, elsewhere: str | None = None) -> Tick:
        """Compute, encode and publish one set of commands.

        Args:
            elsewhere: who moves the robot instead of us, if that was asked before.
        """
        self._begun = time.perf_counter()
        self._authority.next_tick()
        if self._estop is not None and (reason := self._estop.take_press()):
            self.dispatcher.stop(self._now(), reason)
        elsewhere = self._authority.reason if elsewhere is None else elsewhere
        if elsewhere and self._authority.others_command:
            self.dispatcher.yield_to(elsewhere, self._now(), taken=self._authority.taken)
        elif elsewhere:
            self.dispatcher.disarm(elsewhere, self._now())
        # One reading: the stamp of a command is the time it was computed for. And both clocks side
        # by side: what passes in between would be silence here, and there time of the next tick.
        before, self._last_reading = self._last_reading, time.perf_counter()
        moment = self.get_clock().now()
        silence = 0.0 if before is None else self._last_reading - before
        now, stamp = moment.nanoseconds * 1e-9, moment.to_msg()
        rate, gone = 1.0, silence
        if self.get_clock().ros_time_is_active:
            gone, rate = self._pace.read(self._last_reading, now), self._pace.rate
        tick = self.dispatcher.tick(now, silence, passed=gone)

        def passed() -> float:
            # Not by the robot's clock: simulated time stands still until the tick has ended.
            return rate * (time.perf_counter() - self._last_reading)

        if self._at_enable is not None:
            self._at_enable.update(tick.state.enabled)
        if late := self._sending.send(tick, stamp, passed):
            self.get_logger().warning(
                f'{passed():.2f} s passed before the trajectories of {", ".join(late)} could be '
                'sent: the next tick makes others',
                throttle_duration_sec=1.0,
            )
        self._log.update(tick.state)
        why = elsewhere
        if not (why or tick.state.enabled or self.config.rules.require_enable):
            why = self._authority.why_not_enable()
        self._board.update(_with_reason(tick.state, why))
        self._board.planned(tick.commands, stamp)
        return tick

    def _on_goal_failure(self, component: str, why: str, stops: bool) -> None:
        self.get_logger().error(why)
        if not stops:
            return
        if who := self._authority.taken_over_by:  # it was cancelled by them
            self.dispatcher.yield_to(who, self._now(), taken=self._authority.taken)
        else:
            failed = [component] if component in self.config.trajectories else []
            self.dispatcher.stop(self._now(), why, failed)

    # --- inputs -------------------------------------------------------------------------------

    def _on_chunk(self, message: ActionChunkMsg) -> None:
        """Report on a chunk, then command from it at once."""
        now, was_stopped = self._now(), self.dispatcher.is_stopped
        try:
            chunk = chunk_from_message(message, self.embodiment, frame_id=self.config.frame_id)
        except ChunkError as error:
            report = self.dispatcher.refuse(
                error, sequence_id=message.sequence_id, num_rows=message.num_steps, now=now
            )
        else:
            report = self.dispatcher.on_chunk(chunk, now)
        # An observer takes the first command after the report for the first of this chunk.
        self._board.report(message.header.stamp, report)
        if report.accepted:
            self._tick_at_once()
            self._path.show(self.dispatcher.plan, self.get_clock().now().to_msg())
        elif self.dispatcher.is_stopped and not was_stopped:
            self._tick_at_once()
        if not report.accepted and report.reason != self._last_reason:
            self.get_logger().warning(
                f'chunk {report.sequence_id} rejected: {report.reason}: {report.detail}'
            )
        self._last_reason = report.reason

    def _feedback_taker(self, name: str) -> Callable[[JointState, Mapping[str, int]], None]:
        source = self.config.sources[name]
        order = StampOrder(self.config.rules.feedback_timeout)

        def take(message: JointState, info: Mapping[str, int]) -> None:
            try:
                values = source.parse(message)
            except OtherJointsError:
                return  # two drivers may share a topic
            except ObservationError as e:
                # Not counted as fresh: the core stops when nothing better comes.
                self._board.feedback_refused(name)
                if name not in self._bad_feedback:
                    self._bad_feedback.add(name)
                    self.get_logger().error(f'feedback ignored: {e}', throttle_duration_sec=1.0)
                return
            self._bad_feedback.discard(name)
            # Simulated time is 0 until it begins; what came before would be stale at once.
            if (now := self._now()) <= 0.0:
                return
            if why := order.refuse(message.header.stamp, now):
                self._board.feedback_refused(name)
                self.get_logger().warning(
                    f'feedback of {name} ignored: {why}', throttle_duration_sec=5.0
                )
                return
            self.dispatcher.on_feedback(name, values, now, seconds_waited(info))

        return take

    def _on_look(self) -> None:
        self._authority.look()
        self._wire.look()

    # --- services -----------------------------------------------------------------------------

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            self._authority.look()
        if request.data and (why := self._authority.why_not_enable()):
            return self._answer(Answer(success=False, message=why), response)
        return self._answer(self.dispatcher.enable(request.data, self._now()), response)

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(self.dispatcher.stop(self._now()), response)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._estop is not None and (reason := self._estop.reason):
            return self._answer(
                Answer(success=False, message=f'still stopped: {reason}'), response
            )
        return self._answer(self.dispatcher.reset(self._now()), response)

    def _answer(self, answer: Answer, response: Any) -> Any:
        self.get_logger().info(answer.message)
        self._tick_at_once()
        response.success, response.message = answer.success, answer.message
        return response


def _with_reason(state: DispatcherSnapshot, elsewhere: str) -> DispatcherSnapshot:
    """Return a state that also says why motion could not be enabled now."""
    if not elsewhere or state.enabled or elsewhere in state.message:
        return state
    return dataclasses.replace(state, message=f'{state.message}; {elsewhere}')


def _at_rest(before: Commands, commands: Commands) -> bool:
    """Return whether two ticks command the same place, which only positions at rest and zeros do.

    A velocity being ramped down differs from tick to tick until it is zero.
    """
    return all(
        (a is None and b is None) or (a is not None and b is not None and (a == b).all())
        for a, b in ((before[name], commands[name]) for name in commands)
    )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to end; 1 if it could not be configured or failed."""
    ending = threading.Event()
    # Ours only take a note: rclpy's would end the context before the safe commands are sent, and
    # an exception in the middle of a tick would leave half of its commands unsent.
    for number in _ASKING_TO_END:
        signal.signal(number, lambda *_: ending.set())
    punctual.ask_for_short_slices()  # before DDS has threads
    leave_shared_memory(get_rmw_implementation_identifier())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = ActionDispatcher()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    status = 0
    try:
        node.configure()
        punctual.spare_start_up_from_collection()
        while not ending.is_set():
            executor.spin_once(timeout_sec=0.1)
        node.get_logger().info('ending')
    except ExternalShutdownException:
        pass
    except FasterVlaError as e:
        node.get_logger().fatal(f'cannot go on: {e}')
        status = 1
    except Exception:
        node.get_logger().fatal(f'failed:\n{traceback.format_exc()}')
        status = 1
    # A signal during the interpreter's own end would turn a clean end into a failure.
    for number in _ASKING_TO_END:
        signal.signal(number, signal.SIG_IGN)
    try:
        node.leave()
    except Exception:
        node.get_logger().fatal(f'failed while ending:\n{traceback.format_exc()}')
        status = 1
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return status


if __name__ == '__main__':
    sys.exit(main())
