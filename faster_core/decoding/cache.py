"""Keys and values of a known number of tokens, in buffers that never move or grow."""

from __future__ import annotations

import torch


class StaticKV:
    """Per-layer keys and values [B, kv_heads, capacity, head_dim].

    `update` has the signature that attention layers of `transformers` call. Buffers are allocated
    once at the first write; `rewind` reuses them for the next observation. The mask, not the
    shape, hides what is not written yet, so that shapes stay the same from block to block.
    """

    def __init__(self, num_layers: int, capacity: int) -> None:
        """Reserve `capacity` positions in `num_layers` layers (allocated at the first write)."""
        self._keys: list[torch.Tensor | None] = [None] * num_layers
        self._values: list[torch.Tensor | None] = [None] * num_layers
        self._capacity = capacity
        self._start = 0

    @property
    def capacity(self) -> int:
        """Number of positions."""
        return self._capacity

    def rewind(self, position: int = 0) -> None:
        """Let the next write start at `position` (0 to `capacity`)."""
        if not 0 <= position <= self._capacity:
            raise ValueError(f'expected a position in 0..{self._capacity}, found {position}')
        self._start = position

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return where the next write starts."""
        return self._start

    def length_after(self, count: int) -> int:
        """Return how many keys `update` gives back after `count` more tokens."""
        return self._capacity

    def store_prefix(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Write the keys and values [B, kv_heads, P, head_dim] of all layers at position 0."""
        self.rewind()
        for index, (keys, values) in enumerate(layers):
            self.update(keys, values, index)
        self.rewind(layers[0][0].shape[2])

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [B, kv_heads, T, head_dim] at the current position; return the whole buffers.

        Raises:
            ValueError: the tokens do not fit.
        """
        end = self._start + keys.shape[2]
        if end > self._capacity:
            raise ValueError(f'cache of {self._capacity} positions cannot take {end}')
        old = self._keys[layer_idx]
        if old is None or old.shape[0] != keys.shape[0] or old.dtype != keys.dtype:
            shape = (*keys.shape[:2], self._capacity, keys.shape[3])
            self._keys[layer_idx] = keys.new_zeros(shape)
            self._values[layer_idx] = values.new_zeros(shape)
        self._keys[layer_idx][:, :, self._start : end] = keys
        self._values[layer_idx][:, :, self._start : end] = values
        return self._keys[layer_idx], self._values[layer_idx]


class GrowingKV:
    """The plain twin: keys and values are concatenated, buffers grow from block to block."""

    def __init__(self, num_layers: int, capacity: int) -> None:
        """Start empty; `capacity` is only remembered."""
        self.capacity = capacity
        self._layers: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * num_layers
        self._start = 0

    def rewind(self, position: int = 0) -> None:
        """Forget what stands from `position` on (0 to what was written)."""
        if not 0 <= position <= self._length():
            raise ValueError(f'expected a position in 0..{self._length()}, found {position}')
        self._start = position

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return where the next write starts."""
        return self._start

    def length_after(self, count: int) -> int:
        """Return how many keys `update` gives back after `count` more tokens."""
        return self._start + count

    def store_prefix(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Start anew with the keys and values [B, kv_heads, P, head_dim] of all layers."""
        self._layers = list(layers)
        self._start = self._length()

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [B, kv_heads, T, head_dim]; return everything."""
        old = self._layers[layer_idx]
        if old is not None:
            keys = torch.cat([old[0][:, :, : self._start], keys], dim=2)
            values = torch.cat([old[1][:, :, : self._start], values], dim=2)
        self._layers[layer_idx] = (keys, values)
        return keys, values

    def _length(self) -> int:
        return 0 if self._layers[0] is None else self._layers[0][0].shape[2]
