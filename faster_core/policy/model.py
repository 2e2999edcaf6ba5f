"""FASTerVLA as one module: backbone, action expert, logits of action tokens, training loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from faster_core.decoding.cache import GrowingKV, StaticKV
from faster_core.policy.backbones import Backbone
from faster_core.policy.backbones.base import Prefix
from faster_core.policy.config import PolicyConfig
from faster_core.policy.expert import build_expert
from faster_core.policy.layout import CodeLayout
from faster_core.policy.masks import action_mask, attention_argument

# In the targets of the loss: no token is expected here.
IGNORED = -100


class PrefixThenOwn:
    """Uncached pass: keys and values of the prefix, then those of the pass itself."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take the keys and values of every layer of the prefix."""
        self._layers = layers

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the length of the prefix."""
        return self._layers[0][0].shape[2]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple:
        """Return what a layer attends to."""
        old_keys, old_values = self._layers[layer_idx]
        return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)


class ActionModel(nn.Module):
    """A backbone, and an expert (or the backbone itself) that attends to what it made."""

    def __init__(self, config: PolicyConfig, backbone: Backbone, vocab_size: int) -> None:
        """Build the expert for a backbone.

        Args:
            config: architecture.
            backbone: of the configuration.
            vocab_size: ids of action tokens.
        """
        super().__init__()
        self.config, self.backbone = config, backbone
        self.expert = self.code_embedding = None
        if config.action_expert == 'light':
            self.expert = build_expert(backbone.language.config, config.expert, vocab_size)
        else:
            self.code_embedding = nn.Embedding(vocab_size, backbone.width)
            with torch.no_grad():
                words = backbone.language.get_input_embeddings()
                known = words(torch.arange(min(256, words.num_embeddings)))
                self.code_embedding.weight.normal_(std=float(known.std()))

    @property
    def decoder(self) -> nn.Module:
        """The text model that sees the action tokens."""
        return self.backbone.language if self.expert is None else self.expert

    @property
    def width(self) -> int:
        """Of the hidden states of action tokens."""
        return self.decoder.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.camera.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.backbone.camera.dtype

    def encode(
        self,
        image_features: torch.Tensor,
        text_ids: torch.Tensor,
        text_valid: torch.Tensor,
        state: torch.Tensor,
        present: torch.Tensor | None = None,
    ) -> Prefix:
        """Run the backbone (`Backbone.prefill`)."""
        return self.backbone.prefill(image_features, text_ids, text_valid, state, present)

    def attend(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: object
    ) -> torch.Tensor:
        """Run the decoder over embeddings [B, n, width] of action tokens; return hidden states.

        Args:
            embeds: inputs.
            mask: bool [B, 1, n, keys].
            positions: ids [B, n].
            cache: gives the keys and values of what came before.
        """
        return self.decoder(
            inputs_embeds=embeds,
            attention_mask=attention_argument(mask, self.decoder.config, embeds.dtype),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state


class FasterVla(ActionModel):
    """Codes, block by block; implements `faster_core.decoding.blockwise.BlockModel`."""

    def __init__(self, config: PolicyConfig, layout: CodeLayout, backbone: Backbone) -> None:
        """Build with random weights around a backbone.

        Raises:
            ValueError: the block size does not divide the tokens of one level.
        """
        layout.check_block_size(config.block_size)
        tied = config.code_embeddings == 'tied'
        vocab_size = layout.codebook_size + 2 if tied else layout.end_token + 1
        super().__init__(config, backbone, vocab_size)
        self.layout, self._tied = layout, tied
        self.block_size, self.num_tokens = config.block_size, layout.num_tokens
        self.begin_token, self.end_code = layout.begin_token, layout.end_code
        self.num_blocks = layout.num_tokens // config.block_size
        self.slot = nn.Parameter(
            torch.randn(self.num_tokens + config.block_size, self.width) * 0.02
        )
        self.head = nn.Linear(self.width, vocab_size, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        levels = torch.tensor(layout.levels).view(self.num_blocks, self.block_size)
        self.register_buffer('levels', levels, persistent=False)
        # One number per block if its codes are of one level, and on the host: reading it from the
        # buffer would wait for the device.
        blocks = [
            layout.levels[first : first + config.block_size]
            for first in range(0, layout.num_tokens, config.block_size)
        ]
        uniform = all(len(set(block)) == 1 for block in blocks)
        self._offsets = [block[0] * layout.codebook_size for block in blocks] if uniform else []

    def prepare(
        self,
        prefix: Prefix,
        cache: StaticKV | GrowingKV | None = None,
        kind: Callable[[int, int], StaticKV | GrowingKV] = StaticKV,
    ) -> StaticKV | GrowingKV:
        """Copy the prefix into a cache and lay out mask and positions for decoding.

        Args:
            prefix: of `encode`.
            cache: one to use again if it fits.
            kind: of a new one.
        """
        length = prefix.valid.shape[1]
        capacity = length + self.num_tokens
        if cache is None or cache.capacity != capacity:
            cache = kind(self.backbone.num_layers, capacity)
        cache.store_prefix(prefix.layers)
        prefix.cache = cache
        prefix.mask = action_mask(prefix.valid, self.num_tokens, self.block_size)
        prefix.positions = self._positions(prefix.last, self.num_tokens, jitter=False)
        return cache

    def codes(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return codes [B, n], level by level, of decoded token ids [B, n]."""
        return self.layout.codes(tokens, self.levels.flatten())

    # --- BlockModel -----------------------------------------------------------------------------

    def token_offset(self, block: int) -> torch.Tensor | int:
        """Return what to add to codes of block `block` to get ids: one number, or [block_size]."""
        if self._offsets:
            return self._offsets[block]
        return self.levels[block] * self.layout.codebook_size

    def block_logits(self, inputs: torch.Tensor, block: int, prefix: Prefix) -> torch.Tensor:
        """Logits of the codes [B, block_size, K] of one block; the cache takes its inputs."""
        first = block * self.block_size
        rows = slice(first, first + self.block_size)
        prefix.cache.rewind(prefix.valid.shape[1] + first)
        keys = prefix.cache.length_after(self.block_size)
        hidden = self.attend(
            self.embed(inputs, first),
            prefix.mask[:, :, rows, :keys],
            prefix.positions[:, rows],
            prefix.cache,
        )
        return self.logits(hidden, block)

    def sequence_logits(self, inputs: torch.Tensor, prefix: Prefix) -> list[torch.Tensor]:
        """Logits of every block [B, block_size, K] of `inputs` [B, n], nothing cached."""
        hidden = self._hidden(inputs, prefix, jitter=False)
        parts = hidden.split(self.block_size, dim=1)
        return [self.logits(part, block) for block, part in enumerate(parts)]

    def embed(self, tokens: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Embed input tokens [B, n] that stand from place `first` on."""
        return self._embed(tokens, self.slot[first : first + tokens.shape[1]])

    def embed_at(self, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Embed input tokens [B, n] that stand at places [n]."""
        return self._embed(tokens, self.slot.index_select(0, places))

    def logits(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        """Logits of the codes [B, block_size, K] from hidden states of one block.

        After the last block, where `<EoBlk>` is due, those of the last level.
        """
        block = min(block, self.num_blocks - 1)
        if self._offsets:
            first = 0 if self._tied else self._offsets[block]
            rows = slice(first, first + self.layout.codebook_size)
            return F.linear(hidden, self.head.weight[rows])
        return self.logits_at(hidden, self.levels[block])

    def logits_at(self, hidden: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Logits of the codes [B, n, K] of levels [n] from hidden states [B, n, width]."""
        if self._offsets:
            return F.linear(hidden, self._codes_at(levels[:1])[0])
        return torch.einsum('bnw,nkw->bnk', hidden, self._codes_at(levels))

    # --- training -----------------------------------------------------------------------------

    def loss(self, prefix: Prefix, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy of the tokens [B, N] given the observation and the earlier blocks.

        The softmax of a block runs over the codes of its level, `<BoBlk>` and `<EoBlk>`; after
        the last block `<EoBlk>` is the target. Tokens `IGNORED` are not trained (after the end of
        a chunk of variable length).

        Returns:
            'level0', 'level1', …: mean cross-entropy per level; 'end': that of `<EoBlk>`;
            'accuracy0', …: share of right codes; 'block0', …: mean cross-entropy per block, to
            look at.
        """
        begin = tokens.new_full((tokens.shape[0], self.block_size), self.begin_token)
        known = torch.where(tokens == IGNORED, self.layout.end_token, tokens)
        hidden = self._hidden(torch.cat([begin, known], dim=1), prefix, jitter=True)
        size, levels = self.layout.codebook_size, self.levels.flatten()
        special = self.head.weight[-2:]
        losses = {}
        each = torch.zeros(tokens.shape, device=tokens.device)
        for level in range(self.layout.num_levels):
            places = (levels == level).nonzero().squeeze(1)
            weight = torch.cat([self._codes_at(places.new_tensor([level]))[0], special])
            logits = F.linear(hidden[:, places], weight).float()
            target = torch.where(
                tokens[:, places] == IGNORED, IGNORED, tokens[:, places] - level * size
            )
            costs = F.cross_entropy(
                logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction='none'
            )
            count = (target != IGNORED).sum().clamp(min=1)
            losses[f'level{level}'] = costs.sum() / count
            right = (logits.argmax(-1) == target).sum() / count
            losses[f'accuracy{level}'] = right.float()
            each[:, places] = costs.detach().view(target.shape)
        logits = F.linear(hidden[:, self.num_tokens :], weight).float()
        end = torch.full_like(begin, size + 1)
        losses['end'] = F.cross_entropy(logits.flatten(0, 1), end.flatten())
        real = (tokens != IGNORED).sum(0).view_as(self.levels).sum(1).clamp(min=1)
        blocks = each.sum(0).view_as(self.levels).sum(1) / real
        return losses | {f'block{j}': value for j, value in enumerate(blocks)}

    # --- shared ---------------------------------------------------------------------------------

    def _embed(self, tokens: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        if self._tied:
            size, begin = self.layout.codebook_size, self.layout.begin_token
            tokens = torch.where(tokens < begin, tokens % size, tokens - begin + size)
        table = self.code_embedding if self.expert is None else self.expert.get_input_embeddings()
        return table(tokens) + slots

    def _codes_at(self, levels: torch.Tensor) -> torch.Tensor:
        """Return the output weights [n, K, width] of the codes of levels [n]."""
        size = self.layout.codebook_size
        if self._tied:
            return self.head.weight[:size].expand(len(levels), -1, -1)
        codes = self.head.weight[: self.layout.begin_token]
        return codes.view(self.layout.num_levels, size, -1).index_select(0, levels)

    def _hidden(self, inputs: torch.Tensor, prefix: Prefix, *, jitter: bool) -> torch.Tensor:
        count = inputs.shape[1]
        return self.attend(
            self.embed(inputs),
            action_mask(prefix.valid, count, self.block_size),
            self._positions(prefix.last, count, jitter=jitter),
            PrefixThenOwn(prefix.layers),
        )

    def _positions(self, last: torch.Tensor, count: int, *, jitter: bool) -> torch.Tensor:
        """Position ids [B, count] that follow the prefix's last one [B, 1]."""
        if jitter and self.training:
            steps = 1 + torch.randint(
                0, self.config.position_jitter + 1, (count,), device=last.device
            )
        else:
            steps = torch.full((count,), self.config.position_gap, device=last.device)
        return last + steps.cumsum(0)
