"""The outputs of all components: set-points are all encoded before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from builtin_interfaces.msg import Time
import numpy as np
from rclpy.action import ActionClient
from rclpy.node import Node

from faster_core.embodiment import Embodiment
from faster_core.execution.state import Action, Tick
from faster_vla_ros.outputs.channels import ActionChannel, servers_of, TopicChannel
from faster_vla_ros.outputs.protocol import GOAL, is_action, Output, OutputConfig, TRAJECTORY

# A trajectory that is later than its beginning by more than so many seconds is put off, at most so
# many times per tick, as nothing else is done meanwhile. After so many seconds it is not sent.
LATE, MOST_PUT_OFF, TOO_LATE = 0.002, 3, 0.2


class Wire:
    """Publishers and action clients of the components that have an output."""

    def __init__(
        self,
        node: Node,
        embodiment: Embodiment,
        outputs: Mapping[str, tuple[Output, OutputConfig]],
        on_failure: Callable[[str, str, bool], None] = lambda *_: None,
    ) -> None:
        """Create the publishers and clients.

        Args:
            node: that publishes.
            embodiment: layout of the components.
            outputs: component -> (output, its configuration); others are not sent.
            on_failure: called with component, sentence and whether it is a reason to stop, when a
                goal failed.
        """
        self._outputs = {name: output for name, (output, _) in outputs.items()}
        self._configs = {name: config for name, (_, config) in outputs.items()}
        self._channels = {
            name: _channel(node, name, output, config, on_failure)
            for name, (output, config) in outputs.items()
        }
        self._zeros = {
            c.name: np.zeros(c.size) for c in embodiment.action if not c.kind.is_position
        }
        self._last_goal: dict[str, np.ndarray] = {}
        self._stopped = False

    @property
    def without_server(self) -> tuple[str, ...]:
        """Actions of components whose server is not there."""
        return tuple(self._configs[n].action for n, c in self._actions() if not c.has_server)

    @property
    def publishers(self) -> dict[str, frozenset[str]]:
        """Topics (full names) -> ids of our publishers there."""
        found: dict[str, frozenset[str]] = {}
        for channel in self._channels.values():
            if isinstance(channel, TopicChannel):
                found[channel.topic] = found.get(channel.topic, frozenset()) | channel.ids
        return found

    def is_own_goal(self, goal_id: bytes) -> bool:
        """Whether the goal of an action is one of ours."""
        return any(c.is_own(goal_id) for _, c in self._actions())

    def send(
        self,
        tick: Tick,
        stamp: Time,
        passed: Callable[[], float] = lambda: 0.0,
        put_off: Callable[[Tick, Collection[str], float], Tick] = lambda tick, *_: tick,
    ) -> list[str]:
        """Send what a tick commands.

        Args:
            tick: what there is to send.
            stamp: of the messages.
            passed: returns the seconds since the tick's time. A controller counts the times of a
                trajectory from when it comes, and computing and encoding several takes a while.
            put_off: called if that was longer than planned, with the tick, the components that
                are not sent yet, and those seconds; returns a tick whose trajectories begin later
                (`Dispatcher.put_off`).

        Returns:
            Components whose trajectories were not sent: this process stood still meanwhile.
        """
        values: dict[str, Any] = {}
        stopped = tick.state.action is Action.STOP
        for name, output in self._outputs.items():
            if output.TAKES == TRAJECTORY:
                values[name] = tick.trajectories.get(name)
            elif output.TAKES == GOAL:
                goal = tick.goals[name] if tick.state.enabled else None
                values[name] = self._new_goal(name, goal)
            else:
                values[name] = tick.commands[name]
        for name, channel in self._actions():
            if stopped and not self._stopped and self._outputs[name].TAKES == GOAL:
                channel.cancel()
            elif tick.commands[name] is None or not tick.state.enabled:
                channel.forget()
            if channel.taken and not tick.state.enabled:
                values[name] = None  # to brake there would be to take the controller back
            channel.poll()
        self._stopped = stopped
        waiting = [name for name in tick.trajectories if values.pop(name, None) is not None]
        ways = self._encoded_ways(tick, waiting, stamp)
        self._send(values, stamp)
        left = MOST_PUT_OFF
        for i, name in enumerate(waiting):
            while TOO_LATE > (late := passed()) > tick.begins_in + LATE and left:
                tick, left = put_off(tick, waiting[i:], late), left - 1
                ways |= self._encoded_ways(tick, waiting[i:], stamp)
            if late >= TOO_LATE:
                return waiting[i:]
            if name not in tick.trajectories:
                continue
            self._outputs[name].leave(ways[name], tick.trajectories[name], late)
            self._channels[name].send(ways[name])
        return []

    def _encoded_ways(self, tick: Tick, names: Sequence[str], stamp: Time) -> dict[str, Any]:
        ways = tick.trajectories
        return {n: self._outputs[n].message(ways[n], stamp) for n in names if n in ways}

    def look(self) -> None:
        """Look for goals that are not answered; called five times a second while we listen."""
        for _, channel in self._actions():
            channel.look()

    def send_zeros(self, stamp: Time) -> None:
        """Send zero for every velocity; positions have no value that is safe by itself."""
        self._send({n: v for n, v in self._zeros.items() if n in self._outputs}, stamp)

    def _send(self, values: Mapping[str, Any], stamp: Time) -> None:
        encoded = [
            (self._channels[name], self._outputs[name].message(value, stamp))
            for name, value in values.items()
            if value is not None
        ]
        for channel, message in encoded:
            channel.send(message)

    def _new_goal(self, name: str, goal: np.ndarray | None) -> np.ndarray | None:
        """Return a goal that differs from the last one by more than the deadband, else None."""
        if goal is None:
            self._last_goal.pop(name, None)  # whoever moves it meanwhile does not tell us
            return None
        last = self._last_goal.get(name)
        if last is not None and (np.abs(goal - last) <= self._configs[name].deadband).all():
            return None
        self._last_goal[name] = goal
        return goal

    def _actions(self) -> list[tuple[str, ActionChannel]]:
        return [(n, c) for n, c in self._channels.items() if isinstance(c, ActionChannel)]


def _channel(
    node: Node,
    name: str,
    output: Any,
    config: OutputConfig,
    on_failure: Callable[[str, str, bool], None],
) -> TopicChannel | ActionChannel:
    if not is_action(output):
        return TopicChannel(node, output.message_type, config.topic)
    return ActionChannel(
        ActionClient(node, output.action_type, config.action),
        one_at_a_time=output.ONE_AT_A_TIME,
        on_failure=lambda text: on_failure(
            name, f'{name} ({config.action}): {text}', output.FAILURE_STOPS
        ),
        servers=lambda: servers_of(node, config.action),
    )
