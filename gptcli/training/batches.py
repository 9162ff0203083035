"""Batches of a token stream, each a function of (seed, step): the loader has no state of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError
from gptcli.training.loss import IGNORED


@dataclass(frozen=True)
class Batch:
    """input_ids int64 [B,T]; targets int64 [B,T], IGNORED where no loss falls; valid: how many targets count;
    tokens: how many inputs are no padding."""

    input_ids: Tensor
    targets: Tensor
    valid: int
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; from pinned memory the copy overlaps with computation."""
        if device.type != "cuda":
            return self
        return Batch(
            self.input_ids.pin_memory().to(device, non_blocking=True),
            self.targets.pin_memory().to(device, non_blocking=True),
            self.valid,
            self.tokens,
        )


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` samples in one epoch: a permutation drawn from (seed, epoch) alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def sample_index(seed: int, number: int, count: int) -> int:
    """Which of `count` samples is the `number`-th of the whole training."""
    epoch, place = divmod(number, count)
    return int(epoch_order(seed, epoch, count)[place])


class TokenBatches:
    """Windows of seq_len + 1 tokens that overlap by one, in an order drawn anew for every epoch."""

    def __init__(self, stream: TokenStream, seq_len: int, sequences: int, bos_id: int | None, seed: int) -> None:
        self.stream, self.seq_len, self.sequences, self.bos_id, self.seed = stream, seq_len, sequences, bos_id, seed
        self.count = (len(stream) - 1) // seq_len
        if self.count < 1:
            raise ArtifactError(
                f"the train split has {len(stream)} tokens, fewer than one sequence of seq_len={seq_len}",
                "use a smaller seq_len or more text",
            )

    def step(self, step: int, micro_batch_size: int) -> list[Batch]:
        """The micro-batches of one optimizer step, counted from 0."""
        first = step * self.sequences
        numbers = range(first, first + self.sequences)
        windows = np.stack([self._window(sample_index(self.seed, number, self.count)) for number in numbers])
        return [
            self._batch(windows[start : start + micro_batch_size])
            for start in range(0, self.sequences, micro_batch_size)
        ]

    def _window(self, index: int) -> NDArray[np.int64]:
        start = index * self.seq_len
        return self.stream.read(start, start + self.seq_len + 1)

    def _batch(self, windows: NDArray[np.int64]) -> Batch:
        inputs, targets = windows[:, :-1], windows[:, 1:].copy()
        if self.bos_id is not None:
            targets[targets == self.bos_id] = IGNORED
        valid = int((targets != IGNORED).sum())
        return Batch(torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(targets), valid, inputs.size)
