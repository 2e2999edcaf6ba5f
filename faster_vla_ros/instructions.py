"""The instruction that is carried out: taken, refused, paused, cleared.

Every change drops what is in flight and tells the dispatcher to hold until the new plan is there.
The hold comes before the policy is asked about a new text: a policy server may take its time.
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
        # Came on the topic while a goal was ending; followed when its motion is off.
        self._after_goal = ''

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
            self._take(text)
        elif node.active:
            self.clear(f'waiting for a start: {text}')
            if why := self.why_not(text):
                self._refuse(why)

    def _take(self, text: str) -> None:
        """Follow an instruction nobody enables motion for: not by what a goal has enabled."""
        if text and self._node.active and self._node.goals.running:
            self._after_goal = text
        else:
            self.follow(text)

    def goal_ended(self, *, motion_off: bool) -> None:
        """Follow what came on the topic meanwhile, if no motion of the goal's is left."""
        text, self._after_goal = self._after_goal, ''
        if text and motion_off:
            self.follow(text)
        elif text:
            self._refuse('motion could not be disabled after the goal before')

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

    def follow(self, text: str) -> None:
        """Follow an instruction; empty stops.

        A refused instruction stops too: somebody wanted something else than what is going on.
        """
        text = text.strip()
        if not text:
            if self._node.active:
                self.clear(WAITING)
        elif text != self.text:
            if before := self.text:
                self._change('', hold_for=text)
            if why := self.why_not(text):
                if before:
                    self._node.get_logger().info(f'no longer carried out: {before}')
                self._refuse(why)
            else:
                self.begin(text)

    def begin(self, text: str) -> None:
        """Follow an instruction the policy has been asked about."""
        self._change(text)
        self._say()

    def _refuse(self, why: str) -> None:
        self._node.get_logger().error(f'instruction refused: {why}')
        if self._node.active:
            self.clear(f'instruction refused: {why}')

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
            self._take(default)

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

    def _change(self, text: str, *, hold_for: str = '') -> None:
        node = self._node
        with node.lock:
            before, self.text, self._after_goal = self.text, text, ''
            self.generation += 1
            node.outcomes.failures_in_a_row = 0
            if node.worker is not None:
                node.worker.discard()
            if before or not text:
                self._flush(text or hold_for)
        if text:
            node.get_logger().info(f'carrying out: {text}')
        elif before and not hold_for:
            node.get_logger().info(f'no longer carried out: {before}')

    def _flush(self, text: str) -> None:
        self._flushed_at = self._node.chunks.hold(text)
        self._node.outcomes.plan_dropped()
