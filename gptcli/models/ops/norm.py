"""RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension, computed in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.models.ops.native import floats, native, rows


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) · weight: x […,H] in any floating type, weight [H] (fp32 beside bf16 x); returns x's type."""
    if native(x):
        out: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
        return out
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps).to(x.dtype)  # autocast may give fp32


def add_rms_norm(x: Tensor, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The new residual x + branch, and its rms_norm; all […,H]."""
    if native(x) and branch.dtype == x.dtype:
        total, out = _AddRMSNorm.apply(x, branch, weight, eps)  # type: ignore[no-untyped-call]
        return total, out
    total = x + branch
    return total, rms_norm(total, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / deviation · weight + bias: x […,H], weight and bias [H] (fp32 beside bf16 x)."""
    if native(x):
        out: Tensor = _LayerNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
        return out
    return F.layer_norm(x, (x.shape[-1],), weight.to(x.dtype), bias.to(x.dtype), eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        from gptcli.models.ops import norm_loops

        x = x.contiguous()
        out, inverse = torch.empty_like(x), _vector(x)
        norm_loops.rms_norm(rows(x), floats(weight), np.float32(eps), rows(out), inverse.numpy())
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        from gptcli.models.ops import norm_loops

        x, weight, inverse = ctx.saved_tensors
        slope, x_slope, gain_slope = slopes[0].contiguous(), torch.empty_like(x), _zeros(weight)
        arrays = rows(x), floats(weight), inverse.numpy(), rows(slope), rows(x_slope), gain_slope.numpy()
        norm_loops.rms_norm_slope(*arrays)
        return x_slope, gain_slope.to(weight.dtype), None


class _AddRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        from gptcli.models.ops import norm_loops

        x, branch = x.contiguous(), branch.contiguous()
        total, out, inverse = torch.empty_like(x), torch.empty_like(x), _vector(x)
        arrays = rows(x), rows(branch), floats(weight), np.float32(eps), rows(total), rows(out), inverse.numpy()
        norm_loops.add_rms_norm(*arrays)
        ctx.save_for_backward(total, weight, inverse)
        return total, out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from gptcli.models.ops import norm_loops

        total, weight, inverse = ctx.saved_tensors
        through, slope = slopes[0].contiguous(), slopes[1].contiguous()
        x_slope, gain_slope = torch.empty_like(total), _zeros(weight)
        norm_loops.add_rms_norm_slope(
            *(rows(total), floats(weight), inverse.numpy(), rows(slope), rows(through)),
            rows(x_slope),
            gain_slope.numpy(),
        )
        return x_slope, x_slope, gain_slope.to(weight.dtype), None


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        from gptcli.models.ops import norm_loops

        x = x.contiguous()
        out, means, inverse = torch.empty_like(x), _vector(x), _vector(x)
        norm_loops.layer_norm(
            *(rows(x), floats(weight), floats(bias), np.float32(eps), rows(out)), means.numpy(), inverse.numpy()
        )
        ctx.save_for_backward(x, weight, bias, means, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from gptcli.models.ops import norm_loops

        x, weight, bias, means, inverse = ctx.saved_tensors
        slope, x_slope = slopes[0].contiguous(), torch.empty_like(x)
        gain_slope, shift_slope = _zeros(weight), _zeros(bias)
        norm_loops.layer_norm_slope(
            *(rows(x), floats(weight), means.numpy(), inverse.numpy(), rows(slope), rows(x_slope)),
            *(gain_slope.numpy(), shift_slope.numpy()),
        )
        return x_slope, gain_slope.to(weight.dtype), shift_slope.to(bias.dtype), None


def _vector(x: Tensor) -> Tensor:
    """Room for one fp32 number a row."""
    return torch.empty(x.numel() // x.shape[-1], dtype=torch.float32)


def _zeros(weight: Tensor) -> Tensor:
    return torch.zeros(weight.shape, dtype=torch.float32)
