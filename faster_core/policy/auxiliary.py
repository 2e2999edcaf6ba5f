"""Regressions beside the cross-entropy of the codes: dense gradients for vision and grounding.

Only training has them; a checkpoint does not hold them (all ours).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from faster_core.policy.dataset import Samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryWeights:
    """Weights of the L1 errors against the cross-entropy of level 0.

    Attributes:
        chunk: the normalised chunk, from the backbone's state tokens.
        goal: where the episode ends (`dataset.episode_goals`), from the state tokens.
        target: where the thing is that the instruction is about, from base and hands (unit
            10 cm), from the state tokens: what to look for.
        places: where all things are in the base frame (unit 10 cm), from the image tokens, so
            that the eyes learn of every image, whatever the instruction.
    """

    chunk: float = 1.0
    goal: float = 0.5
    target: float = 0.5
    places: float = 0.5


class Auxiliary(nn.Module):
    """Linear heads on image tokens and on the hidden states of the state tokens."""

    def __init__(
        self,
        weights: AuxiliaryWeights,
        samples: Samples,
        *,
        width: int,
        num_image_tokens: int,
        num_state_tokens: int,
    ) -> None:
        """Size the heads for what the samples hold; none for weight 0 or without landmarks."""
        super().__init__()
        self._weights, self._num_states = weights, num_state_tokens
        rows, columns = samples.chunk.shape[1:]
        states = width * num_state_tokens
        sizes = {
            'chunk': (states, rows * columns),
            'goal': (states, columns),
            'target': (states, samples.target.shape[1]),
            'places': (width * num_image_tokens, samples.places.shape[1]),
        }
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(*size)
                for name, size in sizes.items()
                if getattr(weights, name) > 0 and size[1]
            }
        )

    def forward(
        self,
        features: torch.Tensor,
        hidden: torch.Tensor,
        *,
        chunk: torch.Tensor,
        goal: torch.Tensor,
        target: torch.Tensor,
        places: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted sum and the single errors.

        Args:
            features: [B, I, width] image tokens.
            hidden: [B, P, width] of the backbone; the state tokens come last.
            chunk: as in `dataset.Samples`.
            goal: likewise.
            target: likewise.
            places: likewise.
        """
        states = hidden[:, -self._num_states :].flatten(1)
        inputs = {'places': features.flatten(1)}
        labels = {'chunk': chunk.flatten(1), 'goal': goal, 'target': target, 'places': places}
        errors = {
            name: (head(inputs.get(name, states)).float() - labels[name]).abs().mean()
            for name, head in self.heads.items()
        }
        total = hidden.new_zeros((), dtype=torch.float32)
        for name, error in errors.items():
            total = total + getattr(self._weights, name) * error
        return total, errors
