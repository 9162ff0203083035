"""Normalisation over rows of bf16 numbers, forward and backward, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, down, up
from gptcli.runtime.compiled import compiled

loop = compiled(fastmath=FAST, uses=(bits.__file__,))


@loop
def rms_norm(x: Any, gain: Any, eps: Any, out: Any, inverse: Any) -> None:
    count, width = x.shape
    for i in range(count):
        square = np.float32(0)
        for j in range(width):
            value = up(x[i, j])
            square += value * value
        scale = np.float32(1) / np.sqrt(square / np.float32(width) + eps)
        inverse[i] = scale
        for j in range(width):
            out[i, j] = down(up(x[i, j]) * scale * gain[j])


@loop
def add_rms_norm(x: Any, branch: Any, gain: Any, eps: Any, total: Any, out: Any, inverse: Any) -> None:
    count, width = x.shape
    for i in range(count):
        square = np.float32(0)
        for j in range(width):
            rounded = down(up(x[i, j]) + up(branch[i, j]))
            total[i, j] = rounded
            value = up(rounded)
            square += value * value
        scale = np.float32(1) / np.sqrt(square / np.float32(width) + eps)
        inverse[i] = scale
        for j in range(width):
            out[i, j] = down(up(total[i, j]) * scale * gain[j])


@loop
def rms_norm_slope(x: Any, gain: Any, inverse: Any, slope: Any, x_slope: Any, gain_slope: Any) -> None:
    """`gain_slope` fp32 is added to."""
    count, width = x.shape
    for i in range(count):
        scale = inverse[i]
        dot = np.float32(0)
        for j in range(width):
            part = up(slope[i, j]) * up(x[i, j])
            dot += part * gain[j]
            gain_slope[j] += part * scale
        mean = dot * scale * scale / np.float32(width)
        for j in range(width):
            x_slope[i, j] = down(scale * (up(slope[i, j]) * gain[j] - up(x[i, j]) * mean))


@loop
def add_rms_norm_slope(
    x: Any, gain: Any, inverse: Any, slope: Any, through: Any, x_slope: Any, gain_slope: Any
) -> None:
    """As rms_norm_slope, with the slope `through` that reaches x beside the norm."""
    count, width = x.shape
    for i in range(count):
        scale = inverse[i]
        dot = np.float32(0)
        for j in range(width):
            part = up(slope[i, j]) * up(x[i, j])
            dot += part * gain[j]
            gain_slope[j] += part * scale
        mean = dot * scale * scale / np.float32(width)
        for j in range(width):
            own = scale * (up(slope[i, j]) * gain[j] - up(x[i, j]) * mean)
            x_slope[i, j] = down(up(through[i, j]) + own)


@loop
def layer_norm(x: Any, gain: Any, shift: Any, eps: Any, out: Any, means: Any, inverse: Any) -> None:
    count, width = x.shape
    for i in range(count):
        total = np.float32(0)
        for j in range(width):
            total += up(x[i, j])
        mean = total / np.float32(width)
        square = np.float32(0)
        for j in range(width):
            value = up(x[i, j]) - mean
            square += value * value
        scale = np.float32(1) / np.sqrt(square / np.float32(width) + eps)
        means[i], inverse[i] = mean, scale
        for j in range(width):
            out[i, j] = down((up(x[i, j]) - mean) * scale * gain[j] + shift[j])


@loop
def layer_norm_slope(
    x: Any, gain: Any, means: Any, inverse: Any, slope: Any, x_slope: Any, gain_slope: Any, shift_slope: Any
) -> None:
    """`gain_slope` and `shift_slope` fp32 are added to."""
    count, width = x.shape
    for i in range(count):
        mean, scale = means[i], inverse[i]
        total, dot = np.float32(0), np.float32(0)
        for j in range(width):
            given = up(slope[i, j])
            unit = (up(x[i, j]) - mean) * scale
            total += given * gain[j]
            dot += given * gain[j] * unit
            gain_slope[j] += given * unit
            shift_slope[j] += given
        total, dot = total / np.float32(width), dot / np.float32(width)
        for j in range(width):
            unit = (up(x[i, j]) - mean) * scale
            x_slope[i, j] = down(scale * (up(slope[i, j]) * gain[j] - total - unit * dot))
