"""From a joint projection to attention's heads: optional QK-norm, rotary positions (Su et al. 2021), transposition.

Shapes: B sequences, T tokens, N heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptcli.models.ops.native import bits, floats, native
from gptcli.models.ops.norm import rms_norm

Phases = tuple[Tensor, Tensor]  # cos and sin, fp32 [1 or B,T,D/2]


def rotary_heads(
    joined: Tensor,
    counts: tuple[int, int],
    phases: Phases,
    gains: tuple[Tensor, Tensor] | None = None,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """q [B,N,T,D], k and v [B,K,T,D] of `joined` [B,T,(N+2K)·D], which has all of q, then k, then v.

    `counts` is (N, K). q and k are RMS-normalised per head where `gains` (q's and k's, [D]) are given, then turned by
    `phases`, in Hugging Face's half-rotated layout: pairs (x[i], x[i + D/2]).
    """
    if native(joined):
        q_gain, k_gain = gains if gains is not None else (None, None)
        q, k, v = _RotaryHeads.apply(joined, counts, *phases, q_gain, k_gain, eps)  # type: ignore[no-untyped-call]
        return q, k, v
    q, k, v = split_heads(joined, counts)
    if gains is not None:
        q, k = rms_norm(q, gains[0], eps), rms_norm(k, gains[1], eps)
    return rotate(q, phases), rotate(k, phases), v


def split_heads(joined: Tensor, counts: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The same without norm and rotation; in plain PyTorch, views."""
    heads, kv_heads = counts
    batch, length, width = joined.shape
    size = width // (heads + 2 * kv_heads)
    if native(joined):
        q, k, v = _SplitHeads.apply(joined, (heads, kv_heads, kv_heads))  # type: ignore[no-untyped-call]
        return q, k, v
    q, k, v = torch.split(joined.view(batch, length, -1, size), [heads, kv_heads, kv_heads], dim=2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def rotate(x: Tensor, phases: Phases) -> Tensor:
    """Turn the pairs (x[i], x[i + D/2]) of [B,N,T,D].

    The phases come from fp32 tables; the turn itself is done in x's dtype, as transformers does it, which under
    bf16 saves a round trip through fp32 in every layer.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = (phase.unsqueeze(1).to(x.dtype) for phase in phases)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


_NO_GAIN = torch.empty(0)


class _RotaryHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        joined: Tensor,
        counts: tuple[int, int],
        cos: Tensor,
        sin: Tensor,
        q_gain: Tensor | None,
        k_gain: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from gptcli.models.ops import heads_loops

        joined = joined.contiguous()
        q, k, v = _room(joined, (counts[0], counts[1], counts[1]))
        tables = floats(cos), floats(sin)
        offset, source = 0, bits(joined)
        for out, gain in ((q, q_gain), (k, k_gain)):
            weight = floats(_NO_GAIN if gain is None else gain)
            heads_loops.turn_heads(source, offset, *tables, weight, np.float32(eps), bits(out))
            offset += out.shape[1] * out.shape[3]
        heads_loops.copy_heads(source, offset, bits(v))
        # Without a norm the way back is a rotation alone, which needs nothing of what came in.
        ctx.save_for_backward(*(() if q_gain is None else (joined, q_gain, k_gain)))
        ctx.facts = counts, tables, eps, joined.shape
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None, Tensor | None, Tensor | None, None]:
        from gptcli.models.ops import heads_loops

        _, tables, eps, shape = ctx.facts
        out = slopes[0].new_empty(shape)
        saved = ctx.saved_tensors  # read once: a checkpointed layer hands them out once
        joined, *gains = saved or (out, _NO_GAIN, _NO_GAIN)
        gain_slopes = [torch.zeros(gain.shape) for gain in gains]
        offset = 0
        for slope, gain, gain_slope in zip(slopes[:2], gains, gain_slopes, strict=True):
            cos, sin = tables
            given, room = bits(slope.contiguous()), gain_slope.numpy()
            heads_loops.turn_heads_slope(
                bits(joined), offset, cos, sin, floats(gain), np.float32(eps), given, bits(out), room
            )
            offset += slope.shape[1] * slope.shape[3]
        heads_loops.join_heads(bits(slopes[2].contiguous()), offset, bits(out))
        if not saved:
            return out, None, None, None, None, None, None
        q_slope, k_slope = (found.to(gain.dtype) for found, gain in zip(gain_slopes, gains, strict=True))
        return out, None, None, None, q_slope, k_slope, None


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
        from gptcli.models.ops import heads_loops

        joined = joined.contiguous()
        parts, offset = _room(joined, counts), 0
        for part in parts:
            heads_loops.copy_heads(bits(joined), offset, bits(part))
            offset += part.shape[1] * part.shape[3]
        ctx.shape = joined.shape
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        from gptcli.models.ops import heads_loops

        out, offset = slopes[0].new_empty(ctx.shape), 0
        for slope in slopes:
            heads_loops.join_heads(bits(slope.contiguous()), offset, bits(out))
            offset += slope.shape[1] * slope.shape[3]
        return out, None


def _room(joined: Tensor, counts: Sequence[int]) -> list[Tensor]:
    batch, length, width = joined.shape
    size = width // sum(counts)
    return [joined.new_empty(batch, count, length, size) for count in counts]
