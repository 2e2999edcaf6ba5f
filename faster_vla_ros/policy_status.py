"""What the policy node says about itself: status and embodiment, both latched."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from faster_vla_msgs.msg import Embodiment, PolicyStatus
from faster_vla_ros import qos

if TYPE_CHECKING:
    from faster_vla_ros.policy_node import PolicyNode


class StatusBoard:
    """Publishes the status on change and at 1 Hz, the embodiment once."""

    def __init__(self, node: PolicyNode) -> None:
        """Create the publishers and announce the embodiment."""
        self._node = node
        self._lock = threading.RLock()
        self.state, self.message = PolicyStatus.STATE_IDLE, ''
        self._status = qos.publisher(node, PolicyStatus, '~/status', qos.LATCHED)
        self._embodiment = qos.publisher(node, Embodiment, '~/embodiment', qos.LATCHED)
        self._announce()

    def destroy(self) -> None:
        """Free the publishers."""
        for publisher in (self._status, self._embodiment):
            self._node.destroy_publisher(publisher)

    @property
    def faulted(self) -> bool:
        """Whether the inference thread has ended with an exception."""
        return self.state == PolicyStatus.STATE_FAULT

    def set(self, state: int, message: str) -> None:
        """Change the state; published if it is another one. A fault stays until `recover`."""
        with self._lock:
            if not self.faulted:
                self._change(state, message)

    def recover(self, message: str) -> None:
        """Become idle, also after a fault."""
        with self._lock:
            self._change(PolicyStatus.STATE_IDLE, message)

    def _change(self, state: int, message: str) -> None:
        if (state, message) == (self.state, self.message):
            return
        if state == PolicyStatus.STATE_STALE_OBSERVATION != self.state:
            self._node.get_logger().warning(f'no chunk: {message}')
        self.state, self.message = state, message
        self.publish()

    def publish(self) -> None:
        """Publish the status."""
        node = self._node
        with self._lock:
            status = PolicyStatus(
                state=self.state,
                message=self.message,
                instruction=node.instruction,
                num_chunks_published=node.outcomes.num_published,
                num_decode_failures=node.num_failures,
                num_observations_dropped=node.num_dropped,
            )
            status.header.stamp = node.get_clock().now().to_msg()
            self._status.publish(status)

    def _announce(self) -> None:
        e = self._node.policy.embodiment
        message = Embodiment(
            name=e.name,
            checksum=e.checksum,
            action_frequency=e.action_frequency,
            action_horizon=e.action_horizon,
            camera_names=list(e.cameras),
            component_names=[c.name for c in e.action],
            component_kinds=[int(c.kind) for c in e.action],
            component_sizes=[c.size for c in e.action],
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._embodiment.publish(message)
