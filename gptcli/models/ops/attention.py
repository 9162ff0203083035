"""Causal attention, also within documents that share a row, and along the branches of a tree of tokens.

Shapes: B sequences, T tokens, N heads, K key/value heads (each shared by G = N/K heads, Ainslie et al. 2023), D
head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.models.ops.native import bits, native

QUERIES_AT_ONCE = 128  # rows of a block of scores
HEADS_AT_ONCE = 24  # whose blocks of scores are made together


class Starts:
    """The first position in its row that each token sees, [B,T]: at least 0, at most its own, never falling along a
    row. Made once a batch; what a device's kernel wants of it is made at the first layer and kept for the others."""

    def __init__(self, places: Tensor) -> None:
        self.places = places
        self._mask: Tensor | None = None  # not cached_property, whose lock a compiler can't trace
        self._blocks: Any = None
        self._rows: npt.NDArray[np.int64] | None = None

    def prepare(self, x: Tensor, head_dim: int) -> None:
        """Make what attention of x [B,T,H] will want, now: a compiler does not trace what a recomputed layer would
        leave behind."""
        if native(x):
            return
        _ = self.blocks if _flex_serves(x.device, head_dim) else self.mask

    @property
    def mask(self) -> Tensor:
        """[B,1,T,T], true where a query (row) sees a key (column)."""
        if self._mask is None:
            steps = torch.arange(self.places.shape[1], device=self.places.device)
            self._mask = ((steps >= self.places[:, :, None]) & (steps <= steps[:, None]))[:, None]
        return self._mask

    @property
    def blocks(self) -> Any:
        """The same for FlexAttention."""
        if self._blocks is None:
            from gptcli.models.ops.flex import block_mask

            self._blocks = block_mask(self.places)
        return self._blocks

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The same for the native form."""
        if self._rows is None:
            self._rows = self.places.numpy().astype(np.int64)
        return self._rows


class Branches:
    """Rows of tokens that are trees in depth-first order: `last` [B,T] is the place of each one's last descendant (its
    own where it has none), and a token sees itself and its ancestors, those j with j ≤ i ≤ last[j]."""

    def __init__(self, last: Tensor) -> None:
        self.last = last
        self._bias: Tensor | None = None
        self._blocks: Any = None

    def prepare(self, x: Tensor, head_dim: int) -> None:
        """Make what attention of x [B,T,H] will want, now."""
        _ = self.blocks if _flex_serves(x.device, head_dim) else self.bias(x.dtype)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """[B,1,T,T], 0 where a query (row) sees a key (column), else -inf: every layer would make that of booleans."""
        if self._bias is None or self._bias.dtype != dtype:
            steps = torch.arange(self.last.shape[1], device=self.last.device)
            unseen = (steps[:, None] < steps) | (steps[:, None] > self.last[:, None, :])
            self._bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device).masked_fill_(unseen, -torch.inf)
            self._bias = self._bias[:, None]
        return self._bias

    @property
    def blocks(self) -> Any:
        """The same for FlexAttention."""
        if self._blocks is None:
            from gptcli.models.ops.flex import branch_mask

            self._blocks = branch_mask(self.last)
        return self._blocks


def _flex_serves(device: torch.device, head_dim: int) -> bool:
    if device.type != "cuda":  # its import takes longer than torch's own: it brings the compiler
        return False
    from gptcli.models.ops import flex

    return flex.serves(device, head_dim)


def sight(starts: Tensor | None, last: Tensor | None) -> Starts | Branches | None:
    """What the tokens of a batch see: from `starts` on, their ancestors by `last`, or all before them."""
    if last is not None:
        return Branches(last)
    return None if starts is None else Starts(starts)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, starts: Starts | Branches | None = None) -> Tensor:
    """softmax(q·kᵀ/√D)·v over what each position sees (None: all up to its own).

    q [B,N,T,D], k and v [B,K,T,D] → [B,T,N·D].
    """
    if native(q) and not isinstance(starts, Branches):
        out: Tensor = _Attention.apply(q, k, v, starts)  # type: ignore[no-untyped-call]
        return out
    if starts is None:
        return attend(q, k, v, None)
    if _flex_serves(q.device, q.shape[3]):
        from gptcli.models.ops import flex

        return flex.attend_blocks(q, k, v, starts.blocks)
    return attend(q, k, v, starts.bias(q.dtype) if isinstance(starts, Branches) else starts.mask)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q [B,N,T,D] to k and v [B,K,S,D] where `mask` [B,1,T,S] is true or 0 (None: causal) → [B,T,N·D]."""
    batch, heads, length, size = q.shape
    grouped = heads > k.shape[1]
    if grouped and q.device.type == "cuda" and q.dtype == torch.float32:
        # CUDA's fused kernels share keys among queries in half precision only; in fp32 the fallback is slower
        # than a fused kernel on repeated keys.
        groups = heads // k.shape[1]
        k, v, grouped = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), False
    causal = mask is None and length > 1
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    return mixed.transpose(1, 2).reshape(batch, length, heads * size)


class _Block:
    """Queries first … last-1 of all heads of some sequences, and the keys low … last-1 that any of them sees."""

    def __init__(self, first: int, last: int, starts: Any) -> None:
        self.first, self.last = first, last
        self.low = 0 if starts is None else int(starts[first])
        self.begins = np.zeros(last - first, np.int64) if starts is None else starts[first:last] - self.low

    @property
    def keys(self) -> slice:
        return slice(self.low, self.last)

    @property
    def queries(self) -> slice:
        return slice(self.first, self.last)


def _groups(q: Tensor, starts: Starts | None) -> Iterator[tuple[slice, list[_Block]]]:
    """Which sequences are worked on together, and the blocks of their queries."""
    batch, heads, length, _ = q.shape
    together = 1 if starts is not None else max(1, HEADS_AT_ONCE // heads)
    for row in range(0, batch, together):
        own = None if starts is None else starts.rows[row]
        blocks = [
            _Block(first, min(first + QUERIES_AT_ONCE, length), own) for first in range(0, length, QUERIES_AT_ONCE)
        ]
        yield slice(row, min(row + together, batch)), blocks


def _take(x: Tensor, keys: int, part: slice) -> Tensor:
    """Rows of x [b,N,T,D] → [b·K,G·rows,D]: the queries that share keys, one after another."""
    batch, heads, _, size = x.shape
    return x.view(batch * keys, heads // keys, -1, size)[:, :, part].reshape(batch * keys, -1, size)


def _heads_inside(x: Tensor, heads: int, part: slice) -> Tensor:
    """Rows of x [b,T,N·D] as a view [b,N,rows,D]."""
    return x.view(*x.shape[:2], heads, -1)[:, part].transpose(1, 2)


class _Attention(torch.autograd.Function):
    """Scores are made for a block of queries and the keys before its end; the probabilities are kept, in bf16."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Starts | None) -> Tensor:
        from gptcli.models.ops import attention_loops

        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        batch, heads, length, size = q.shape
        out, kept, scale = q.new_empty(batch, length, heads * size), [], np.float32(1 / math.sqrt(size))
        learning = any(ctx.needs_input_grad)
        for rows, blocks in _groups(q, starts):
            keys, values = k[rows].flatten(0, 1), v[rows].flatten(0, 1)
            for block in blocks:
                scores = torch.bmm(_take(q[rows], k.shape[1], block.queries), keys[:, block.keys].transpose(1, 2))
                attention_loops.causal_softmax(bits(scores), block.first - block.low, block.begins, scale)
                mixed = torch.bmm(scores, values[:, block.keys])
                place = _heads_inside(out[rows], heads, block.queries)
                place.copy_(mixed.view(place.shape))
                if learning:
                    kept.append(scores)
        if learning:
            ctx.save_for_backward(q, k, v, *kept)
            ctx.starts = starts
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        slope = slopes[0].contiguous()
        q_slope, k_slope, v_slope = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for rows, blocks in _groups(q, ctx.starts):
            probabilities, kept = kept[: len(blocks)], kept[len(blocks) :]
            parts = q[rows], k[rows], v[rows], slope[rows], q_slope[rows], k_slope[rows], v_slope[rows]
            _group_slopes(blocks, probabilities, *parts)
        return q_slope, k_slope, v_slope, None


def _group_slopes(
    blocks: list[_Block],
    kept: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slope: Tensor,
    q_slope: Tensor,
    k_slope: Tensor,
    v_slope: Tensor,
) -> None:
    """The way back of some sequences; the slopes of keys and values are summed over blocks in fp32."""
    from gptcli.models.ops import attention_loops, sums_loops

    heads, kv_heads, scale = q.shape[1], k.shape[1], np.float32(1 / math.sqrt(q.shape[3]))
    keys, values = k.flatten(0, 1), v.flatten(0, 1)
    k_sum, v_sum = (torch.zeros(keys.shape, dtype=torch.float32) for _ in range(2))
    for block, probabilities in zip(blocks, kept, strict=True):
        outer = _heads_inside(slope, heads, block.queries).reshape(keys.shape[0], -1, keys.shape[2])
        slopes = torch.bmm(outer, values[:, block.keys].transpose(1, 2))
        attention_loops.causal_softmax_slope(
            bits(probabilities), bits(slopes), block.first - block.low, block.begins, scale
        )
        queries = _take(q, kv_heads, block.queries)
        place = q_slope[:, :, block.queries]
        place.copy_(torch.bmm(slopes, keys[:, block.keys]).view(place.shape))
        for total, left, right in ((k_sum, slopes, queries), (v_sum, probabilities, outer)):
            sums_loops.add_rows(total.numpy(), bits(torch.bmm(left.transpose(1, 2), right)), block.low)
    k_slope.copy_(k_sum.view(k.shape))
    v_slope.copy_(v_sum.view(v.shape))
