"""All inputs of the policy: subscriptions, synchronisation, ages."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState

from faster_core.embodiment import Embodiment
from faster_core.errors import ObservationError
from faster_vla_ros import qos
from faster_vla_ros.compat.message_filters import ApproximateTimeSynchronizer, SimpleFilter
from faster_vla_ros.conversions import seconds_from_stamp
from faster_vla_ros.policy_parameters import PolicyNodeConfig
from faster_vla_ros.sensors.images import TYPES
from faster_vla_ros.sensors.state import StateSource

SYNC_QUEUE = 5


class SensorInputs:
    """Calls back with every synchronised set; keeps messages only, decodes nothing."""

    def __init__(
        self,
        node: Node,
        config: PolicyNodeConfig,
        embodiment: Embodiment,
        *,
        on_set: Callable[[float, dict[str, Any], np.ndarray], None],
        on_problem: Callable[[str], None],
    ) -> None:
        """Subscribe to all cameras and state sources.

        Args:
            node: that subscribes.
            config: topics and tolerances.
            embodiment: order of the state.
            on_set: called with stamp (s), camera -> message and the state [S].
            on_problem: called when images are there but no state fits them.
        """
        self._node, self._config, self._embodiment = node, config, embodiment
        self._on_set, self._on_problem = on_set, on_problem
        self._seen_at: dict[str, float] = {}
        self.sources = {c.name: StateSource(c, config.sources[c.name]) for c in embodiment.state}
        filters = {name: SimpleFilter() for name in config.cameras}
        self._own_subscriptions = [
            node.create_subscription(
                TYPES[camera.transport],
                camera.topic,
                lambda m, n=name: self._on_image(n, filters[n], m),
                qos.IMAGE,
            )
            for name, camera in config.cameras.items()
        ]
        # The reference comes first: the others are matched to its stamp.
        self._order = sorted(config.cameras, key=lambda n: n != config['reference_camera'])
        self._synchronizer = ApproximateTimeSynchronizer(
            [filters[n] for n in self._order], SYNC_QUEUE, config['sync_slop']
        )
        self._synchronizer.registerCallback(self._on_images)
        self._own_subscriptions += [
            node.create_subscription(
                JointState, source.topic, lambda m, n=name: self._on_state(n, m), qos.STATE
            )
            for name, source in config.sources.items()
        ]

    def destroy(self) -> None:
        """Free the subscriptions."""
        for subscription in self._own_subscriptions:
            self._node.destroy_subscription(subscription)

    def clear(self) -> None:
        """Forget the state seen so far."""
        for source in self.sources.values():
            source.clear()

    def ever_seen(self, name: str) -> bool:
        """Whether a usable message of a camera or source ever came."""
        return name in self._seen_at

    def stale(self) -> dict[str, str]:
        """Return input -> sentence for every input that is older than its timeout."""
        now, problems = time.monotonic(), {}
        for name, config in {**self._config.cameras, **self._config.sources}.items():
            age = now - self._seen_at.get(name, -np.inf)
            if age > config.timeout:
                why = self.sources[name].problem if name in self.sources else ''
                last = f'last {age:.1f} s ago' if np.isfinite(age) else 'nothing yet'
                problems[name] = f'{name} ({config.topic}): {why or last}'
        return problems

    def _on_image(self, camera: str, target: SimpleFilter, message: Any) -> None:
        self._seen_at[camera] = time.monotonic()
        self._stamp(message)
        target.signalMessage(message)

    def _on_state(self, name: str, message: JointState) -> None:
        self._stamp(message)
        if self.sources[name].add(message, seconds_from_stamp(message.header.stamp)):
            self._seen_at[name] = time.monotonic()

    def _stamp(self, message: Any) -> None:
        if self._config['use_receive_time']:
            message.header.stamp = self._node.get_clock().now().to_msg()

    def _on_images(self, *messages: Any) -> None:
        stamp = seconds_from_stamp(messages[0].header.stamp)
        slop = self._config['sync_slop']
        try:
            state = [self.sources[c.name].nearest(stamp, slop) for c in self._embodiment.state]
        except ObservationError as e:
            self._on_problem(str(e))
            return
        images = dict(zip(self._order, messages, strict=True))
        self._on_set(stamp, images, np.concatenate(state).astype(np.float32))
