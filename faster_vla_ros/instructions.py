"""The instruction that is carried out: taken, refused, paused, cleared.

Every change drops what is in flight and tells the dispatcher to hold until the new plan is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from std_msgs.msg import String

from faster_core.errors import FasterVlaError
from faster_vla_msgs.msg import PolicyStatus
from faster_vla_ros.sensors.inputs import CLOCK_JUMP

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode

WAITING = 'waiting for an instruction'
FIRST = 'waiting for the first observation'
PAUSED = 'paused'
FAILED = 'the policy node has failed: deactivate and activate it'
NOT_ACTIVE = 'the policy node is not active'


class Instructions:
    """What the policy is to do now; changed by topic, goals and services of one thread.

    Attributes:
        text: the instruction that is carried out; empty if there is none.
        last: the newest instruction of the topic that was not empty.
        generation: count of changes; an inference begun before the newest one does not count.
        paused: no chunks are produced, whatever the instruction.
    """

    def __init__(self, node: PolicyNode) -> None:
        """Start without an instruction."""
        self._node = node
        self.text = self.last = ''
        self.generation = 0
        self.paused = False
        self._flushed_at = 0.0

    @property
    def listening(self) -> bool:
        """Whether observations are wanted."""
        return self._node.active and bool(self.text) and not self.paused

    def takes(self, stamp: float) -> bool:
        """Whether an observation of a time (s) is wanted.

        The dispatcher refuses what was seen just before the plan was dropped.
        """
        flushed = self._flushed_at - CLOCK_JUMP < stamp <= self._flushed_at
        return self.listening and not flushed

    def on_message(self, message: String) -> None:
        """Take an instruction of the topic; with `trigger: on_demand` it waits for its start."""
        node, text = self._node, message.data.strip()
        self.last = text or self.last
        node.goals.preempt('another instruction came on the topic')
        if not text or node.config['trigger'] == 'continuous':
            self.follow(text)
        elif node.active:
            why = self.why_not(text)
            self.clear(f'instruction refused: {why}' if why else f'waiting for a start: {text}')

    def why_not(self, text: str) -> str:
        """Return why an instruction cannot be followed now; empty if it can."""
        if not self._node.active:
            return NOT_ACTIVE
        if self._node.status.faulted:
            return FAILED
        try:
            self._node.policy.check_instruction(text)
        except FasterVlaError as e:
            return str(e)
        return ''

    def follow(self, text: str) -> str:
        """Follow an instruction; empty stops. Returns why it was refused, empty if it was not.

        A refused instruction stops too: somebody wanted something else than what is going on.
        """
        text = text.strip()
        if text and text == self.text:
            return ''
        why = self.why_not(text) if text else ''
        if why:
            self._node.get_logger().error(f'instruction refused: {why}')
        if not self._node.active:
            return why
        if why or not text:
            self.clear(f'instruction refused: {why}' if why else WAITING)
            return why
        self._change(text)
        self._say()
        return ''

    def clear(self, why: str) -> None:
        """Stop producing chunks and tell the dispatcher to hold."""
        self._change('')
        self._node.status.set(PolicyStatus.STATE_IDLE, why)

    def fail(self, why: str) -> None:
        """Stop for good: the inference thread has ended."""
        self._change('')
        self._node.status.set(PolicyStatus.STATE_FAULT, why)

    def pause(self, paused: bool) -> None:
        """Hold and stop producing chunks, or go on with the same instruction."""
        node = self._node
        with node.lock:
            self.paused = paused
            self.generation += 1
            if paused and self.text:
                self._flush(self.text)
        self._say()

    def activate(self) -> None:
        """Start anew, with the default instruction if it needs no start of its own."""
        self.paused = False
        default = self._node.config['default_instruction']
        if default and self._node.config['trigger'] == 'continuous':
            self.follow(default)

    def clock_jumped(self) -> None:
        """Forget what was under way by the old clock."""
        with self._node.lock:
            self.generation += 1
            self._flushed_at = 0.0
            self._node.outcomes.plan_dropped()

    def _say(self) -> None:
        status = self._node.status
        if self.paused:
            status.set(PolicyStatus.STATE_IDLE, PAUSED)
        elif self.text:
            status.set(PolicyStatus.STATE_WARMING_UP, FIRST)
        else:
            status.set(PolicyStatus.STATE_IDLE, WAITING)

    def _change(self, text: str) -> None:
        node = self._node
        with node.lock:
            before, self.text = self.text, text
            self.generation += 1
            node.outcomes.failures_in_a_row = 0
            if node.worker is not None:
                node.worker.discard()
            if before or not text:
                self._flush(text)

    def _flush(self, text: str) -> None:
        self._flushed_at = self._node.chunks.hold(text)
        self._node.outcomes.plan_dropped()
