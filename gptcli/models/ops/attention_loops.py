"""What attention does between its matrix products, in place on bf16 numbers, compiled.

Loops run over views that begin at 0: an index that could be negative keeps a loop from being vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, down, exp32, ordered, up
from gptcli.runtime.compiled import compiled, inlined

loop = compiled(fastmath=FAST, uses=(bits.__file__,))


@inlined
def _clear(row: Any) -> None:
    for j in range(row.shape[0]):
        row[j] = np.uint16(0)


@loop
def causal_softmax(scores: Any, first: Any, begins: Any, scale: Any) -> None:
    """Scores [groups, G·n, e] → probabilities in place: row r is query r % n, which sees columns
    begins[r % n] … first + r % n; the others become zero."""
    groups, height, width = scores.shape
    queries = begins.shape[0]
    exps = np.empty(width, np.float32)
    for g in range(groups):
        for r in range(height):
            query = r % queries
            begin, end = begins[query], first + query + 1
            _clear(scores[g, r, :begin])
            _clear(scores[g, r, end:])
            row = scores[g, r, begin:end]
            top = np.int16(-0x7FFF)
            for j in range(row.shape[0]):
                top = max(top, ordered(row[j]))
            most = up(np.uint16(ordered(np.uint16(top)))) * scale
            total = np.float32(0)
            for j in range(row.shape[0]):
                value = exp32(up(row[j]) * scale - most)
                exps[j] = value
                total += value
            share = np.float32(1) / total
            for j in range(row.shape[0]):
                row[j] = down(exps[j] * share)


@loop
def causal_softmax_slope(probabilities: Any, slopes: Any, first: Any, begins: Any, scale: Any) -> None:
    """Slopes of probabilities → slopes of scores, in place: P·(dP - Σ P·dP)·scale, zero where nothing is seen."""
    groups, height = slopes.shape[:2]
    queries = begins.shape[0]
    for g in range(groups):
        for r in range(height):
            query = r % queries
            begin, end = begins[query], first + query + 1
            _clear(slopes[g, r, :begin])
            _clear(slopes[g, r, end:])
            row, shares = slopes[g, r, begin:end], probabilities[g, r, begin:end]
            mean = np.float32(0)
            for j in range(row.shape[0]):
                mean += up(shares[j]) * up(row[j])
            for j in range(row.shape[0]):
                row[j] = down(up(shares[j]) * (up(row[j]) - mean) * scale)
