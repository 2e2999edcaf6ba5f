"""Drawing: the noise of a whole inference, made once and the same for every engine.

It comes from the host's generator, in one call: a generator of a GPU gives other values when it
is asked once per block. What is compiled or captured takes the noise as an input.
"""

from __future__ import annotations

import torch

from faster_core.decoding.sampling import gumbel, SamplingConfig
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla


def draw(
    model: FasterVla | FlowVla, sampling: SamplingConfig, generator: torch.Generator | None
) -> torch.Tensor | None:
    """Return the noise of one inference, float32, on the model's device.

    Args:
        model: decides the shape.
        sampling: how codes are chosen.
        generator: of the host; None is torch's own.

    Returns:
        where a flow head starts, [1, H, D]; for drawing codes, [blocks, 1, block_size, top_k]
        (`sampling.gumbel`); None when nothing is drawn.
    """
    if isinstance(model, FlowVla):
        noise = torch.randn((1, model.horizon, model.action_dim), generator=generator)
        return noise.to(model.device)
    if sampling.temperature == 0.0:
        return None
    top_k = min(sampling.top_k, model.layout.codebook_size)
    shape = (model.num_blocks, 1, model.block_size, top_k)
    return gumbel(shape, generator, torch.device('cpu')).to(model.device)
