"""The language-modelling loss without a whole matrix of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # a target that carries no loss

LOGITS_AT_ONCE = 1 << 23  # elements of one chunk of logits: 32 MiB in fp32


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(hidden · weightᵀ)[target], chunk by chunk; the gradients are made in the forward pass,
    while a chunk's logits are at hand, so logits are computed once and never kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        matrix = weight.to(hidden.dtype)
        rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden)
        weight_grad = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, hidden.shape[0], rows):
            piece, wanted = hidden[start : start + rows], targets[start : start + rows]
            kept = wanted != IGNORED
            index = wanted.clamp_min(0)[:, None]
            logits = (piece @ matrix.t()).float()
            normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)
            total += ((normaliser - logits.gather(1, index)).squeeze(1) * kept).sum()
            slope = logits.sub_(normaliser).exp_()
            slope.scatter_add_(1, index, torch.full_like(normaliser, -1.0))
            slope = slope.mul_(kept[:, None]).to(hidden.dtype)
            hidden_grad[start : start + rows] = slope @ matrix
            weight_grad += (slope.t() @ piece).float()
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = grad_outputs[0]
        return hidden_grad * scale.to(hidden_grad.dtype), (weight_grad * scale).to(ctx.weight_dtype), None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy in nats, an fp32 scalar.

    hidden [N,H] in the compute dtype, weight [V,H] in any, targets int64 [N] (IGNORED: no loss). Matrix products run
    in hidden's dtype, the log-sum-exp in fp32. Memory beyond the inputs: one chunk of logits and the two gradients.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


def masked_cross_entropy(hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """Summed cross-entropy in nats where a target is not IGNORED, an fp32 scalar; logits are made only there.

    hidden [B,T,H], targets int64 [B,T]; `head` turns […,H] into logits […,V]. For frozen heads with trained rows,
    whose gradient must not spread over the whole matrix.
    """
    kept = targets != IGNORED
    return F.cross_entropy(head(hidden[kept]).float(), targets[kept], reduction="sum")
