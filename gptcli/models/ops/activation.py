"""SwiGLU (Shazeer 2020) and GELU (Hendrycks & Gimpel 2016), computed in fp32."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.models.ops.native import native, rows


def swiglu(both: Tensor) -> Tensor:
    """silu(gate) · up of […,2F], the gate first; returns […,F]."""
    if native(both):
        out: Tensor = _SwiGLU.apply(both)  # type: ignore[no-untyped-call]
        return out
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up


def gelu(x: Tensor, *, tanh: bool) -> Tensor:
    """GELU of any shape: with `tanh` the approximation that GPT-2 was trained with (gelu_new), else exact."""
    if native(x):
        out: Tensor = _GELU.apply(x, tanh)  # type: ignore[no-untyped-call]
        return out
    return F.gelu(x, approximate="tanh" if tanh else "none")


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        from gptcli.models.ops import activation_loops

        both = both.contiguous()
        out = both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
        activation_loops.swiglu(rows(both), rows(out))
        ctx.save_for_backward(both)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        from gptcli.models.ops import activation_loops

        (both,) = ctx.saved_tensors
        slope, out = slopes[0].contiguous(), torch.empty_like(both)
        activation_loops.swiglu_slope(rows(both), rows(slope), rows(out))
        return out


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, tanh: bool) -> Tensor:
        from gptcli.models.ops import activation_loops

        x = x.contiguous()
        out = torch.empty_like(x)
        run = activation_loops.gelu_tanh if tanh else activation_loops.gelu
        run(rows(x), rows(out))
        ctx.save_for_backward(x)
        ctx.tanh = tanh
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        from gptcli.models.ops import activation_loops

        (x,) = ctx.saved_tensors
        slope, out = slopes[0].contiguous(), torch.empty_like(x)
        run = activation_loops.gelu_tanh_slope if ctx.tanh else activation_loops.gelu_slope
        run(rows(x), rows(slope), rows(out))
        return out, None
