"""The flow-matching head of pi0 (arXiv 2410.24164, section IV) on our backbone and engine.

The expert sees the whole chunk as noise and actions mixed, every row a token, and says which way
the actions are; ten Euler steps walk from noise to a chunk.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.policy.backbones import Backbone
from faster_core.policy.backbones.base import Prefix
from faster_core.policy.config import PolicyConfig
from faster_core.policy.masks import action_mask
from faster_core.policy.model import ActionModel, PrefixThenOwn

# Periods of the sines that encode the time of the flow, as in pi0.
SHORTEST_PERIOD, LONGEST_PERIOD = 4e-3, 4.0
# Time is drawn from Beta(1.5, 1), from 0.001 (next to actions) to 1 (noise): noise more often.
BETA, LATEST = (1.5, 1.0), 0.999


class FlowVla(ActionModel):
    """Chunks [B, H, D], normalised, from noise."""

    def __init__(
        self, config: PolicyConfig, backbone: Backbone, *, horizon: int, action_dim: int
    ) -> None:
        """Build with random weights around a backbone."""
        super().__init__(config, backbone, vocab_size=1)
        self.horizon, self.action_dim = horizon, action_dim
        width = self.width
        self.action_in = nn.Linear(action_dim, width)
        self.time_mlp = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.action_out = nn.Linear(width, action_dim)

    def velocity(self, noisy: torch.Tensor, time: torch.Tensor, prefix: Prefix) -> torch.Tensor:
        """Return velocities of chunks, both [B, H, D], at times [B]: 1 is noise, 0 actions.

        Chunks and times stay in float32 whatever the precision of the weights: in bfloat16 0.9
        is 0.8984, four tenths of the shortest period away.
        """
        cache = PrefixThenOwn(prefix.layers)
        return self.velocity_over(noisy, time, cache, prefix.valid, prefix.last)

    def velocity_over(
        self,
        noisy: torch.Tensor,
        time: torch.Tensor,
        cache: object,
        valid: torch.Tensor,
        last: torch.Tensor,
    ) -> torch.Tensor:
        """Return velocities as `velocity`, over any cache that holds the prefix."""
        waves = _waves(time, self.width).to(self.dtype)
        actions = self.action_in(noisy.to(self.dtype))
        embeds = self.time_mlp(torch.cat([actions, waves[:, None].expand_as(actions)], dim=-1))
        hidden = self.attend(
            embeds,
            action_mask(valid, self.horizon, self.horizon),
            last + 1 + torch.arange(self.horizon, device=noisy.device),
            cache,
        )
        return self.action_out(hidden).to(noisy.dtype)

    def integrate(
        self, prefix: Prefix, noise: torch.Tensor, steps: int | None = None
    ) -> torch.Tensor:
        """Walk from noise [B, H, D] to a chunk, float32, in Euler steps (`config.flow_steps`)."""
        steps = steps or self.config.flow_steps
        chunk = noise.float()
        for k in range(steps):
            time = chunk.new_full((len(chunk),), 1.0 - k / steps)
            chunk = chunk - self.velocity(chunk, time, prefix) / steps
        return chunk

    def loss(
        self,
        prefix: Prefix,
        chunk: torch.Tensor,
        time: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Mean squared error of the velocity on chunks mixed with noise ('flow').

        Args:
            prefix: what the backbone made of the observations.
            chunk: [B, H, D], normalised.
            time: [B], how much noise (`flow_time`); drawn if left out.
            noise: [B, H, D]; likewise.
        """
        if time is None:
            time = flow_time(torch.distributions.Beta(*BETA).sample((len(chunk),)).to(chunk))
        noise = torch.randn_like(chunk) if noise is None else noise
        share = time[:, None, None]
        noisy = share * noise + (1.0 - share) * chunk
        velocity = self.velocity(noisy, time, prefix)
        return {'flow': F.mse_loss(velocity.float(), noise - chunk)}


def flow_time(drawn: Any) -> Any:
    """Return times of the flow from draws of the distribution `BETA`."""
    return drawn * LATEST + (1.0 - LATEST)


def _waves(time: torch.Tensor, width: int) -> torch.Tensor:
    """Return sines and cosines, float32 [B, width], of times [B]."""
    share = torch.linspace(0.0, 1.0, width // 2, device=time.device)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** share
    angles = time.float()[:, None] * 2.0 * math.pi / period
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
