"""A policy without torch: constant chunks at once, and every failure on demand."""

import threading

import numpy as np

from faster_core import paths
from faster_core.chunk import ActionChunk, StageTiming
from faster_core.embodiment import Embodiment
from faster_core.errors import InstructionError
from faster_core.observation import check_instruction

TIMING = StageTiming(
    preprocess_ms=1.0,
    vision_ms=2.0,
    prefill_ms=3.0,
    decode_block_ms=(0.5, 0.25),
    detokenize_ms=4.0,
    total_ms=10.75,
)


class FakePolicy:
    """What the policy node needs of a policy.

    Attributes:
        observations: what `predict` was given.
        error: raised by `predict`, if not None.
        values: replaces the values [H, D] of the chunk, if not None.
        log_prob: confidence of the chunk per block.
        coarse: values [H, D] of chunks of 1, 2, ... levels that come before the whole one.
        gate: `predict` waits for it; set at first.
        entered: set whenever `predict` begins.
    """

    def __init__(self):
        self.embodiment = Embodiment.load(paths.embodiment_file('r1_lite'))
        self.observations = []
        self.error = None
        self.values = None
        self.log_prob, self.coarse = (-0.25, -0.75), []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.warmups, self.resets = [], []

    def predict(self, observation, on_chunk=None):
        self.observations.append(observation)
        if on_chunk is not None:
            for level, values in enumerate(self.coarse, start=1):
                on_chunk(self._chunk(observation, values, num_levels=level))
        self.entered.set()
        assert self.gate.wait(30.0)
        if self.error is not None:
            raise self.error
        observation.validate(self.embodiment)
        e = self.embodiment
        values = np.full((e.action_horizon, e.action_dim), 0.25, dtype=np.float32)
        values = values if self.values is None else self.values
        return self._chunk(observation, values, log_prob=self.log_prob)

    def _chunk(self, observation, values, **fields):
        e = self.embodiment
        return ActionChunk(
            values=values,
            stamp=observation.stamp,
            first_step_offset=e.step_period,
            step_period=e.step_period,
            sequence_id=7,
            embodiment_checksum=e.checksum,
            timing=TIMING,
            **fields,
        )

    def check_instruction(self, text):
        check_instruction(text)
        if 'xyzzy' in text:
            raise InstructionError('the policy knows too few words of the instruction')

    def reset(self, seed=None):
        self.resets.append(threading.current_thread().name)

    def warmup(self, iterations=3, coarse=False):
        self.warmups.append((iterations, coarse))
