"""Several linear layers of one input as one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WORTH_JOINING = 256  # rows of x: below, a product costs less than a copy of its weights


def fused_linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """x·Wᵀ + b of every layer, side by side: x […,I], weights [Oᵢ,I], biases [Oᵢ] or None; returns […,ΣOᵢ].

    One product where the weights are neighbours in memory (a flat buffer's views), and where a compiler or a GPU
    makes joining them cheap; else a product each. Biases may be fp32 beside bf16 weights.
    """
    if len(weights) == 1:
        return F.linear(x, weights[0], _bias(x, biases))
    if torch.is_autocast_enabled(x.device.type) or x.dtype != weights[0].dtype:
        parts = [F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]
        return torch.cat(parts, dim=-1)
    if torch.compiler.is_compiling():
        return F.linear(x, torch.cat(list(weights)), _bias(x, biases))
    if side_by_side(weights):
        out: Tensor = _FusedLinear.apply(x, *weights)  # type: ignore[no-untyped-call]
        bias = _bias(x, biases)
        return out if bias is None else out + bias
    if x.is_cuda and x.numel() // x.shape[-1] >= WORTH_JOINING:
        return F.linear(x, torch.cat(list(weights)), _bias(x, biases))
    return torch.cat([F.linear(x, weight, _bias(x, [bias])) for weight, bias in zip(weights, biases, strict=True)], -1)


def side_by_side(weights: Sequence[Tensor]) -> bool:
    """Whether contiguous matrices of one width follow each other without a gap in one storage."""
    place = weights[0].data_ptr()
    storage = weights[0].untyped_storage().data_ptr()
    for weight in weights:
        if weight.data_ptr() != place or weight.untyped_storage().data_ptr() != storage or not weight.is_contiguous():
            return False
        place += weight.numel() * weight.element_size()
    return len({(weight.shape[1], weight.dtype) for weight in weights}) == 1


def _bias(x: Tensor, biases: Sequence[Tensor | None]) -> Tensor | None:
    """All biases as one vector in x's type."""
    found = [bias for bias in biases if bias is not None]
    if not found:
        return None
    bias = found[0] if len(found) == 1 else torch.cat(found)
    return bias if torch.is_autocast_enabled(x.device.type) else bias.to(x.dtype)


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        return F.linear(x, _joined(weights))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        slope = slopes[0].reshape(-1, slopes[0].shape[-1])
        x_slope = (slope @ _joined(weights)).view(x.shape) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return (x_slope, *([None] * len(weights)))
        whole = slope.t() @ x.reshape(-1, x.shape[-1])
        return (x_slope, *whole.split([weight.shape[0] for weight in weights]))


def _joined(weights: Sequence[Tensor]) -> Tensor:
    """One matrix over neighbours in memory."""
    first = weights[0].detach()
    return first.as_strided((sum(weight.shape[0] for weight in weights), first.shape[1]), first.stride())
