"""What reads tokens for generation: a model with the keys and values of several sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gptcli.inference.cache import Cache
from gptcli.models.family import CausalLM

PADDED_TOKENS = 4096  # read at once at most, padding included, so that a long prompt's memory is bounded


class Reader(Protocol):
    """Sequences numbered from 0, each with the tokens it has read; `lengths` counts them."""

    lengths: list[int]

    def read(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """Feed the next tokens of some sequences; returns the logits [n,V] after each one's last."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the sequence `target` hold the first `length` tokens of `source`, and nothing else."""


class ModuleReader:
    """The model's own modules on any device, rows padded on the right."""

    def __init__(self, model: CausalLM, slots: int, capacity: int = 256) -> None:
        self._model = model
        self._cache = Cache(model.config, slots, capacity)
        self.lengths = self._cache.lengths

    def read(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """See Reader."""
        if len(slots) == 1 or all(len(row) == 1 for row in rows):
            return read(self._model, self._cache, rows, slots)
        out: list[Tensor | None] = [None] * len(rows)
        for group in _groups([len(row) for row in rows]):
            logits = read(self._model, self._cache, [rows[i] for i in group], [slots[i] for i in group])
            for i, line in zip(group, logits, strict=True):
                out[i] = line
        return torch.stack([line for line in out if line is not None])

    def copy(self, source: int, target: int, length: int) -> None:
        """See Reader."""
        self._cache.copy(source, target, length)


@torch.no_grad()
def read(model: CausalLM, cache: Cache, rows: Sequence[Sequence[int]], slots: Sequence[int] | None = None) -> Tensor:
    """Feed the next tokens of each sequence, or of those in `slots`; returns the logits [B,V] after each one's last.

    Rows of different lengths are padded on the right, which the cache keeps out of sight.
    """
    device = next(model.parameters()).device
    counts = [len(row) for row in rows]
    longest = max(counts)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    positions = cache.begin(longest, device, slots)
    hidden = model.hidden(ids, positions, cache)
    cache.advance(counts)
    last = hidden[torch.arange(len(rows), device=device), torch.tensor(counts, device=device) - 1]
    return model.head(last)


def _groups(counts: Sequence[int]) -> list[list[int]]:
    """Rows of like lengths together, each group's padded tokens within PADDED_TOKENS."""
    groups: list[list[int]] = []
    for i in sorted(range(len(counts)), key=lambda i: counts[i]):
        full = groups and (len(groups[-1]) + 1) * counts[i] > PADDED_TOKENS
        if not groups or full or counts[i] > 2 * counts[groups[-1][0]]:
            groups.append([])
        groups[-1].append(i)
    return groups
