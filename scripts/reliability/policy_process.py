"""The real policy node around a policy of fixed duration, which fails on demand.

    python -m scripts.reliability.policy_process --seconds 0.05 --rows 12 --ros-args ...

Faults (see faults.py): `decode_error`, `exception`, `stall SECONDS` (once).
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from typing import Any

from faster_core import paths
from faster_core.chunk import ActionChunk, StageTiming
from faster_core.embodiment import Embodiment
from faster_core.errors import DecodeError
from faster_core.observation import check_instruction, Observation
from faster_vla_ros import policy_node
from scripts.reliability import faults
from scripts.reliability.motion import moving_rows


class SleepingPolicy:
    """Sleeps for a fixed time where another one computes."""

    def __init__(self, seconds: float, rows: int) -> None:
        """Take the duration of an inference and the rows of its chunk."""
        self.embodiment = Embodiment.load(paths.embodiment_file('r1_lite'))
        self._seconds, self._rows = seconds, rows

    def predict(self, observation: Observation, *, on_chunk: Any = None) -> ActionChunk:
        """Return a chunk for an observation, or fail as ordered."""
        del on_chunk
        observation.validate(self.embodiment)
        fault, *values = faults.ordered() or ('',)
        if fault == 'decode_error':
            raise DecodeError('a fault was ordered')
        if fault == 'exception':
            raise RuntimeError('a fault was ordered')
        if fault == 'stall':
            faults.done()
            time.sleep(float(values[0]))
        start = time.perf_counter()
        time.sleep(self._seconds)
        e = self.embodiment
        first, period = e.step_period, e.step_period
        times = [observation.stamp + first + k * period for k in range(self._rows)]
        slept = (time.perf_counter() - start) * 1e3
        return ActionChunk(
            values=moving_rows(times, e),
            stamp=observation.stamp,
            first_step_offset=first,
            step_period=period,
            sequence_id=0,
            embodiment_checksum=e.checksum,
            timing=StageTiming(
                preprocess_ms=0.0,
                vision_ms=0.0,
                prefill_ms=slept,
                decode_block_ms=(),
                detokenize_ms=0.0,
                total_ms=slept,
            ),
        )

    def check_instruction(self, text: str) -> None:
        """Refuse what no policy takes."""
        check_instruction(text)

    def reset(self, seed: int | None = None) -> None:
        """Keep nothing."""

    def warmup(self, iterations: int = 3, *, coarse: bool = False) -> None:
        """Need nothing."""


def main() -> int:
    """Run the node as its own `main` does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=0.05, help='of an inference')
    parser.add_argument('--rows', type=int, default=12, help='of a chunk')
    args, rest = parser.parse_known_args()
    policy = SleepingPolicy(args.seconds, args.rows)
    policy_node.PolicyNode = functools.partial(
        policy_node.PolicyNode, policy_factory=lambda _: policy
    )
    return policy_node.main([sys.argv[0], *rest])


if __name__ == '__main__':
    sys.exit(main())
