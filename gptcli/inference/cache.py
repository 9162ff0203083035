"""Keys and values of the tokens a model has already read, so that each new token costs one step."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._rows: list[int] = []  # that are being read
        self._starts: list[int] = []
        self._end = 0
        self._mask: Tensor | None = None

    def begin(self, count: int, device: torch.device, rows: Sequence[int] | None = None) -> Tensor:
        """Make room for `count` more tokens in each of `rows` (None: all); returns their positions [B,count].

        The caller keeps every sequence within the model's `limit` of positions, less its padding.
        """
        self._rows = list(range(len(self.lengths)) if rows is None else rows)
        self._starts = [self.lengths[row] for row in self._rows]
        self._end = min(max(self._starts) + count, self.limit)
        if self._end > self.capacity:
            self.capacity = min(max(2 * self.capacity, self._end), self.limit)
        positions = torch.tensor(self._starts, device=device)[:, None] + torch.arange(count, device=device)
        positions = positions.clamp_(max=self.limit - 1)  # padding alone comes as far
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
        return self._seen(stored_keys), self._seen(stored_values), self._mask

    def advance(self, counts: Sequence[int]) -> None:
        """Count the tokens just read, without padding, to each sequence."""
        for row, count in zip(self._rows, counts, strict=True):
            self.lengths[row] += count

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the sequence `target` hold the first `length` tokens of `source`, and nothing else."""
        if source != target:
            for table in (*self._keys, *self._values):
                if table is not None:
                    table[target, :, :length] = table[source, :, :length]
        self.lengths[target] = length

    @property
    def _fresh(self) -> bool:
        return not any(self._starts)

    @property
    def _leading(self) -> bool:
        """Whether the rows being read are the table's first ones, so that a view of it will do."""
        return self._rows == list(range(len(self._rows)))

    def _seen(self, table: Tensor) -> Tensor:
        held = table[:, :, : self._end]
        return held[: len(self._rows)] if self._leading else held[torch.tensor(self._rows, device=table.device)]

    def _store(self, tables: list[Tensor | None], layer: int, new: Tensor, positions: Tensor) -> Tensor:
        batch, heads, size = self._shape
        table = tables[layer]
        if table is None or table.shape[2] < self.capacity:
            # Zeros, not empty memory: a hidden slot is still multiplied by zero, and NaN · 0 is NaN.
            grown = new.new_zeros(batch, heads, self.capacity, size)
            if table is not None:
                grown[:, :, : table.shape[2]] = table
            table = tables[layer] = grown
        if self._leading and len(set(self._starts)) == 1:
            start = self._starts[0]
            table[: len(self._rows), :, start : start + new.shape[2]] = new
        else:
            rows = torch.tensor(self._rows, device=new.device)[:, None]
            table[rows, :, positions] = new.transpose(1, 2)
        return table
