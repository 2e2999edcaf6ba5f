"""Cameras, state and an instruction in; action chunks out.

Callbacks only store messages; one thread decodes images and runs the policy. An instruction that
changes drops what is in flight and tells the dispatcher to hold until the new plan is there.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
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

from faster_core.chunk import ActionChunk
from faster_core.errors import ConfigError, DecodeError, FasterVlaError
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_msgs.msg import InferenceTiming, PolicyStatus
from faster_vla_ros import policy_parameters, qos
from faster_vla_ros.conversions import chunk_to_message, seconds_from_stamp
from faster_vla_ros.goals import GoalServer
from faster_vla_ros.inference import InferenceThread, Job, Outcome, PolicyLike
from faster_vla_ros.parameters import refuse_changes
from faster_vla_ros.policy_status import StatusBoard
from faster_vla_ros.sensors.inputs import SensorInputs

STATUS_PERIOD = 1.0
WATCH_PERIOD = 0.1


def load_policy(config: policy_parameters.PolicyNodeConfig) -> PolicyLike:
    """Load a checkpoint; torch is imported here and nowhere else in the node."""
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
        self._own_timers: list[Any] = []
        self.goals: GoalServer | None = None
        self.observation_age_ms = 0.0
        self.instruction, self.generation = '', 0
        self.paused = False
        self.sequence_id = 0
        self.num_published = self.num_failures = self.failures_in_a_row = 0
        self.last_outcome_error = ''
        self.durations: list[float] = []
        self._changes_refused = False

    # --- lifecycle ----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check and warm the policy; create everything that talks."""
        try:
            self.config = policy_parameters.read(self)
            self.policy = self._factory(self.config)
            self._check_robot()
            self.policy.warmup(self.config['warmup_iterations'])
            self._create_endpoints()
        except FasterVlaError as e:
            self.get_logger().fatal(f'cannot configure: {e}')
            return TransitionCallbackReturn.FAILURE
        except Exception:  # rclpy would swallow it
            self.get_logger().fatal(f'cannot configure:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        if not self._changes_refused:
            self._changes_refused = True
            refuse_changes(self)
        self.status.set(PolicyStatus.STATE_IDLE, 'configured')
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread and the default instruction."""
        self._thread = InferenceThread(
            self.policy,
            started=self._inference_started,
            done=self._inference_done,
            min_period=self.config['min_replan_period'],
        )
        self._own_timers = [
            self.create_timer(STATUS_PERIOD, self.status.publish),
            self.create_timer(WATCH_PERIOD, self._watch),
        ]
        self.status.set(PolicyStatus.STATE_IDLE, 'waiting for an instruction')
        if self.config['default_instruction']:
            self.set_instruction(self.config['default_instruction'])
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the thread, then tell the dispatcher to hold."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy and all endpoints."""
        self._destroy_endpoints()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave as from any state."""
        self.leave()
        return TransitionCallbackReturn.SUCCESS

    def leave(self) -> None:
        """End from any state: thread stopped, dispatcher told to hold."""
        self._stop()
        self._destroy_endpoints()

    def _stop(self) -> None:
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self._own_timers = []
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
            self.clear_instruction('deactivated')

    @property
    def num_dropped(self) -> int:
        """Observations that a newer one replaced before inference."""
        return self._thread.num_dropped if self._thread is not None else 0

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
        self._chunks = self.create_publisher(ActionChunkMsg, '~/action_chunk', qos.CHUNK)
        self._timing = self.create_publisher(InferenceTiming, '~/timing', qos.REPORT)
        self.status = StatusBoard(self)
        self.inputs = SensorInputs(
            self,
            self.config,
            self.policy.embodiment,
            on_set=self._on_set,
            on_problem=self._on_problem,
        )
        self._instructions = self.create_subscription(
            String, 'instruction', self._on_instruction, qos.INSTRUCTION
        )
        self._own_services = [
            self.create_service(Trigger, '~/reset', self._on_reset),
            self.create_service(SetBool, '~/pause', self._on_pause),
        ]
        self.goals = GoalServer(self)

    def _destroy_endpoints(self) -> None:
        if self.goals is None:
            return
        self.goals.destroy()
        self.goals = None
        self.inputs.destroy()
        self.status.destroy()
        self.destroy_subscription(self._instructions)
        for service in self._own_services:
            self.destroy_service(service)
        self.destroy_publisher(self._chunks)
        self.destroy_publisher(self._timing)
        self.policy = None

    # --- inputs -------------------------------------------------------------------------------

    def _on_set(self, stamp: float, images: dict[str, Any], state: np.ndarray) -> None:
        if self._thread is None or not self.instruction or self.paused:
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

    def _on_problem(self, text: str) -> None:
        if self.instruction and not self.status.faulted:
            self.status.set(PolicyStatus.STATE_STALE_OBSERVATION, text)

    def _on_instruction(self, message: String) -> None:
        self.goals.preempt('another instruction came on the topic')
        self.set_instruction(message.data)

    def set_instruction(self, text: str) -> str:
        """Follow an instruction; empty stops. Returns why it was refused, empty if it was not.

        A refused instruction stops too: somebody wanted something else than what is going on.
        """
        text = text.strip()
        if self._thread is None:
            return 'the policy node is not active'
        if text == self.instruction and text:
            return ''
        if not text:
            self.clear_instruction('waiting for an instruction')
            return ''
        try:
            self.policy.check_instruction(text)
        except FasterVlaError as e:
            self.get_logger().error(f'instruction refused: {e}')
            self.clear_instruction(f'instruction refused: {e}')
            return str(e)
        self._change(text)
        self.status.set(PolicyStatus.STATE_WARMING_UP, 'waiting for the first observation')
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
            if before or not text:
                self._publish_hold(text)

    def _publish_hold(self, text: str) -> None:
        embodiment = self.policy.embodiment
        hold = ActionChunk(
            values=np.zeros((0, embodiment.action_dim), dtype=np.float32),
            stamp=seconds_from_stamp(self.get_clock().now().to_msg()),
            first_step_offset=embodiment.step_period,
            step_period=embodiment.step_period,
            sequence_id=self._next_id(),
            embodiment_checksum=embodiment.checksum,
        )
        self._chunks.publish(chunk_to_message(hold, embodiment, instruction=text))

    def _next_id(self) -> int:
        self.sequence_id += 1
        return self.sequence_id

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
                self._publish_hold('')
                self.status.set(PolicyStatus.STATE_FAULT, f'{outcome.error!r}')
                return
            if outcome.job.generation != self.generation or self.paused:
                return  # the instruction changed meanwhile
            if outcome.error is not None:
                self.last_outcome_error = outcome.text
                if isinstance(outcome.error, DecodeError):
                    self.num_failures += 1
                    self.failures_in_a_row += 1
                self.status.set(PolicyStatus.STATE_STALE_OBSERVATION, outcome.text)
                return
            self._publish_chunk(outcome)

    def _publish_chunk(self, outcome: Outcome) -> None:
        chunk = dataclasses.replace(outcome.chunk, sequence_id=self._next_id())
        message = chunk_to_message(
            chunk,
            self.policy.embodiment,
            instruction=outcome.job.instruction,
            goal_id=self.goals.goal_id,
        )
        self._chunks.publish(message)
        total = (time.perf_counter() - outcome.started) * 1e3
        self.num_published += 1
        self.failures_in_a_row = 0
        self.durations = [*self.durations[-99:], total]
        if self._timing.get_subscription_count():
            t = chunk.timing
            timing = InferenceTiming(
                sequence_id=chunk.sequence_id,
                observation_age_ms=self.observation_age_ms,
                preprocess_ms=t.preprocess_ms + outcome.preprocess_ms,
                vision_ms=t.vision_ms,
                prefill_ms=t.prefill_ms,
                decode_block_ms=list(t.decode_block_ms),
                detokenize_ms=t.detokenize_ms,
                total_ms=total,
            )
            timing.header.stamp = message.header.stamp
            self._timing.publish(timing)
        self.status.set(PolicyStatus.STATE_RUNNING, '')

    def _watch(self) -> None:
        if self.instruction and (stale := self.inputs.stale()):
            self._on_problem('no input: ' + '; '.join(stale.values()))
        self.goals.watch()

    # --- services -----------------------------------------------------------------------------

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self.goals.running:
            response.success, response.message = False, 'a goal is running: cancel it first'
            return response
        self.clear_instruction('reset')
        self.inputs.clear()
        self.policy.reset()
        response.success, response.message = True, 'buffers and instruction dropped'
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            self.paused = request.data
            self.generation += 1
            if request.data and self.instruction:
                self._publish_hold(self.instruction)
        response.success = True
        response.message = 'paused' if request.data else 'resumed'
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
            node.trigger_activate()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        node.get_logger().info('ending')
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        node.leave()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == '__main__':
    sys.exit(main())
