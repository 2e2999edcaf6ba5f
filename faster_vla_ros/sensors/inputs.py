"""All inputs of the policy: subscriptions, synchronisation, ages."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
import functools
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.time import Time

from faster_core.embodiment import Embodiment
from faster_core.errors import ObservationError
from faster_vla_ros import qos
from faster_vla_ros.compat.message_filters import ApproximateTimeSynchronizer, SimpleFilter
from faster_vla_ros.conversions import seconds_from_stamp
from faster_vla_ros.input_rates import InputRates
from faster_vla_ros.policy_parameters import PolicyNodeConfig
from faster_vla_ros.sensors import images
from faster_vla_ros.sensors.state import CLOCK_JUMP, StateSource

SYNC_QUEUE = 5
# In `counts`: synchronised sets that could not be used.
SETS = 'sets'
# Seconds beyond the longest time-out of an input that images may come without a set of them.
UNMATCHED = 1.0


def synchronizer_of(filters: Iterable[SimpleFilter], slop: float) -> ApproximateTimeSynchronizer:
    """Return what makes sets of images that are at most `slop` seconds from each other."""
    # The original wants less than its slop between two stamps.
    return ApproximateTimeSynchronizer(list(filters), SYNC_QUEUE, slop + 1e-9)


class SensorInputs:
    """Calls back with every synchronised set; keeps messages only, decodes nothing.

    Attributes:
        rates: when and how often every camera and source gave something usable.
    """

    def __init__(
        self,
        node: Node,
        config: PolicyNodeConfig,
        embodiment: Embodiment,
        *,
        on_set: Callable[[float, dict[str, Any], np.ndarray], None],
        on_refused: Callable[[str], None],
        on_jump: Callable[[], None],
        subscribe: Callable[..., Subscription] | None = None,
    ) -> None:
        """Subscribe to all cameras and state sources.

        Args:
            node: that subscribes.
            config: topics and tolerances.
            embodiment: order of the state.
            on_set: called with stamp (s), camera -> message and the state [S].
            on_refused: called with the reason when an image or a set cannot be used.
            on_jump: called when the clock of the stamps went back; older images are forgotten.
            subscribe: called as `node.create_subscription`, and in its place if given.

        Raises:
            ConfigError: a source cannot fill its state component.
        """
        self._node, self._config, self._embodiment = node, config, embodiment
        self._on_set, self._on_refused, self._on_jump = on_set, on_refused, on_jump
        self.rates = InputRates(node.get_clock())
        self._refused: collections.Counter[str] = collections.Counter()
        # The reference comes first: the others are matched to its stamp.
        self._order = sorted(config.cameras, key=lambda n: n != config['reference_camera'])
        self.sources = {c.name: StateSource(c, config.sources[c.name]) for c in embodiment.state}
        self.clear()
        # One subscription per topic: a message that fills several sources is received once.
        by_topic: dict[tuple[str, type], list[str]] = {}
        for name, source in self.sources.items():
            key = (source.config.topic, source.message_type)
            by_topic.setdefault(key, []).append(name)
        subscribe = subscribe or node.create_subscription
        self._own_subscriptions = [
            subscribe(
                images.TYPES[camera.transport],
                camera.topic,
                functools.partial(self._on_image, name),
                qos.IMAGE,
            )
            for name, camera in config.cameras.items()
        ] + [
            subscribe(
                message_type, topic, functools.partial(self._on_state, tuple(names)), qos.STATE
            )
            for (topic, message_type), names in by_topic.items()
        ]

    def destroy(self) -> None:
        """Free the subscriptions."""
        for subscription in self._own_subscriptions:
            self._node.destroy_subscription(subscription)

    def clear(self) -> None:
        """Forget images, their sizes, and state seen so far."""
        self._cleared_at = self._all_came_at = self.rates.now()
        self._sizes: dict[str, tuple[int, int]] = {}
        for source in self.sources.values():
            source.clear()
        self._forget_images()

    def _forget_images(self) -> None:
        self._newest: dict[str, Time] = {}
        self._problems: dict[str, str] = {}
        self._last_set = float('-inf')
        # A new one: the real synchroniser cannot be emptied, and after a jump of the clock its
        # full queues would throw away every new message as the oldest.
        self._filters = {name: SimpleFilter() for name in self._order}
        self._synchronizer = synchronizer_of(self._filters.values(), self._config['sync_slop'])
        self._synchronizer.registerCallback(self._on_images)

    def counts(self) -> Mapping[str, int]:
        """Return input -> messages refused since it was made, and `SETS` -> sets not used."""
        names = {name: self._refused[name] for name in (*self._config.cameras, SETS)}
        return names | {name: source.num_refused for name, source in self.sources.items()}

    def stale(self) -> dict[str, str]:
        """Return input -> sentence for every input that is older than its timeout.

        If there is none, `SETS` -> sentence when images come and no set of them does.
        """
        stale = {}
        for name, config in {**self._config.cameras, **self._config.sources}.items():
            # What never came is late as soon as it had the time to come.
            if self.rates.age(name, not_before=self._cleared_at) > config.timeout:
                # The same words as long as it lasts: a status is published when they change.
                seen = self.rates.ever_seen(name)
                last = f'no message for {config.timeout} s' if seen else 'no message yet'
                source = self.sources.get(name)
                problem = source.refusal if source is not None else self._problems.get(name)
                stale[name] = problem or f'{name} ({config.topic}): {last}'
        if stale:
            self._all_came_at = self.rates.now()
        longest = max(camera.timeout for camera in self._config.cameras.values())
        if self.rates.age(SETS, not_before=self._all_came_at) > longest + UNMATCHED:
            stale[SETS] = (
                f'no images of {", ".join(self._order)} are within sync_slop '
                f'{self._config["sync_slop"]} s of each other: look at their stamps'
            )
        return stale

    def _on_image(self, camera: str, message: Any) -> None:
        self._stamp(message)
        if why := self._check_image(camera, message):
            self._problems[camera] = why
            self._refuse(camera, why)
            return
        self._problems[camera] = ''
        self.rates.took(camera)
        self._filters[camera].signalMessage(message)

    def _refuse(self, name: str, why: str) -> None:
        self._refused[name] += 1
        self._on_refused(why)

    def _check_image(self, camera: str, message: Any) -> str:
        """Return why an image is refused; empty if it is not."""
        try:
            size = images.check(camera, message)
        except ObservationError as e:
            return str(e)
        first = self._sizes.get(camera, size)
        if size != first:
            return (
                f'camera {camera}: an image of {size[0]} x {size[1]} pixels, the first one had '
                f'{first[0]} x {first[1]}'
            )
        if why := self._check_stamp(camera, message.header.stamp):
            return why
        self._sizes[camera] = size
        return ''

    def _check_stamp(self, camera: str, stamp: Any) -> str:
        """Return why an image's stamp is refused; empty if it is not."""
        if stamp.sec < 0:
            return f'camera {camera}: the stamp {stamp.sec} s is negative'
        now, last = Time.from_msg(stamp), self._newest.get(camera)
        if last is not None and now <= last:
            back = (last - now).nanoseconds / 1e9
            if back <= CLOCK_JUMP:
                how = f'runs back by {back:.3f} s' if back else 'repeats'
                return f'camera {camera}: the stamp {how}'
            self._forget_images()  # a source notices by itself, and may have the new time already
            self._on_jump()
        self._newest[camera] = now
        return ''

    def _on_state(self, names: tuple[str, ...], message: Any) -> None:
        self._stamp(message)
        stamp = seconds_from_stamp(message.header.stamp)
        for name in names:
            if self.sources[name].add(message, stamp):
                self.rates.took(name)

    def _stamp(self, message: Any) -> None:
        if self._config['use_receive_time']:
            message.header.stamp = self._node.get_clock().now().to_msg()

    def _on_images(self, *messages: Any) -> None:
        stamp = seconds_from_stamp(messages[0].header.stamp)
        self.rates.took(SETS)
        if stamp <= self._last_set:
            self._refused[SETS] += 1  # matched late; the policy has seen a newer one
            return
        slop = self._config['sync_slop']
        try:
            state = [self.sources[c.name].at(stamp, slop) for c in self._embodiment.state]
        except ObservationError as e:
            self._refuse(SETS, str(e))
            return
        self._last_set = stamp
        by_camera = dict(zip(self._order, messages, strict=True))
        self._on_set(stamp, by_camera, np.concatenate(state).astype(np.float32))
