"""When the native loops serve, and how they see tensors."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

Bits = npt.NDArray[Any]  # uint16: bf16 values as their bits


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


def native(x: Tensor) -> bool:
    """Whether an operation on `x` takes its native form: bf16 on a CPU, in a process that computes with one thread.

    With more threads PyTorch's own kernels share the work and win; while a graph is traced, the compiler sees plain
    operations, which it fuses itself.
    """
    if torch.compiler.is_compiling() or x.dtype != torch.bfloat16 or x.device.type != "cpu":
        return False
    return torch.get_num_threads() == 1 and _installed()


def bits(x: Tensor) -> Bits:
    """A contiguous bf16 tensor as uint16 numbers that share its memory."""
    array: Bits = x.detach().view(torch.uint16).numpy()
    return array


def rows(x: Tensor) -> Bits:
    """The same as [rows, last dimension]."""
    return bits(x.reshape(-1, x.shape[-1]))


def floats(x: Tensor) -> npt.NDArray[Any]:
    """A vector or table as contiguous fp32, sharing memory where it is that already."""
    array: npt.NDArray[Any] = x.detach().float().contiguous().numpy()
    return array
