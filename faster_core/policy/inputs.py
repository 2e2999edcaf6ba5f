"""The state as the backbone takes it; the same for training and inference."""

from __future__ import annotations

import numpy as np
import torch

from faster_core.policy.config import PolicyConfig
from faster_core.policy.state import MAX_ABS
from faster_core.policy.text import NUM_STATE_BINS, TextEncoder


def state_input(normalized: np.ndarray, config: PolicyConfig, text: TextEncoder) -> torch.Tensor:
    """Return float32 [..., S] (embedded) or the ids of 256 bin tokens, int64 [..., S] (text)."""
    if config.state_encoding == 'embedded':
        return torch.from_numpy(normalized)
    share = (normalized + MAX_ABS) / (2 * MAX_ABS)
    bins = np.clip((share * NUM_STATE_BINS).astype(np.int64), 0, NUM_STATE_BINS - 1)
    return torch.from_numpy(bins + text.first_state_bin)
