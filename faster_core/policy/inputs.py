"""The state as the backbone takes it; the same for training and inference."""

from __future__ import annotations

import numpy as np
import torch

from faster_core.policy.config import PolicyConfig
from faster_core.policy.prompt import PromptEncoder
from faster_core.policy.state import MAX_ABS
from faster_core.policy.text import NUM_STATE_BINS, TextEncoder


def state_input(
    normalized: np.ndarray, config: PolicyConfig, text: TextEncoder | PromptEncoder
) -> torch.Tensor:
    """Return float32 [..., S] (embedded), or int64 [..., M] (text): 256 bins per dimension as ids.

    Of a small backbone every bin is a token; of a pretrained one its number is written out, and
    -1 is padding.
    """
    if config.state_encoding == 'embedded':
        return torch.from_numpy(normalized)
    share = (normalized + MAX_ABS) / (2 * MAX_ABS)
    bins = np.clip((share * NUM_STATE_BINS).astype(np.int64), 0, NUM_STATE_BINS - 1)
    return torch.from_numpy(text.state_tokens(bins))
