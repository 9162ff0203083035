"""Arithmetic on rows of fp32 numbers, compiled: products with matrices, norms, turns, softmax, mixtures, activations.

All of it is inlined into inference/native/step.py, and none of it depends on how many rows there are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gptcli.inference.native.layout import ADDRESS, BIAS, CENTRED, COLUMNS, GELU_TANH, HIDDEN, IN, KIND, SCALES, SWIGLU
from gptcli.inference.native.vectors import BFLOAT16, BYTES, FLOAT32, INT8, dots, mixture
from gptcli.models.ops.bits import FAST, exp32, tanh32
from gptcli.runtime.compiled import scalar

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_ROOT_2_OVER_PI, _CUBIC = np.float32(0.7978845608028654), np.float32(0.044715)

_mix_1, _mix_4 = mixture(1), mixture(4)


def _tiles(kind: int) -> Any:
    """x [count, size] times columns of a matrix kept as `kind`: four by four, so that a load serves four times."""
    block, row, single = dots(kind, 4, 4), dots(kind, 1, 4), dots(kind, 1, 1)
    width = BYTES[kind]

    def tiles(x: Any, x_step: Any, count: Any, w: Any, size: Any, columns: Any, out: Any, out_step: Any) -> None:
        w_step = size * width
        for j in range(0, columns - 3, 4):
            for i in range(0, count - 3, 4):
                block(x + i * x_step, x_step, w + j * w_step, w_step, size, out + i * out_step + 4 * j, out_step)
            for i in range(count & -4, count):
                row(x + i * x_step, x_step, w + j * w_step, w_step, size, out + i * out_step + 4 * j, out_step)
        for j in range(columns & -4, columns):
            for i in range(count):
                single(x + i * x_step, x_step, w + j * w_step, w_step, size, out + i * out_step + 4 * j, out_step)

    return scalar(tiles)


tiles_float32, _tiles_bfloat16, _tiles_int8 = _tiles(FLOAT32), _tiles(BFLOAT16), _tiles(INT8)


def function(function: Any) -> Any:
    """For use in compiled functions, its sums taken lane by lane."""
    return scalar(function, FAST)


@function
def multiply(matrix: Any, values: Any, x: Any, count: Any, first: Any, last: Any, out: Any) -> None:
    """out [count, COLUMNS] = x [count, IN] · columns first … last-1 of a matrix, scaled, the bias added."""
    size, columns, kind = matrix[IN], last - first, matrix[KIND]
    start, place = matrix[ADDRESS], out.ctypes.data
    if kind == FLOAT32:
        tiles_float32(x, 4 * size, count, start + 4 * size * first, size, columns, place, 4 * COLUMNS)
    elif kind == BFLOAT16:
        _tiles_bfloat16(x, 4 * size, count, start + 2 * size * first, size, columns, place, 4 * COLUMNS)
    else:
        _tiles_int8(x, 4 * size, count, start + size * first, size, columns, place, 4 * COLUMNS)
    if matrix[SCALES] >= 0:
        scales = values[matrix[SCALES] + first : matrix[SCALES] + last]
        for i in range(count):
            line = out[i * COLUMNS : i * COLUMNS + columns]
            for j in range(columns):
                line[j] *= scales[j]
    if matrix[BIAS] >= 0:
        bias = values[matrix[BIAS] + first : matrix[BIAS] + last]
        for i in range(count):
            line = out[i * COLUMNS : i * COLUMNS + columns]
            for j in range(columns):
                line[j] += bias[j]


@function
def normed(x: Any, gain: Any, epsilon: Any, out: Any) -> None:
    """x / rms(x) · gain."""
    total = _ZERO
    for j in range(len(x)):
        total += x[j] * x[j]
    inverse = _ONE / np.sqrt(total / np.float32(len(x)) + epsilon)
    for j in range(len(x)):
        out[j] = x[j] * inverse * gain[j]


@function
def _centred(x: Any, gain: Any, bias: Any, epsilon: Any, out: Any) -> None:
    """(x - mean) / deviation · gain + bias."""
    size, total, squares = np.float32(len(x)), _ZERO, _ZERO
    for j in range(len(x)):
        total += x[j]
    mean = total / size
    for j in range(len(x)):
        squares += (x[j] - mean) * (x[j] - mean)
    inverse = _ONE / np.sqrt(squares / size + epsilon)
    for j in range(len(x)):
        out[j] = (x[j] - mean) * inverse * gain[j] + bias[j]


@function
def norm_row(x: Any, values: Any, gain: Any, bias: Any, shape: Any, epsilon: Any, out: Any) -> None:
    size = shape[HIDDEN]
    if shape[CENTRED]:
        _centred(x, values[gain : gain + size], values[bias : bias + size], epsilon, out)
    else:
        normed(x, values[gain : gain + size], epsilon, out)


@function
def turned(x: Any, cos: Any, sin: Any, out: Any) -> None:
    """Rotary positions of one head, pairs (x[i], x[i + D/2]); no phases: as it is."""
    half = len(cos)
    if not half:
        for j in range(len(x)):
            out[j] = x[j]
        return
    first, second, low, high = x[:half], x[half:], out[:half], out[half:]
    for j in range(half):
        a, b = first[j], second[j]
        low[j] = a * cos[j] - b * sin[j]
        high[j] = b * cos[j] + a * sin[j]


@function
def softmax(scores: Any) -> None:
    """In place, over all of `scores`."""
    highest = scores[0]
    for j in range(len(scores)):
        highest = max(highest, scores[j])
    total = _ZERO
    for j in range(len(scores)):
        share = exp32(scores[j] - highest)
        scores[j] = share
        total += share
    inverse = _ONE / total
    for j in range(len(scores)):
        scores[j] *= inverse


@function
def mix(shares: Any, values: Any, padded: Any, count: Any, out: Any) -> None:
    """out [P] = Σ shares[i] · values[i] over `count` values [P]; addresses."""
    for at in range(0, padded - 63, 64):
        _mix_4(shares, values + 4 * at, 4 * padded, count, out + 4 * at)
    for at in range(padded & -64, padded, 16):
        _mix_1(shares, values + 4 * at, 4 * padded, count, out + 4 * at)


@function
def activate(kind: Any, gates: Any, ups: Any, out: Any) -> None:
    if kind == SWIGLU:
        for j in range(len(out)):
            out[j] = gates[j] / (_ONE + exp32(-gates[j])) * ups[j]
    elif kind == GELU_TANH:
        for j in range(len(out)):
            inner = _ROOT_2_OVER_PI * (ups[j] + _CUBIC * ups[j] * ups[j] * ups[j])
            out[j] = _HALF * ups[j] * (_ONE + tanh32(inner))
    else:
        for j in range(len(out)):
            out[j] = _HALF * ups[j] * (_ONE + np.float32(math.erf(ups[j] * np.float32(math.sqrt(0.5)))))
