"""How sure a policy was of its codes, computed where its logits are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from faster_core.decoding.sampling import confidence


def certainty(
    logits: Sequence[torch.Tensor], chosen: Sequence[torch.Tensor]
) -> tuple[list[float], list[float]]:
    """Return the mean log-probability and the mean entropy (nats) of every block.

    Args:
        logits: of every block, [1, n, V], all of one shape.
        chosen: indices into V, [1, n].
    """
    if logits[0].device.type == 'cpu':
        return confidence(logits, chosen)
    return on_device(logits, chosen)


def on_device(
    logits: Sequence[torch.Tensor], chosen: Sequence[torch.Tensor]
) -> tuple[list[float], list[float]]:
    """Return what `confidence` does; the host gets two numbers per block, not the logits."""
    log_p = torch.cat(tuple(logits)).float().log_softmax(-1)
    own = log_p.gather(-1, torch.cat(tuple(chosen))[..., None])[..., 0].mean(1)
    entropy = -(log_p.exp() * log_p).sum(-1).mean(1)
    log_prob, entropies = torch.stack([own, entropy]).tolist()
    return log_prob, entropies
