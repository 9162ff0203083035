"""The order in which training sees its samples: a function of (seed, epoch, sample number) and of nothing else."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` samples in one epoch: a permutation drawn from (seed, epoch) alone, not to be written to."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)
    order.flags.writeable = False  # every caller has the same array
    return order


def sample_index(seed: int, number: int, count: int) -> int:
    """Which of `count` samples is the `number`-th of the whole training."""
    epoch, place = divmod(number, count)
    return int(epoch_order(seed, epoch, count)[place])


def sample_indices(seed: int, first: int, samples: int, count: int) -> NDArray[np.int64]:
    """`sample_index` of the numbers first … first+samples-1, int64 [samples], each with `count` added for every epoch
    before its own: rows may differ from epoch to epoch."""
    parts, end = [np.zeros(0, np.int64)], first + samples
    while first < end:
        epoch, place = divmod(first, count)
        parts.append(epoch_order(seed, epoch, count)[place : place + end - first] + epoch * count)
        first += len(parts[-1])
    return np.concatenate(parts)
