"""Keys and values of the tokens a model has already read, so that each new token costs one step."""

from __future__ import annotations

import torch
from torch import Tensor

from gptcli.models.config import ModelConfig


class Cache:
    """Preallocated keys and values of a batch of sequences, doubled when full.

    Slot p of a sequence holds the token at position p; a query at position p sees slots 0…p. Rows may therefore be
    padded on the right: a padding token's slot is hidden from the sequence's own tokens until one overwrites it.
    `lengths` [B] counts the tokens of each sequence that are held.
    """

    def __init__(self, config: ModelConfig, batch: int, capacity: int = 256) -> None:
        self.limit = config.max_position_embeddings
        self.capacity = min(capacity, self.limit)
        self.lengths = [0] * batch
        self._shape = (batch, config.num_key_value_heads, config.head_dim)
        self._keys: list[Tensor | None] = [None] * config.num_hidden_layers
        self._values: list[Tensor | None] = [None] * config.num_hidden_layers
        self._fresh = True
        self._end = 0
        self._mask: Tensor | None = None

    def begin(self, count: int, device: torch.device) -> Tensor:
        """Make room for `count` more tokens a sequence; returns their positions [B,count].

        The caller keeps every sequence within the model's `limit` of positions.
        """
        self._end = max(self.lengths) + count
        if self._end > self.capacity:
            self.capacity = min(max(2 * self.capacity, self._end), self.limit)
        starts = torch.tensor(self.lengths, device=device)
        positions = starts[:, None] + torch.arange(count, device=device)
        self._fresh = not any(self.lengths)
        slots = torch.arange(self._end, device=device)
        self._mask = None if self._fresh else (slots <= positions[:, :, None])[:, None]
        return positions

    def extend(
        self, layer: int, keys: Tensor, values: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store [B,K,T,D] at `positions` [B,T]; returns what to attend to and its mask (models/llama.py, KeyValues)."""
        stored_keys = self._store(self._keys, layer, keys, positions)
        stored_values = self._store(self._values, layer, values, positions)
        if self._fresh:
            return keys, values, None
        return stored_keys[:, :, : self._end], stored_values[:, :, : self._end], self._mask

    def advance(self, counts: list[int]) -> None:
        """Count the tokens just read, without padding, to each sequence."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def cut(self, length: int) -> None:
        """Forget every token from position `length` on."""
        self.lengths = [min(length, own) for own in self.lengths]

    def _store(self, tables: list[Tensor | None], layer: int, new: Tensor, positions: Tensor) -> Tensor:
        batch, heads, size = self._shape
        table = tables[layer]
        if table is None or table.shape[2] < self.capacity:
            # Zeros, not empty memory: a hidden slot is still multiplied by zero, and NaN · 0 is NaN.
            grown = new.new_zeros(batch, heads, self.capacity, size)
            if table is not None:
                grown[:, :, : table.shape[2]] = table
            table = tables[layer] = grown
        if len(set(self.lengths)) == 1:
            start = self.lengths[0]
            table[:, :, start : start + new.shape[2]] = new
        else:
            rows = torch.arange(batch, device=new.device)[:, None]
            table[rows, :, positions] = new.transpose(1, 2)
        return table
