"""FASTerVLA as one module: backbone, action expert, logits of action tokens, training loss."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GemmaConfig, GemmaModel

from faster_core.decoding.cache import StaticKV
from faster_core.policy.backbone import Backbone
from faster_core.policy.config import PolicyConfig
from faster_core.policy.masks import action_mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeLayout:
    """How many action tokens there are; order is level, time slot, action slot.

    A token's id is `level * codebook_size + code`; then come `<BoBlk>` and `<EoBlk>`.
    """

    num_levels: int
    codebook_size: int
    tokens_per_level: int

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.num_levels * self.tokens_per_level

    @property
    def begin_token(self) -> int:
        """Id of `<BoBlk>`."""
        return self.num_levels * self.codebook_size

    @property
    def end_token(self) -> int:
        """Id of `<EoBlk>`."""
        return self.begin_token + 1


@dataclasses.dataclass(kw_only=True)
class Prefix:
    """What the expert needs of an observation: keys and values, valid tokens, static cache."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    valid: torch.Tensor
    cache: StaticKV | None = None
    mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None


class _PrefixThenOwn:
    """Uncached pass: keys and values of the prefix, then those of the pass itself."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._layers = layers

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._layers[0][0].shape[2]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple:
        old_keys, old_values = self._layers[layer_idx]
        return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)


class FasterVla(nn.Module):
    """Backbone and expert; implements `faster_core.decoding.blockwise.BlockModel`."""

    def __init__(
        self,
        config: PolicyConfig,
        layout: CodeLayout,
        *,
        vocab_size: int,
        num_cameras: int,
        state_sizes: tuple[int, ...],
    ) -> None:
        """Build with random weights.

        Raises:
            ValueError: the block size does not divide the tokens of one level.
        """
        super().__init__()
        if layout.tokens_per_level % config.block_size:
            raise ValueError(
                f'block_size {config.block_size} does not divide the {layout.tokens_per_level} '
                'tokens of a level'
            )
        self.config, self.layout = config, layout
        self.block_size, self.num_tokens = config.block_size, layout.num_tokens
        self.begin_token = layout.begin_token
        self.num_blocks = layout.num_tokens // config.block_size
        self.backbone = Backbone(
            config, vocab_size=vocab_size, num_cameras=num_cameras, state_sizes=state_sizes
        )
        expert = GemmaConfig(**{**config.text, **config.expert}, vocab_size=layout.end_token + 1)
        expert._attn_implementation = 'sdpa'
        self.expert = GemmaModel(expert)
        width = expert.hidden_size
        self.slot = nn.Parameter(torch.randn(self.num_tokens + config.block_size, width) * 0.02)
        self.head = nn.Linear(width, layout.end_token + 1, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    # --- observation --------------------------------------------------------------------------

    def encode(
        self,
        image_features: torch.Tensor,
        text_ids: torch.Tensor,
        text_valid: torch.Tensor,
        state: torch.Tensor,
    ) -> tuple[Prefix, torch.Tensor]:
        """Run the backbone; return the prefix and its hidden states [B, P, width]."""
        hidden, cache, valid = self.backbone.prefill(image_features, text_ids, text_valid, state)
        return Prefix(layers=cache.layers, valid=valid), hidden

    def prepare(self, prefix: Prefix, cache: StaticKV | None = None) -> StaticKV:
        """Copy the prefix into a static cache and lay out mask and positions for decoding."""
        length = prefix.valid.shape[1]
        capacity = length + self.num_tokens
        if cache is None or cache.capacity != capacity:
            cache = StaticKV(self.config.num_layers, capacity)
        cache.store_prefix(prefix.layers)
        prefix.cache = cache
        prefix.mask = action_mask(prefix.valid, self.num_tokens, self.block_size)
        prefix.positions = self._positions(prefix.valid, self.num_tokens, jitter=False)
        return cache

    # --- BlockModel -----------------------------------------------------------------------------

    def token_offset(self, block: int) -> int:
        """Return the id of code 0 of the level that block `block` belongs to."""
        return self._level(block) * self.layout.codebook_size

    def block_logits(self, inputs: torch.Tensor, block: int, prefix: Prefix) -> torch.Tensor:
        """Logits of the codes [B, block_size, K] of one block; the cache takes its inputs."""
        first = block * self.block_size
        rows = slice(first, first + self.block_size)
        prefix.cache.rewind(prefix.valid.shape[1] + first)
        hidden = self.expert(
            inputs_embeds=self.expert.embed_tokens(inputs) + self.slot[rows],
            attention_mask=prefix.mask[:, :, rows],
            position_ids=prefix.positions[:, rows],
            past_key_values=prefix.cache,
            use_cache=True,
        ).last_hidden_state
        offset = self.token_offset(block)
        return F.linear(hidden, self.head.weight[offset : offset + self.layout.codebook_size])

    def sequence_logits(self, inputs: torch.Tensor, prefix: Prefix) -> list[torch.Tensor]:
        """Logits of every block [B, block_size, K] of `inputs` [B, n], nothing cached."""
        hidden = self._hidden(inputs, prefix, jitter=False)
        size = self.layout.codebook_size
        logits = []
        for block, part in enumerate(hidden.split(self.block_size, dim=1)):
            offset = self.token_offset(block)
            logits.append(F.linear(part, self.head.weight[offset : offset + size]))
        return logits

    # --- training -----------------------------------------------------------------------------

    def loss(self, prefix: Prefix, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy of the tokens [B, N] given the observation and the earlier blocks.

        The softmax of a block runs over the codes of its level, `<BoBlk>` and `<EoBlk>`; after
        the last block `<EoBlk>` is the target.

        Returns:
            'level0', 'level1', …: mean cross-entropy per level; 'end': that of `<EoBlk>`;
            'accuracy0', …: share of right codes.
        """
        begin = tokens.new_full((tokens.shape[0], self.block_size), self.begin_token)
        hidden = self._hidden(torch.cat([begin, tokens], dim=1), prefix, jitter=True)
        special = self.head.weight[self.layout.begin_token :]
        size, per_level = self.layout.codebook_size, self.layout.tokens_per_level
        losses = {}
        for level in range(self.layout.num_levels):
            part = slice(level * per_level, (level + 1) * per_level)
            codes = self.head.weight[level * size : (level + 1) * size]
            logits = F.linear(hidden[:, part], torch.cat([codes, special]))
            target = tokens[:, part] - level * size
            losses[f'level{level}'] = F.cross_entropy(logits.flatten(0, 1), target.flatten())
            losses[f'accuracy{level}'] = (logits.argmax(-1) == target).float().mean()
        logits = F.linear(hidden[:, self.num_tokens :], torch.cat([codes, special]))
        end = torch.full_like(begin, size + 1)
        losses['end'] = F.cross_entropy(logits.flatten(0, 1), end.flatten())
        return losses

    # --- shared ---------------------------------------------------------------------------------

    def _hidden(self, inputs: torch.Tensor, prefix: Prefix, *, jitter: bool) -> torch.Tensor:
        count = inputs.shape[1]
        return self.expert(
            inputs_embeds=self.expert.embed_tokens(inputs) + self.slot[:count],
            attention_mask=action_mask(prefix.valid, count, self.block_size),
            position_ids=self._positions(prefix.valid, count, jitter=jitter),
            past_key_values=_PrefixThenOwn(prefix.layers),
            use_cache=True,
        ).last_hidden_state

    def _positions(self, valid: torch.Tensor, count: int, *, jitter: bool) -> torch.Tensor:
        """Position ids [B, count] that follow the prefix's last one."""
        device = valid.device
        if jitter and self.training:
            steps = 1 + torch.randint(0, self.config.position_jitter + 1, (count,), device=device)
        else:
            steps = torch.full((count,), self.config.position_gap, device=device)
        return valid.sum(1, keepdim=True) - 1 + steps.cumsum(0)

    def _level(self, block: int) -> int:
        level = block * self.block_size // self.layout.tokens_per_level
        return min(level, self.layout.num_levels - 1)
