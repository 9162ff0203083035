"""The two orders in which a head's rotated values are stored.

Rotary positions turn pairs of values. Meta's files, llama2.c and GGUF's llama keep a pair side by side (0 1 | 2 3 | …);
Hugging Face keeps all first halves before all second ones (0 2 4 … | 1 3 5 …). Rows of the query and key projections
are permuted to match.
"""

from __future__ import annotations

from torch import Tensor


def to_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows [heads·D, …] from pairs side by side to halves, in Hugging Face's order."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape).contiguous()


def to_pairs(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `to_halves`."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape).contiguous()
