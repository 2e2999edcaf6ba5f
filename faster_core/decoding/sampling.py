"""From logits to tokens."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

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
    logits: torch.Tensor, config: SamplingConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw one token per position.

    Args:
        logits: [..., V].
        config: temperature and top-k.
        generator: source of randomness; unused when greedy.

    Returns:
        int64 [...].
    """
    if config.temperature == 0.0:
        return logits.argmax(dim=-1)
    values, indices = logits.topk(min(config.top_k, logits.shape[-1]), dim=-1)
    weights = torch.softmax(values.float() / config.temperature, dim=-1)
    k = weights.shape[-1]
    choice = torch.multinomial(weights.reshape(-1, k), 1, generator=generator)
    return indices.reshape(-1, k).gather(-1, choice).view(logits.shape[:-1])


def confidence(
    logits: Sequence[torch.Tensor], chosen: Sequence[torch.Tensor]
) -> tuple[list[float], list[float]]:
    """Return how sure a model was of its blocks: mean log-probability, and mean entropy (nats).

    Args:
        logits: of every block, [1, n, V].
        chosen: indices into V, [1, n].
    """
    log_probs, entropies = [], []
    same = len({block.shape for block in logits}) == 1
    groups = (
        [(torch.cat([*logits]), torch.cat([*chosen]))]
        if same
        else [*zip(logits, chosen, strict=True)]
    )
    for block, picked in groups:
        log_p = block.float().log_softmax(dim=-1)
        log_probs.append(log_p.gather(-1, picked[..., None]).mean((1, 2)))
        entropies.append(-(log_p.exp() * log_p).sum(-1).mean(1))
    return torch.cat(log_probs).tolist(), torch.cat(entropies).tolist()
