"""When a message was sent and received, for callbacks of subscriptions.

From Iron on rclpy gives it to callbacks with two parameters. In Humble it does not: there both
times are that of the callback. Cyclone DDS does not say when a message was received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.subscription import Subscription

SUPPORTED = hasattr(Subscription, 'CallbackType')
_wall = Clock(clock_type=ClockType.SYSTEM_TIME)


def with_info(callback: Callable[[Any, Mapping[str, int]], None]) -> Callable[..., None]:
    """Return the callback to give to `create_subscription`.

    Args:
        callback: takes the message and its `source_timestamp` and `received_timestamp`, both in
            nanoseconds of the wall clock.
    """
    if SUPPORTED:
        return callback

    def take(message: Any) -> None:
        now = _wall.now().nanoseconds
        callback(message, {'source_timestamp': now, 'received_timestamp': now})

    return take


def seconds_waited(info: Mapping[str, int]) -> float:
    """Return how long a message waited for its callback; 0 if that is not known."""
    received = info['received_timestamp']
    return max((_wall.now().nanoseconds - received) * 1e-9, 0.0) if received else 0.0
