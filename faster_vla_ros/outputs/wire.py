"""The topics of all components: everything is encoded before anything is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
import numpy as np
from rclpy.node import Node

from faster_core.embodiment import Embodiment
from faster_vla_ros import qos
from faster_vla_ros.outputs.protocol import Output


class Wire:
    """Publishers of the components that have an output."""

    def __init__(
        self,
        node: Node,
        embodiment: Embodiment,
        outputs: Mapping[str, tuple[Output, str]],
    ) -> None:
        """Create the publishers.

        Args:
            node: that publishes.
            embodiment: layout of the components.
            outputs: component -> (output, topic); components not named are not sent.
        """
        self._outputs = {
            name: (output, node.create_publisher(output.message_type, topic, qos.COMMAND))
            for name, (output, topic) in outputs.items()
        }
        self._zeros = {
            c.name: np.zeros(c.size) for c in embodiment.action if not c.kind.is_position
        }

    def send(self, commands: Mapping[str, np.ndarray | None], stamp: Time) -> None:
        """Publish set-points (component -> [d] SI, None: silence)."""
        encoded: list[tuple[Any, Any]] = []
        for name, values in commands.items():
            if values is not None and name in self._outputs:
                output, publisher = self._outputs[name]
                encoded.append((publisher, output.message(values, stamp)))
        for publisher, message in encoded:
            publisher.publish(message)

    def send_zeros(self, stamp: Time) -> None:
        """Publish zero for every velocity; positions have no value that is safe by itself."""
        self.send(self._zeros, stamp)
