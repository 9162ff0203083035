"""From a joint projection to heads ready for attention, and back, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, down, up
from gptcli.runtime.compiled import compiled, inlined

loop = compiled(fastmath=FAST, uses=(bits.__file__,))


@loop
def copy_heads(joined: Any, offset: Any, out: Any) -> None:
    """Columns of [B,T,…] from `offset` on → [B,K,T,D]."""
    batch, heads, length, size = out.shape
    for b in range(batch):
        for t in range(length):
            for h in range(heads):
                start = offset + h * size
                source, target = joined[b, t, start : start + size], out[b, h, t]
                for j in range(size):
                    target[j] = source[j]


@loop
def join_heads(parts: Any, offset: Any, out: Any) -> None:
    """[B,K,T,D] → columns of [B,T,…] from `offset` on."""
    batch, heads, length, size = parts.shape
    for b in range(batch):
        for t in range(length):
            for h in range(heads):
                start = offset + h * size
                source, target = parts[b, h, t], out[b, t, start : start + size]
                for j in range(size):
                    target[j] = source[j]


@loop
def turn_heads(joined: Any, offset: Any, cos: Any, sin: Any, gain: Any, eps: Any, out: Any) -> None:
    """As copy_heads, RMS-normalised where `gain` [D] is not empty, and rotated by cos and sin [B or 1,T,D/2]."""
    batch, heads, length, size = out.shape
    half = size // 2
    normalised = gain.shape[0] > 0
    weight = np.empty(size, np.float32)
    for j in range(size):
        weight[j] = gain[j] if normalised else np.float32(1)
    for b in range(batch):
        table = b if cos.shape[0] > 1 else 0
        for t in range(length):
            c, s = cos[table, t], sin[table, t]
            for h in range(heads):
                start = offset + h * size
                source, target = joined[b, t, start : start + size], out[b, h, t]
                scale = _inverse_rms(source, eps) if normalised else np.float32(1)
                for j in range(half):
                    first = up(source[j]) * scale * weight[j]
                    second = up(source[half + j]) * scale * weight[half + j]
                    target[j] = down(first * c[j] - second * s[j])
                    target[half + j] = down(second * c[j] + first * s[j])


@inlined
def _inverse_rms(source: Any, eps: Any) -> Any:
    square = np.float32(0)
    for j in range(source.shape[0]):
        value = up(source[j])
        square += value * value
    return np.float32(1) / np.sqrt(square / np.float32(source.shape[0]) + eps)


@loop
def turn_heads_slope(
    joined: Any, offset: Any, cos: Any, sin: Any, gain: Any, eps: Any, slope: Any, out: Any, gain_slope: Any
) -> None:
    """Slopes [B,N,T,D] of turn_heads' results → columns of `out` [B,T,…]; `gain_slope` fp32 is added to.

    Without a gain `joined` is not looked at.
    """
    batch, heads, length, size = slope.shape
    half = size // 2
    given = np.empty(size, np.float32)
    normalised = gain.shape[0] > 0
    for b in range(batch):
        table = b if cos.shape[0] > 1 else 0
        for t in range(length):
            c, s = cos[table, t], sin[table, t]
            for h in range(heads):
                start = offset + h * size
                row, target = slope[b, h, t], out[b, t, start : start + size]
                for j in range(half):
                    first, second = up(row[j]), up(row[half + j])
                    given[j] = first * c[j] + second * s[j]
                    given[half + j] = second * c[j] - first * s[j]
                if normalised:
                    _through_norm(joined[b, t, start : start + size], given, gain, eps, target, gain_slope)
                else:
                    for j in range(size):
                        target[j] = down(given[j])


@inlined
def _through_norm(source: Any, given: Any, gain: Any, eps: Any, target: Any, gain_slope: Any) -> None:
    square, dot = np.float32(0), np.float32(0)
    for j in range(source.shape[0]):
        value = up(source[j])
        square += value * value
        dot += value * given[j] * gain[j]
    scale = np.float32(1) / np.sqrt(square / np.float32(source.shape[0]) + eps)
    mean = dot * scale * scale / np.float32(source.shape[0])
    for j in range(source.shape[0]):
        value = up(source[j])
        gain_slope[j] += given[j] * value * scale
        target[j] = down(scale * (given[j] * gain[j] - value * mean))
