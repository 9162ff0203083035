"""bf16 numbers added onto fp32 ones, and summed by token, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, down, up
from gptcli.runtime.compiled import compiled

loop = compiled(fastmath=FAST, uses=(bits.__file__,))


@loop
def add(sums: Any, part: Any) -> None:
    for i in range(sums.shape[0]):
        sums[i] += up(part[i])


@loop
def add_rows(sums: Any, part: Any, first: Any) -> None:
    """part [groups,e,D] onto sums [groups,T,D] from row `first` on."""
    groups, height, width = part.shape
    for g in range(groups):
        for i in range(height):
            total, row = sums[g, first + i], part[g, i]
            for j in range(width):
                total[j] += up(row[j])


@loop
def sum_rows_by_id(ids: Any, slope: Any, out: Any) -> None:
    """Slopes [n,H] of looked-up rows → the table's [V,H]: rows of the same id summed in fp32, the others zero."""
    count, width = slope.shape
    vocab = out.shape[0]
    last = np.empty(vocab, np.int64)
    for row in range(vocab):
        last[row] = -1
    before = np.empty(count, np.int64)
    for i in range(count):
        before[i] = last[ids[i]]
        last[ids[i]] = i
    sums = np.empty(width, np.float32)
    for row in range(vocab):
        i = last[row]
        if i < 0:
            for j in range(width):
                out[row, j] = np.uint16(0)
            continue
        for j in range(width):
            sums[j] = np.float32(0)
        while i >= 0:
            for j in range(width):
                sums[j] += up(slope[i, j])
            i = before[i]
        for j in range(width):
            out[row, j] = down(sums[j])
