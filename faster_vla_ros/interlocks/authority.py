"""Whether the robot is ours to move: what permit, take-over, twin and guard say, as one answer."""

from __future__ import annotations

from rclpy.node import Node

from faster_vla_ros.dispatcher_parameters import DispatcherNodeConfig
from faster_vla_ros.interlocks.guarded import Guarded
from faster_vla_ros.interlocks.permit import Permit
from faster_vla_ros.interlocks.takeover import Takeover
from faster_vla_ros.interlocks.twin import Twin
from faster_vla_ros.outputs import Ways, ways_in
from faster_vla_ros.outputs.wire import Wire


class Authority:
    """Asks all interlocks that concern others; `look` asks the graph, the rest is cheap."""

    def __init__(
        self, node: Node, config: DispatcherNodeConfig, *, wire: Wire, twin: Twin
    ) -> None:
        """Create the interlocks that the parameters ask for.

        Args:
            node: the dispatcher.
            config: its parameters.
            wire: knows our own goals and which servers are missing.
            twin: listens for a second dispatcher.
        """
        self._node, self._wire, self._twin = node, wire, twin
        self._exclusive = [node.resolve_topic_name(t) for t in config['exclusive_topics']]
        watched = config['takeover.publishers'] and not config['dry_run']
        self._takeover = Takeover(
            node,
            topics=config['takeover.topics'],
            ways=_ways(node, config) if watched else {},
            is_own_goal=wire.is_own_goal,
            timeout=config['takeover.timeout'],
        )
        self._permit = None
        if config['permit.topic']:
            self._permit = Permit(
                node,
                topic=config['permit.topic'],
                field=config['permit.field'],
                value=config['permit.value'],
                timeout=config['permit.timeout'],
            )
        self._guarded = None
        if config['guard.topic'] and not config['dry_run']:
            self._guarded = Guarded(
                node,
                topic=config['guard.topic'],
                driving=[node.resolve_topic_name(t) for t in config.driving],
                commands=wire.publishers,
                timeout=config['guard.timeout'],
            )

    def look(self) -> None:
        """Look who else is there; for a slow timer."""
        self._takeover.look()
        for each in (self._permit, self._guarded):
            if each is not None:
                each.look()

    def next_tick(self) -> None:
        """Say that a tick begins: what was said since the last one counts in it."""
        self._takeover.next_tick()

    @property
    def reason(self) -> str:
        """Why it is not for us to move the robot; empty if it is."""
        permit = self._permit.reason if self._permit is not None else ''
        guarded = self._guarded.reason if self._guarded is not None else ''
        return permit or self._takeover.reason or self._twin.reason or guarded

    @property
    def taken_over_by(self) -> str:
        """Who has taken the robot over by commands of their own; empty if nobody has."""
        return self._takeover.commands

    @property
    def taken(self) -> frozenset[str]:
        """Components whose controllers somebody else commands."""
        return self._takeover.taken

    @property
    def others_command(self) -> bool:
        """Whether somebody may be moving the robot: then nothing is braked.

        A remote control that is gone does not, nor a second dispatcher: it hears us as well. Nor
        does a topic that we cannot read: nobody is known to command then.
        """
        if self._takeover.commands:
            return True
        return self._permit is not None and self._permit.denied

    def why_not_enable(self) -> str:
        """Return why motion may not be enabled now; empty if it may."""
        if self._guarded is not None and (why := self._guarded.problem):
            return why
        if why := self.reason:
            return f'the robot is not ours to move: {why}'
        if missing := self._wire.without_server:
            return f'no action server for {", ".join(missing)}'
        for topic in self._exclusive:
            if count := self._node.count_publishers(topic):
                return f'{topic} has {count} publishers, expected none'
        return ''


def _ways(node: Node, config: DispatcherNodeConfig) -> dict[str, Ways]:
    """Return by which topics and actions each component can be commanded."""
    return {
        name: ways_in(output, node.resolve_topic_name(wired.topic or wired.action))
        for name, (output, wired) in config.outputs.items()
    }
