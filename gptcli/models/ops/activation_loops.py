"""Activations over rows of bf16 numbers, forward and backward, compiled.

Loops run over views that begin at 0: an index that could be negative keeps a loop from being vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, down, exp32, number, tanh32, up
from gptcli.runtime.compiled import compiled

loop = compiled(fastmath=FAST, uses=(bits.__file__,))

_HALF, _ONE = np.float32(0.5), np.float32(1)
_ROOT_2_OVER_PI, _CUBIC = np.float32(0.7978845608028654), np.float32(0.044715)
_ROOT_HALF, _DENSITY = np.float32(0.7071067811865476), np.float32(0.3989422804014327)


@loop
def swiglu(both: Any, out: Any) -> None:
    """[n,2F] → [n,F]: silu of the first half times the second."""
    count, width = out.shape
    for i in range(count):
        gates, ups, row = both[i, :width], both[i, width:], out[i]
        for j in range(width):
            gate = up(gates[j])
            row[j] = down(gate / (_ONE + exp32(-gate)) * up(ups[j]))


@loop
def swiglu_slope(both: Any, slope: Any, out: Any) -> None:
    count, width = slope.shape
    for i in range(count):
        gates, ups, row = both[i, :width], both[i, width:], slope[i]
        gate_slopes, up_slopes = out[i, :width], out[i, width:]
        for j in range(width):
            gate, given = up(gates[j]), up(row[j])
            sigmoid = _ONE / (_ONE + exp32(-gate))
            silu = gate * sigmoid
            up_slopes[j] = down(given * silu)
            gate_slopes[j] = down(given * up(ups[j]) * (sigmoid + silu * (_ONE - sigmoid)))


@number
def _normal_cdf(x: Any, bell: Any) -> Any:
    """The normal distribution's Φ(x) within 1e-7 of it, by Abramowitz & Stegun 7.1.26; `bell` is exp(-x²/2)."""
    size = abs(x) * _ROOT_HALF
    t = _ONE / (_ONE + np.float32(0.3275911) * size)
    series = np.float32(1.061405429) * t - np.float32(1.453152027)
    series = (series * t + np.float32(1.421413741)) * t - np.float32(0.284496736)
    tail = _HALF * (series * t + np.float32(0.254829592)) * t * bell
    return _ONE - tail if x > 0 else tail


@loop
def gelu(x: Any, out: Any) -> None:
    """x·Φ(x)."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = up(x[i, j])
            out[i, j] = down(value * _normal_cdf(value, exp32(-_HALF * value * value)))


@loop
def gelu_slope(x: Any, slope: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = up(x[i, j])
            bell = exp32(-_HALF * value * value)
            out[i, j] = down(up(slope[i, j]) * (_normal_cdf(value, bell) + value * bell * _DENSITY))


@loop
def gelu_tanh(x: Any, out: Any) -> None:
    """x·(1 + tanh(√(2/π)(x + 0.044715 x³)))/2."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = up(x[i, j])
            inner = tanh32(_ROOT_2_OVER_PI * value * (_ONE + _CUBIC * value * value))
            out[i, j] = down(_HALF * value * (_ONE + inner))


@loop
def gelu_tanh_slope(x: Any, slope: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = up(x[i, j])
            square = _CUBIC * value * value
            inner = tanh32(_ROOT_2_OVER_PI * value * (_ONE + square))
            rise = (_ONE - inner * inner) * _ROOT_2_OVER_PI * (_ONE + np.float32(3) * square)
            out[i, j] = down(up(slope[i, j]) * _HALF * (_ONE + inner + value * rise))
