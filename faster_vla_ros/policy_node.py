"""Cameras, state and an instruction in; action chunks out: the lifecycle of the policy node.

Callbacks only store messages; one thread decodes images and runs the policy. What is to be done is
in `instructions.py` and `goals.py`, what becomes of an inference in `outcomes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
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
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from faster_core.errors import FasterVlaError
from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros import policy_parameters, qos
from faster_vla_ros.chunk_output import ChunkOutput
from faster_vla_ros.compat.diagnostic_updater import Updater
from faster_vla_ros.done_topic import DoneTopic
from faster_vla_ros.goals import GoalServer
from faster_vla_ros.inference import InferenceThread, Job, PolicyLike
from faster_vla_ros.instructions import Instructions, WAITING
from faster_vla_ros.outcomes import Outcomes
from faster_vla_ros.parameters import refuse_changes
from faster_vla_ros.policy_diagnostics import PolicyDiagnostics
from faster_vla_ros.policy_loading import check_robot, load_policy
from faster_vla_ros.policy_services import PolicyServices
from faster_vla_ros.policy_status import StatusBoard
from faster_vla_ros.sensors.inputs import CLOCK_JUMP, SensorInputs

STATUS_PERIOD = 1.0
WATCH_PERIOD = 0.1
STOP_TIMEOUT = 10.0  # s for the inference in progress when the node is deactivated
# s for it and for all when the process ends: whoever ended it kills it soon.
LAST_STOP_TIMEOUT, ENDING_TIMEOUT = 3.0, 5.0
STILL_RUNS = 'an old inference still runs, try again'

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def _logged(transition: Transition) -> Transition:
    """Log an exception of a transition, which rclpy would swallow, and go to `on_error`."""

    @functools.wraps(transition)
    def run(node: PolicyNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            name = transition.__name__
            node.get_logger().fatal(f'{name} failed:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.ERROR

    return run


class PolicyNode(LifecycleNode):
    """Lifecycle node around one policy; see docs/ros.md for topics and parameters.

    Attributes:
        lock: guards instruction, counts and the publishers of both threads.
        worker: the inference thread, while the node is active.
    """

    def __init__(self, policy_factory: Callable[..., PolicyLike] = load_policy, **kwargs: Any):
        """Take what makes the policy out of the checked parameters."""
        super().__init__(
            'policy_node', automatically_declare_parameters_from_overrides=True, **kwargs
        )
        self._factory = policy_factory
        self.lock = threading.RLock()
        self.worker: InferenceThread | None = None
        # A worker that did not end in time; a policy is for one thread only.
        self._late: InferenceThread | None = None
        # Frees what was created at configure, last first.
        self._endpoints = contextlib.ExitStack()
        self.policy: PolicyLike | None = None
        self.goals: GoalServer | None = None
        self.instructions, self.outcomes = Instructions(self), Outcomes(self)
        self._updater = Updater(self)

    # --- lifecycle ----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check and warm the policy; create everything that talks."""
        try:
            self.config = policy_parameters.read(self)
            source = self.config['remote'] or self.config['checkpoint_path']
            self.get_logger().info(f'loading the policy: {source}')
            self.policy = self._factory(self.config)
            if hasattr(self.policy, 'close'):
                self._endpoints.callback(self.policy.close)
            check_robot(self.config, self.policy.embodiment)
            self.policy.warmup(
                self.config['warmup_iterations'], coarse=self.config['publish_coarse']
            )
            self._create_endpoints()
        except FasterVlaError as e:
            return self._failed(str(e))
        except Exception:  # rclpy would swallow it
            return self._failed('\n' + traceback.format_exc())
        if self.config['use_receive_time']:
            self.get_logger().warning('use_receive_time: the stamps of all inputs are ignored')
        self.status.set(PolicyStatus.STATE_IDLE, 'configured')
        return TransitionCallbackReturn.SUCCESS

    def _failed(self, why: str) -> TransitionCallbackReturn:
        self._destroy_endpoints()
        self.get_logger().fatal(f'cannot configure: {why}')
        return TransitionCallbackReturn.FAILURE

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the publishers, start the inference thread and the default instruction."""
        if self._inference_lasts():
            self.get_logger().error(f'cannot activate: {STILL_RUNS}')
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self.worker = InferenceThread(
            self.policy,
            started=self.outcomes.started,
            done=self.outcomes.done,
            min_period=self.config['min_replan_period'],
            coarse=self.config['publish_coarse'],
        )
        self.inputs.clear()
        self.status.recover(WAITING)
        self.get_logger().info(f'ready: {self.policy.embodiment.name}')
        self.instructions.activate()
        return result

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the thread, tell the dispatcher to hold, then close the publishers."""
        self.stop(STOP_TIMEOUT)
        return super().on_deactivate(state)

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy and all endpoints; refused while a goal or an inference still ends."""
        if self.goals.running:
            self.get_logger().error('cannot clean up: a goal is still ending, try again')
            return TransitionCallbackReturn.FAILURE
        if self._inference_lasts():
            self.get_logger().error(f'cannot clean up: {STILL_RUNS}')
            return TransitionCallbackReturn.FAILURE
        self._destroy_endpoints()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; the endpoints end with the node, a goal may still have to disable motion."""
        self.stop(LAST_STOP_TIMEOUT)
        return super().on_deactivate(state)

    @_logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come back to unconfigured with nothing left."""
        self.leave()
        return TransitionCallbackReturn.SUCCESS

    def leave(self) -> None:
        """End from any state: thread stopped, dispatcher told to hold, all endpoints freed."""
        try:
            self.stop(LAST_STOP_TIMEOUT)
        finally:
            self._destroy_endpoints()

    def stop(self, timeout: float) -> None:
        """Stop producing chunks: dispatcher told to hold, goal ended, thread stopped.

        Args:
            timeout: seconds for the inference in progress, which is ignored from then on.
        """
        worker = self.worker
        if worker is None:
            return
        worker.stop()
        self.worker = None
        with self.lock:
            self.outcomes.num_refused += worker.num_dropped
        try:
            # Before the wait for the inference: the process may be killed meanwhile.
            self.goals.end('the policy node was deactivated')
            self.instructions.clear('deactivated')
        finally:
            if not worker.join(timeout):
                self._late = worker
                self.get_logger().error('the inference in progress does not end; it is ignored')

    def _inference_lasts(self) -> bool:
        return self._late is not None and not self._late.join(0.0)

    @property
    def active(self) -> bool:
        """Whether instructions are carried out."""
        return self.worker is not None

    @property
    def instruction(self) -> str:
        """The instruction that is carried out; empty if there is none."""
        return self.instructions.text

    @property
    def num_failures(self) -> int:
        """Inferences whose codes could not be decoded."""
        return self.outcomes.num_failures

    @property
    def num_dropped(self) -> int:
        """Observations that were not usable, or that a newer one replaced before inference."""
        worker = self.worker
        return self.outcomes.num_refused + (worker.num_dropped if worker else 0)

    # --- endpoints ----------------------------------------------------------------------------

    def _create_endpoints(self) -> None:
        embodiment = self.policy.embodiment
        # First what may be refused: a robot that does not fit leaves no trace on the wire.
        self.inputs = self._own(
            SensorInputs(
                self,
                self.config,
                embodiment,
                on_set=self._on_set,
                on_refused=self._on_refused,
                on_jump=self._on_stamps_back,
                subscribe=functools.partial(qos.subscription, self),
            )
        )
        self.chunks = self._own(ChunkOutput(self, embodiment, self.config['frame_id']))
        self.status = self._own(StatusBoard(self))
        self.goals = self._own(GoalServer(self))
        self._own(PolicyServices(self))
        if topic := self.config['done_topic']:
            self._own(DoneTopic(self, topic, self.goals.succeed))
        self._own(PolicyDiagnostics(self, self._updater))
        own = self._endpoints
        instructions = qos.subscription(
            self, String, 'instruction', self.instructions.on_message, qos.INSTRUCTION
        )
        own.callback(self.destroy_subscription, instructions)
        # Steady: simulated time that stands still must not keep a goal from its end.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period, callback in (
            (STATUS_PERIOD, self.status.publish),
            (WATCH_PERIOD, self._watch),
        ):
            timer = self.create_timer(period, callback, clock=steady)
            own.callback(self.destroy_timer, timer)
        threshold = JumpThreshold(
            min_forward=Duration(seconds=CLOCK_JUMP),
            min_backward=Duration(seconds=-CLOCK_JUMP),
            on_clock_change=False,
        )
        handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_jump)
        own.callback(handle.unregister)
        qos.refuse_unused_overrides(self)
        own.callback(refuse_changes(self, self.config.changeable(), self._on_change))

    def _own(self, part: Any) -> Any:
        self._endpoints.callback(part.destroy)
        return part

    def _destroy_endpoints(self) -> None:
        self._endpoints.close()
        # An inference that lasts keeps the policy it runs on; the next configure makes another.
        self.goals = self.policy = self._late = None

    # --- callbacks ----------------------------------------------------------------------------

    def _on_set(self, stamp: float, images: dict[str, Any], state: np.ndarray) -> None:
        if self.instructions.takes(stamp):
            self.worker.offer(
                Job(
                    images=images,
                    state=state,
                    instruction=self.instructions.text,
                    stamp=stamp,
                    generation=self.instructions.generation,
                )
            )

    def _on_refused(self, why: str) -> None:
        if self.instructions.listening:
            self.outcomes.refused(why)

    def _on_stamps_back(self) -> None:
        self.get_logger().info('the stamps of the images went back: buffers cleared')
        self.instructions.clock_jumped()
        self.goals.clock_jumped()

    def _on_jump(self, jump: Any) -> None:
        seconds = jump.delta.nanoseconds / 1e9
        way = 'back' if seconds < 0 else 'forward'
        self.get_logger().info(f'the clock jumped {way} by {abs(seconds):.3f} s: buffers cleared')
        self.inputs.clear()
        self.instructions.clock_jumped()
        self.goals.clock_jumped()

    def _on_change(self, values: dict[str, Any]) -> None:
        """Apply parameters that may change while the node runs (ConfigError)."""
        self.config.change(values)
        if 'sync_slop' in values:
            self.inputs.clear()
        if self.worker is not None:
            self.worker.min_period = self.config['min_replan_period']

    def _watch(self) -> None:
        if self.instructions.listening and (stale := self.inputs.stale()):
            self.status.set(PolicyStatus.STATE_STALE_OBSERVATION, '; '.join(stale.values()))
        self.goals.watch()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to end; 1 if it could not be configured."""
    # Our own handlers: rclpy's would shut the context down before the last chunk is published.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    node = PolicyNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not node.has_parameter('autostart') or node.get_parameter('autostart').value:
            if node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                return 1
            if node.trigger_activate() != TransitionCallbackReturn.SUCCESS:
                return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        node.get_logger().info('ending')
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        deadline = time.monotonic() + ENDING_TIMEOUT
        node.stop(LAST_STOP_TIMEOUT)
        while node.goals is not None and node.goals.running and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        node.leave()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == '__main__':
    sys.exit(main())
