"""A policy's place in the graph without a policy: chunks at a fixed rate, spoilt on demand.

Faults (see faults.py): `silent`; `nan`; `late SECONDS` (older observations); `reorder` (every two
chunks change places); `loss SHARE` (dropped here at random, so that reliability cannot help).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from faster_core import paths
from faster_core.chunk import ActionChunk
from faster_core.embodiment import Embodiment
from faster_vla_msgs.msg import ActionChunk as ActionChunkMsg
from faster_vla_ros import qos
from faster_vla_ros.conversions import chunk_to_message
from scripts.reliability import faults
from scripts.reliability.motion import moving_rows

TOPIC = '/policy_node/action_chunk'
# Age of the observation when its chunk is sent (s): what an inference takes.
AGE = 0.1


class ChunkSource(Node):
    """Sends chunks; the number of one that is dropped is missing."""

    def __init__(self, embodiment: str, period: float, rows: int, seed: int) -> None:
        """Take the robot, the seconds between chunks, their rows and the seed of the losses."""
        super().__init__('policy_node')
        self._embodiment = Embodiment.load(paths.embodiment_file(embodiment))
        self._rows, self._rng = rows, np.random.default_rng(seed)
        self._publisher = self.create_publisher(ActionChunkMsg, TOPIC, qos.CHUNK)
        self._held: Any = None
        self._sequence_id = 0
        self.create_timer(period, self._send, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _send(self) -> None:
        now = self.get_clock().now().nanoseconds * 1e-9
        if now <= AGE:  # simulated time has not begun
            return
        fault, *values = faults.ordered() or ('',)
        age = AGE + float(values[0]) if fault == 'late' else AGE
        message = self._message(now - age)
        if fault == 'silent' or (fault == 'loss' and self._rng.random() < float(values[0])):
            return
        if fault == 'nan':
            message.components[0].data[3] = float('nan')
        if fault == 'reorder' and self._held is None:
            self._held = message
            return
        self._publisher.publish(message)
        if self._held is not None:
            self._publisher.publish(self._held)
            self._held = None

    def _message(self, stamp: float) -> ActionChunkMsg:
        e = self._embodiment
        self._sequence_id += 1
        chunk = ActionChunk(
            values=np.zeros((self._rows, e.action_dim), np.float32),
            stamp=stamp,
            first_step_offset=e.step_period,
            step_period=e.step_period,
            sequence_id=self._sequence_id,
            embodiment_checksum=e.checksum,
        )
        chunk.values[:] = moving_rows(chunk.row_times, e)
        return chunk_to_message(chunk, e)


def main() -> None:
    """Send until ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--embodiment', default='r1_lite', help='name of a shipped one')
    parser.add_argument('--period', type=float, default=0.25, help='s between chunks')
    parser.add_argument('--rows', type=int, default=12, help='of a chunk')
    parser.add_argument('--seed', type=int, default=0, help='of losses')
    args, rest = parser.parse_known_args()
    rclpy.init(args=[sys.argv[0], *rest])
    try:
        rclpy.spin(ChunkSource(args.embodiment, args.period, args.rows, args.seed))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == '__main__':
    main()
