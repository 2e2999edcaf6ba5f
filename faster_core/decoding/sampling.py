"""From logits to tokens."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np
import torch

from faster_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the most likely token (greedy); the paper samples at 0.8.
        top_k: number of most likely tokens drawn from (the paper: 50).
    """

    temperature: float = 0.0
    top_k: int = 50

    def __post_init__(self) -> None:
        """Refuse a negative temperature or an empty choice (ConfigError)."""
        if not self.temperature >= 0.0:
            raise ConfigError(f'temperature: expected >= 0, found {self.temperature}')
        if self.top_k < 1:
            raise ConfigError(f'top_k: expected >= 1, found {self.top_k}')


def sample(
    logits: torch.Tensor,
    config: SamplingConfig,
    generator: torch.Generator | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw one token per position.

    Args:
        logits: [..., V].
        config: temperature and top-k.
        generator: source of randomness; unused when greedy.
        noise: in its place, of `gumbel`, [..., top_k].

    Returns:
        int64 [...].
    """
    if config.temperature == 0.0:
        return logits.argmax(dim=-1)
    if noise is None:
        shape = (*logits.shape[:-1], min(config.top_k, logits.shape[-1]))
        noise = gumbel(shape, generator, logits.device)
    return choose(logits, config, noise)


def gumbel(
    shape: Sequence[int], generator: torch.Generator | None, device: torch.device
) -> torch.Tensor:
    """Return noise that, added to logits, turns their argmax into a draw (Gumbel-max)."""
    uniform = torch.rand(tuple(shape), generator=generator, device=device)
    return -(-uniform.clamp(min=torch.finfo(torch.float32).tiny).log()).log()


def choose(logits: torch.Tensor, config: SamplingConfig, noise: torch.Tensor) -> torch.Tensor:
    """Draw one of the most likely tokens per position with noise [..., top_k] of `gumbel`."""
    values, indices = logits.topk(noise.shape[-1], dim=-1)
    drawn = (values.float() / config.temperature + noise).argmax(dim=-1, keepdim=True)
    return indices.gather(-1, drawn)[..., 0]


def confidence(
    logits: Sequence[torch.Tensor], chosen: Sequence[torch.Tensor]
) -> tuple[list[float], list[float]]:
    """Return how sure a model was of its blocks: mean log-probability, and mean entropy (nats).

    Computed with numpy: so few numbers are not worth waking the threads of torch.

    Args:
        logits: of every block, [1, n, V].
        chosen: indices into V, [1, n].
    """
    if len({block.shape for block in logits}) > 1:
        parts = [confidence([a], [b]) for a, b in zip(logits, chosen, strict=True)]
        return [p[0][0] for p in parts], [p[1][0] for p in parts]
    raw = np.concatenate([block.float().cpu().numpy() for block in logits])
    picked = np.concatenate([index.cpu().numpy() for index in chosen])
    shifted = raw - raw.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=-1)
    log_total = np.log(total)
    own = np.take_along_axis(shifted, picked[..., None], axis=-1)[..., 0]
    entropy = log_total - np.einsum('jnv,jnv->jn', weights, shifted) / total
    return (own - log_total).mean(axis=1).tolist(), entropy.mean(axis=1).tolist()
