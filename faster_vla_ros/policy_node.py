"""Cameras, state and an instruction in; action chunks out.

Callbacks only store messages; one thread decodes images and runs the policy. An instruction that
changes drops what is in flight and tells the dispatcher to hold until the new plan is there.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import signal
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from faster_core.embodiment import Embodiment
from faster_core.errors import ConfigError, DecodeError, FasterVlaError
from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros import policy_parameters, qos
from faster_vla_ros.chunk_output import ChunkOutput
from faster_vla_ros.goals import GoalServer
from faster_vla_ros.inference import InferenceThread, Job, Outcome, PolicyLike
from faster_vla_ros.parameters import refuse_changes
from faster_vla_ros.policy_status import StatusBoard
from faster_vla_ros.sensors.inputs import CLOCK_JUMP, SensorInputs

STATUS_PERIOD = 1.0
WATCH_PERIOD = 0.1
ENDING_TIMEOUT = 5.0  # s that a goal gets to disable motion before the process ends
WAITING = 'waiting for an instruction'
FIRST = 'waiting for the first observation'


def load_policy(config: policy_parameters.PolicyNodeConfig) -> PolicyLike:
    """Load a checkpoint, or connect to a policy server.

    Torch is imported here and nowhere else in the node, and not at all with a server.
    """
    if config['remote']:
        return _remote_policy(config)
    import torch

    from faster_core.policy import Policy

    torch.set_num_threads(config['num_threads'])
    return Policy.from_pretrained(
        config['checkpoint_path'],
        device=config['device'],
        dtype=config['dtype'],
        engine=config['engine'],
        temperature=config['temperature'],
        seed=config['seed'],
    )


def _remote_policy(config: policy_parameters.PolicyNodeConfig) -> PolicyLike:
    try:
        from faster_core.remote.client import RemotePolicy
    except ModuleNotFoundError as e:
        raise ConfigError(f"remote: {e.name} is missing: pip install '.[remote]'") from e
    file = config['remote_embodiment']
    return RemotePolicy(
        config['remote'],
        timeout=config['remote_timeout'],
        images=config['remote_images'],
        embodiment_checksum=Embodiment.load(file).checksum if file else '',
    )


class PolicyNode(LifecycleNode):
    """Lifecycle node around one policy; see docs/ros.md for topics and parameters."""

    def __init__(self, policy_factory: Callable[..., PolicyLike] = load_policy, **kwargs: Any):
        """Take what makes the policy out of the checked parameters."""
        super().__init__(
            'policy_node', automatically_declare_parameters_from_overrides=True, **kwargs
        )
        self._factory = policy_factory
        # Guards instruction, generation, status and the publishers of both threads.
        self._lock = threading.RLock()
        self._thread: InferenceThread | None = None
        # Frees what was created at configure, last first.
        self._endpoints = contextlib.ExitStack()
        self.policy: PolicyLike | None = None
        self.goals: GoalServer | None = None
        self.observation_age_ms = 0.0
        self.instruction, self.generation = '', 0
        self.paused = False
        self.num_published = self.num_failures = self.failures_in_a_row = 0
        self._num_refused = 0
        self.last_outcome_error = ''
        self.durations: list[float] = []
        self._flushed_at = 0.0

    # --- lifecycle ----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check and warm the policy; create everything that talks."""
        try:
            self.config = policy_parameters.read(self)
            self.policy = self._factory(self.config)
            if hasattr(self.policy, 'close'):
                self._endpoints.callback(self.policy.close)
            self._check_robot()
            self.policy.warmup(self.config['warmup_iterations'])
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

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread and the default instruction."""
        self._thread = InferenceThread(
            self.policy,
            started=self._inference_started,
            done=self._inference_done,
            min_period=self.config['min_replan_period'],
        )
        self.paused = False
        self.inputs.clear()
        self.status.recover(WAITING)
        if self.config['default_instruction']:
            self.set_instruction(self.config['default_instruction'])
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the thread, then tell the dispatcher to hold."""
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy and all endpoints; refused while a goal still disables motion."""
        if self.goals.running:
            self.get_logger().error('cannot clean up: a goal is still ending, try again')
            return TransitionCallbackReturn.FAILURE
        self._destroy_endpoints()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; the endpoints end with the node, a goal may still have to disable motion."""
        self.stop()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come back to unconfigured with nothing left."""
        self.leave()
        return TransitionCallbackReturn.SUCCESS

    def leave(self) -> None:
        """End from any state: thread stopped, dispatcher told to hold, all endpoints freed."""
        self.stop()
        self._destroy_endpoints()

    def stop(self) -> None:
        """Stop producing chunks: thread stopped, goal ended, dispatcher told to hold."""
        if self._thread is None:
            return
        if not self._thread.stop():
            self.get_logger().error('the inference in progress does not end; it is ignored')
        self._num_refused += self._thread.num_dropped
        self._thread = None
        self.goals.end('the policy node was deactivated')
        self.clear_instruction('deactivated')

    @property
    def active(self) -> bool:
        """Whether instructions are carried out."""
        return self._thread is not None

    @property
    def num_dropped(self) -> int:
        """Observations that were not usable, or that a newer one replaced before inference."""
        return self._num_refused + (self._thread.num_dropped if self._thread else 0)

    def _check_robot(self) -> None:
        embodiment = self.policy.embodiment
        if set(self.config.cameras) != set(embodiment.cameras):
            raise ConfigError(
                f"cameras: expected the embodiment's {', '.join(embodiment.cameras)}, found "
                f'{", ".join(self.config.cameras)}'
            )
        expected = {c.name for c in embodiment.state}
        if set(self.config.sources) != expected:
            raise ConfigError(
                f"state_sources: expected the embodiment's {', '.join(sorted(expected))}, found "
                f'{", ".join(self.config.sources)}'
            )

    def _create_endpoints(self) -> None:
        own, embodiment = self._endpoints, self.policy.embodiment
        # First what may be refused: a robot that does not fit leaves no trace on the wire.
        self.inputs = SensorInputs(
            self,
            self.config,
            embodiment,
            on_set=self._on_set,
            on_refused=self._on_refused,
            on_jump=self._on_jump,
        )
        own.callback(self.inputs.destroy)
        self.chunks = ChunkOutput(self, embodiment)
        own.callback(self.chunks.destroy)
        self.status = StatusBoard(self)
        own.callback(self.status.destroy)
        self.goals = GoalServer(self)
        own.callback(self.goals.destroy)
        for service in (
            self.create_service(Trigger, '~/reset', self._on_reset),
            self.create_service(SetBool, '~/pause', self._on_pause),
        ):
            own.callback(self.destroy_service, service)
        instructions = self.create_subscription(
            String, 'instruction', self._on_instruction, qos.INSTRUCTION
        )
        own.callback(self.destroy_subscription, instructions)
        for period, callback in (
            (STATUS_PERIOD, self.status.publish),
            (WATCH_PERIOD, self._watch),
        ):
            own.callback(self.destroy_timer, self.create_timer(period, callback))
        own.callback(refuse_changes(self))

    def _destroy_endpoints(self) -> None:
        self._endpoints.close()
        self.goals = self.policy = None

    # --- inputs -------------------------------------------------------------------------------

    @property
    def _listening(self) -> bool:
        return self.active and bool(self.instruction) and not self.paused

    def _on_set(self, stamp: float, images: dict[str, Any], state: np.ndarray) -> None:
        # The dispatcher refuses what was seen just before the plan was dropped.
        if not self._listening or self._flushed_at - CLOCK_JUMP < stamp <= self._flushed_at:
            return
        self._thread.offer(
            Job(
                images=images,
                state=state,
                instruction=self.instruction,
                stamp=stamp,
                generation=self.generation,
            )
        )

    def _on_refused(self, why: str) -> None:
        if self._listening:
            self._num_refused += 1
            self.status.set(PolicyStatus.STATE_STALE_OBSERVATION, why)

    def _on_jump(self) -> None:
        self.get_logger().info('the stamps of the images went back: buffers cleared')
        with self._lock:
            self.generation += 1
            self._flushed_at = 0.0

    def _on_instruction(self, message: String) -> None:
        self.goals.preempt('another instruction came on the topic')
        self.set_instruction(message.data)

    def why_not(self, text: str) -> str:
        """Return why an instruction cannot be followed now; empty if it can."""
        if not self.active:
            return 'the policy node is not active'
        if self.status.faulted:
            return 'the policy node has failed: deactivate and activate it'
        try:
            self.policy.check_instruction(text)
        except FasterVlaError as e:
            return str(e)
        return ''

    def set_instruction(self, text: str) -> str:
        """Follow an instruction; empty stops. Returns why it was refused, empty if it was not.

        A refused instruction stops too: somebody wanted something else than what is going on.
        """
        text = text.strip()
        if text and text == self.instruction:
            return ''
        why = self.why_not(text) if text else ''
        if why:
            self.get_logger().error(f'instruction refused: {why}')
        if not self.active:
            return why
        if why or not text:
            self.clear_instruction(f'instruction refused: {why}' if why else WAITING)
            return why
        self._change(text)
        self.status.set(PolicyStatus.STATE_WARMING_UP, FIRST)
        return ''

    def clear_instruction(self, why: str) -> None:
        """Stop producing chunks and tell the dispatcher to hold."""
        self._change('')
        self.status.set(PolicyStatus.STATE_IDLE, why)

    def _change(self, text: str) -> None:
        with self._lock:
            before, self.instruction = self.instruction, text
            self.generation += 1
            self.failures_in_a_row = 0
            if self._thread is not None:
                self._thread.discard()
            if before or not text:
                self._flushed_at = self.chunks.hold(text)

    # --- inference thread -----------------------------------------------------------------------

    def _inference_started(self, job: Job) -> None:
        age = self.get_clock().now() - Time(
            nanoseconds=round(job.stamp * 1e9), clock_type=self.get_clock().clock_type
        )
        self.observation_age_ms = age.nanoseconds / 1e6

    def _inference_done(self, outcome: Outcome) -> None:
        with self._lock:
            if outcome.fatal:
                self.get_logger().fatal(f'inference thread ended:\n{outcome.text}')
                self._change('')
                self.status.set(PolicyStatus.STATE_FAULT, f'{outcome.error!r}')
                return
            if outcome.job.generation != self.generation:
                return  # the instruction changed meanwhile
            if outcome.error is None:
                self._publish(outcome)
                return
            self.last_outcome_error = outcome.text
            if isinstance(outcome.error, DecodeError):
                self.num_failures += 1
                self.failures_in_a_row += 1
            else:
                self._num_refused += 1
            self.status.set(PolicyStatus.STATE_STALE_OBSERVATION, outcome.text)

    def _publish(self, outcome: Outcome) -> None:
        total = self.chunks.chunk(
            outcome,
            reference_camera=self.config['reference_camera'],
            goal_id=self.goals.goal_id,
            observation_age_ms=self.observation_age_ms,
        )
        self.num_published += 1
        self.failures_in_a_row = 0
        self.durations = [*self.durations[-99:], total]
        self.status.set(PolicyStatus.STATE_RUNNING, '')

    def _watch(self) -> None:
        if self._listening and (stale := self.inputs.stale()):
            self.status.set(PolicyStatus.STATE_STALE_OBSERVATION, '; '.join(stale.values()))
        self.goals.watch()

    # --- services -----------------------------------------------------------------------------

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, 'the policy node is not active'
        elif self.goals.running:
            response.success, response.message = False, 'a goal is running: cancel it first'
        else:
            self.clear_instruction('reset')
            self.inputs.clear()
            self._thread.reset()
            response.success, response.message = True, 'buffers and instruction dropped'
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self.active:
            response.success, response.message = False, 'the policy node is not active'
            return response
        with self._lock:
            self.paused = request.data
            self.generation += 1
            if request.data and self.instruction:
                self._flushed_at = self.chunks.hold(self.instruction)
        response.success, response.message = True, 'paused' if request.data else 'resumed'
        if request.data:
            self.status.set(PolicyStatus.STATE_IDLE, 'paused')
        elif self.instruction:
            self.status.set(PolicyStatus.STATE_WARMING_UP, FIRST)
        else:
            self.status.set(PolicyStatus.STATE_IDLE, WAITING)
        return response


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
        node.stop()
        deadline = time.monotonic() + ENDING_TIMEOUT
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
