"""Batches for training, each a function of (seed, sample number): the loader has no state but one integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptcli.training.order import epoch_order, sample_index, sample_indices
from gptcli.training.rows import Rows, TrainingRows, valid_targets

__all__ = ["Batch", "StepBatches", "TokenBatches", "epoch_order", "sample_index", "share"]


@dataclass(frozen=True)
class Batch:
    """input_ids int64 [B,T]; targets int64 [B,T], IGNORED where no loss falls; valid: how many targets count;
    tokens: how many inputs are no padding. Where documents are masked starts int32 [B,T], the place in the row where
    each place's document begins (attention of place i sees starts[i] … i), and positions int64 [B,T], i - starts[i];
    else both are None."""

    input_ids: Tensor
    targets: Tensor
    valid: int
    tokens: int
    starts: Tensor | None = None
    positions: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; to CUDA from pinned memory, so that the copy overlaps with computation."""
        if self.input_ids.device.type == device.type:
            return self
        return Batch(
            _moved(self.input_ids, device),
            _moved(self.targets, device),
            self.valid,
            self.tokens,
            None if self.starts is None else _moved(self.starts, device),
            None if self.positions is None else _moved(self.positions, device),
        )

    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        there = (self.input_ids, self.targets, self.starts, self.positions)
        return [tensor for tensor in there if tensor is not None]


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class StepBatches(Protocol):
    """What gives a step's micro-batches."""

    def step(self, first_sample: int, micro_batch_size: int) -> list[Batch]: ...


class TokenBatches:
    """Rows of tokens in an order drawn anew for every epoch, `sequences` of them a step."""

    def __init__(self, rows: TrainingRows, sequences: int, seed: int) -> None:
        self.rows, self.sequences, self.seed = rows, sequences, seed

    @property
    def count(self) -> int:
        """Samples of one epoch."""
        return self.rows.count

    def step(self, first_sample: int, micro_batch_size: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        """The micro-batches of the step that begins with a sample, counted from 0 over the whole training.

        Of several ranks each builds the rows of its own only: those that `share` would give it of all. A step's valid
        targets are the sum of `valid` over all ranks' batches.
        """
        size = min(micro_batch_size, self.sequences)
        firsts = range(rank * size, self.sequences, ranks * size)
        cuts = [(first, min(first + size, self.sequences)) for first in firsts]
        if not cuts:
            return []
        numbers = sample_indices(self.seed, first_sample, self.sequences, self.count)
        if ranks > 1:
            numbers = np.concatenate([numbers[first:end] for first, end in cuts])
        return _cut(self.rows.rows(numbers), [end - first for first, end in cuts])


def share(batches: Sequence[Batch], rank: int, ranks: int) -> Sequence[Batch]:
    """The micro-batches of one rank of several: every ranks-th, so no two differ by more than one."""
    return batches[rank::ranks]


def _cut(rows: Rows, sizes: list[int]) -> list[Batch]:
    """Batches of so many rows each, views of one another's neighbours."""
    valid = valid_targets(rows)
    whole = [None if array is None else torch.from_numpy(array) for array in rows[:4]]
    batches, first = [], 0
    for size in sizes:
        part = slice(first, first + size)
        ids, targets, starts, positions = (None if each is None else each[part] for each in whole)
        assert ids is not None and targets is not None
        batches.append(Batch(ids, targets, _sum(valid[part]), _sum(rows.tokens[part]), starts, positions))
        first += size
    return batches


def _sum(counts: NDArray[np.int64]) -> int:
    return int(counts.sum())
