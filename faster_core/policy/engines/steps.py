"""The stages of an inference as functions of tensors only: what is compiled, captured, exported.

Every shape is fixed, no step keeps anything, and keys and values go in and out as tensors.
"""

from __future__ import annotations

import torch
from torch import nn

from faster_core.decoding.sampling import choose, SamplingConfig
from faster_core.policy.flow import FlowVla
from faster_core.policy.model import FasterVla
from faster_core.tokenizer.rvq import RvqTokenizer, VqModel


class VisionStep(nn.Module):
    """Images to features."""

    def __init__(self, model: FasterVla | FlowVla) -> None:
        """Bind."""
        super().__init__()
        self.backbone = model.backbone

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 [1, cameras, size, size, 3] to [1, cameras * tokens, width]."""
        return self.backbone.vision(pixels)


class PrefillStep(nn.Module):
    """Features, text and state to keys and values."""

    def __init__(self, model: FasterVla | FlowVla) -> None:
        """Bind."""
        super().__init__()
        self.model = model

    def forward(
        self,
        features: torch.Tensor,
        text_ids: torch.Tensor,
        text_valid: torch.Tensor,
        state: torch.Tensor,
        present: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return keys and values [layers, 1, kv_heads, P, head_dim], valid [1, P], last [1, 1]."""
        prefix = self.model.encode(features, text_ids, text_valid, state, present)
        keys, values = (torch.stack(parts) for parts in zip(*prefix.layers, strict=True))
        return keys, values, prefix.valid, prefix.last


class _Buffers:
    """Keys and values of what came before, then those of the pass, which are kept apart."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._old = keys, values
        self.new: list[tuple[torch.Tensor, torch.Tensor]] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._old[0].shape[3]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.new.append((keys, values))
        old_keys, old_values = self._old
        return (
            torch.cat([old_keys[layer_idx], keys], dim=2),
            torch.cat([old_values[layer_idx], values], dim=2),
        )


class BlockStep(nn.Module):
    """One block of codes: inputs to logits."""

    def __init__(self, model: FasterVla) -> None:
        """Bind; the model decodes blocks of one size."""
        super().__init__()
        self.model = model
        size = model.block_size
        rows = torch.arange(model.num_blocks * size).view(model.num_blocks, size)
        self.register_buffer('rows', rows, persistent=False)
        self.register_buffer('places', torch.arange(model.num_tokens), persistent=False)

    def forward(
        self,
        inputs: torch.Tensor,
        block: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        valid: torch.Tensor,
        last: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run one block.

        Args:
            inputs: ids int64 [1, block_size].
            block: which, int64 [1].
            keys: buffers [layers, 1, kv_heads, P + N, head_dim]; from the block's place on they
                hold nothing yet.
            values: likewise.
            valid: bool [1, P].
            last: int64 [1, 1].

        Returns:
            logits [1, block_size, K], and its keys and values [layers, 1, kv_heads, block_size,
            head_dim].
        """
        model = self.model
        rows = self.rows.index_select(0, block)[0]
        before = (self.places < rows[:1])[None]
        own = valid.new_ones((1, model.block_size))
        mask = torch.cat([valid, before, own], dim=1)[:, None, None]
        cache = _Buffers(keys, values)
        hidden = model.attend(
            model.embed_at(inputs, rows),
            mask.expand(1, 1, model.block_size, -1),
            last + model.config.position_gap * (rows + 1),
            cache,
        )
        new_keys, new_values = (torch.stack(parts) for parts in zip(*cache.new, strict=True))
        return (
            model.logits_at(hidden, self.model.levels.index_select(0, block)[0]),
            (new_keys),
            new_values,
        )


class VelocityStep(nn.Module):
    """One Euler step of a flow head."""

    def __init__(self, model: FlowVla) -> None:
        """Bind."""
        super().__init__()
        self.model = model

    def forward(
        self,
        noisy: torch.Tensor,
        time: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        valid: torch.Tensor,
        last: torch.Tensor,
    ) -> torch.Tensor:
        """Return the velocity of a chunk, both float32 [1, H, D], at time float32 [1].

        The rest as in `BlockStep`.
        """
        return self.model.velocity_over(noisy, time, _Buffers(keys, values), valid, last)


class VqStep(nn.Module):
    """Codes to normalised chunks."""

    def __init__(self, model: VqModel) -> None:
        """Bind the model of a tokenizer with a residual quantiser."""
        super().__init__()
        self.vq = model

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map int64 [levels, 1, C_h, C_a] to [1, H, D]."""
        return self.vq.autoencoder.decode(self.vq.quantizer.lookup(codes))


class WholeStep(nn.Module):
    """A whole inference: images, text and state to a normalised chunk, all blocks unrolled."""

    def __init__(
        self, model: FasterVla | FlowVla, vq: RvqTokenizer | None, sampling: SamplingConfig
    ) -> None:
        """Bind.

        Args:
            model: with a head for codes of a residual quantiser, or a flow head.
            vq: its tokenizer; None with a flow head.
            sampling: how codes are chosen.
        """
        super().__init__()
        self.model, self.sampling = model, sampling
        self.vision, self.prefill = VisionStep(model), PrefillStep(model)
        if vq is not None:
            self.block, self.vq = BlockStep(model), VqStep(vq.model)
            self.shape = vq.config.latent_shape
            begin = torch.full((1, model.block_size), model.begin_token)
            self.register_buffer('begin', begin, persistent=False)
            indices = torch.arange(model.num_blocks)[:, None]
            self.register_buffer('indices', indices, persistent=False)

    def forward(
        self,
        pixels: torch.Tensor,
        text_ids: torch.Tensor,
        text_valid: torch.Tensor,
        state: torch.Tensor,
        present: torch.Tensor,
        noise: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run everything.

        Args:
            pixels: uint8 [1, cameras, size, size, 3].
            text_ids: int64 [1, L].
            text_valid: bool [1, L].
            state: as `ModelInputs.state`.
            present: bool [1, cameras].
            noise: of `drawing.draw`; anything when greedy.

        Returns:
            chunk [1, H, D], ids [1, N] and logits [blocks, block_size, K]; the last two empty of
            a flow head.
        """
        made = self.prefill(self.vision(pixels), text_ids, text_valid, state, present)
        if not hasattr(self, 'vq'):
            return self._flow(noise, *made), noise.new_zeros(0), noise.new_zeros(0)
        keys, values, valid, last = made
        room = keys.new_zeros((*keys.shape[:3], self.model.num_tokens, keys.shape[4]))
        keys, values = torch.cat([keys, room], dim=3), torch.cat([values, room], dim=3)
        inputs, tokens, logits = self.begin, [], []
        for block in range(self.model.num_blocks):
            scores, own_keys, own_values = self.block(
                inputs, self.indices[block], keys, values, valid, last
            )
            first = valid.shape[1] + block * self.model.block_size
            rows = slice(first, first + self.model.block_size)
            keys[:, :, :, rows], values[:, :, :, rows] = own_keys, own_values
            if self.sampling.temperature == 0.0:
                chosen = scores.argmax(dim=-1)
            else:
                chosen = choose(scores, self.sampling, noise[block])
            inputs = chosen + self.model.token_offset(block)
            tokens.append(inputs)
            logits.append(scores[0])
        ids = torch.cat(tokens, dim=1)
        codes = self.model.codes(ids).view(1, -1, *self.shape).transpose(0, 1)
        return self.vq(codes), ids, torch.stack(logits)

    def _flow(self, noise: torch.Tensor, *prefix: torch.Tensor) -> torch.Tensor:
        step, chunk = VelocityStep(self.model), noise.float()
        count = self.model.config.flow_steps
        for k in range(count):
            time = chunk.new_full((1,), 1.0 - k / count)
            chunk = chunk - step(chunk, time, *prefix) / count
        return chunk
