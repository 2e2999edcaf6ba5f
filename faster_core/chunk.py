"""A short horizon of future actions in physical units, and how long it took to compute."""

from __future__ import annotations

import dataclasses

import numpy as np

from faster_core.embodiment import Embodiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageTiming:
    """Milliseconds of each stage of one inference; the names are used everywhere.

    They equal the fields of `InferenceTiming.msg` and the keys of the benchmark JSON.
    """

    preprocess_ms: float = 0.0
    vision_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_block_ms: tuple[float, ...] = ()
    detokenize_ms: float = 0.0
    total_ms: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Actions decoded from one observation.

    Row k is due at `stamp + first_step_offset + k * step_period`. A chunk without rows tells the
    dispatcher to drop its plan and hold (the instruction changed).

    Attributes:
        values: [H, D] physical units, columns in the embodiment's order.
        stamp: stamp of the observation, seconds.
        first_step_offset: seconds from the observation to the first row.
        step_period: seconds between rows.
        codes: [N_c, C_h, C_a] codes it was decoded from, if it comes from a policy (or tokens [N]
            of another tokenizer).
        num_levels: levels of the residual quantiser it was decoded from, if not all of them.
        log_prob, entropy: per block how sure the policy was: mean log-probability of the codes it
            chose, mean entropy of its choice (nats). Empty where there are no codes.
    """

    values: np.ndarray
    stamp: float
    first_step_offset: float
    step_period: float
    sequence_id: int = 0
    embodiment_checksum: str = ''
    codes: np.ndarray | None = None
    num_levels: int | None = None
    log_prob: tuple[float, ...] = ()
    entropy: tuple[float, ...] = ()
    timing: StageTiming = StageTiming()

    @property
    def num_steps(self) -> int:
        """Number of rows H."""
        return self.values.shape[0]

    @property
    def row_times(self) -> np.ndarray:
        """[H] seconds at which the rows are due."""
        return self.stamp + self.first_step_offset + self.step_period * np.arange(self.num_steps)

    def component(self, embodiment: Embodiment, name: str) -> np.ndarray:
        """Return the columns [H, d] of one action component."""
        return self.values[:, embodiment.action_slices[name]]
