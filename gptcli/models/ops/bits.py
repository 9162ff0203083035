"""bf16 numbers in compiled loops: their bits to fp32 and back, and functions that vectorise.

A loop over these is turned into vector instructions, which calls of the C library's exp would prevent. NaN and
infinity pass through, so that a broken value shows in the loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from gptcli.runtime.compiled import scalar

# Sums may be taken in another order (lane by lane) and products fused into them; NaN and infinity stay what they are.
FAST = frozenset({"contract", "nsz", "arcp", "reassoc", "afn"})

number = partial(scalar, fastmath=FAST)

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_LOG2_E, _LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_C3, _C4, _C5, _C6 = np.float32(1 / 6), np.float32(1 / 24), np.float32(1 / 120), np.float32(1 / 720)


def _as_float(typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _as_bits(typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


as_float: Any = intrinsic(_as_float)  # the fp32 number that 32 bits spell
as_bits: Any = intrinsic(_as_bits)  # the 32 bits that spell an fp32 number


@number
def up(bits: Any) -> Any:
    """bf16 bits → fp32, exactly."""
    return as_float(np.uint32(bits) << np.uint32(16))


@number
def down(x: Any) -> Any:
    """fp32 → bf16 bits, rounded to nearest, ties to even."""
    wide = as_bits(x)
    return np.uint16((wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@number
def ordered(bits: Any) -> Any:
    """bf16 bits as an int16 that sorts as the numbers do (its own inverse): integers have a vector maximum that
    minds NaN, which stands above infinity here."""
    signed = np.int16(bits)
    return np.int16(signed ^ ((signed >> np.int16(15)) & np.int16(0x7FFF)))


@number
def exp32(x: Any) -> Any:
    """exp in fp32 within 2e-7 of its value; below -87 as at -87, above 88 as at 88."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    scaled = x * _LOG2_E
    whole = np.floor(scaled + _HALF)
    part = (scaled - whole) * _LN_2
    series = ((((_C6 * part + _C5) * part + _C4) * part + _C3) * part + _HALF) * part + _ONE
    series = series * part + _ONE
    return series * as_float(np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23)))


@number
def tanh32(x: Any) -> Any:
    """tanh in fp32 within 3e-7."""
    return _ONE - _TWO / (exp32(_TWO * x) + _ONE)
