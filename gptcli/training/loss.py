"""The language-modelling loss without a whole matrix of logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.models.ops.native import bits, native
from gptcli.models.ops.sums import add_into

IGNORED = -100  # a target that carries no loss

LOGITS_AT_ONCE = 1 << 23  # elements of one chunk of logits
ROWS_AT_ONCE = 512  # of a chunk on a CPU, where the gradient of a large matrix is added up chunk by chunk


@dataclass(frozen=True)
class _Terms:
    """What is added to the plain cross-entropy."""

    z_loss: float
    label_smoothing: float
    softcap: float


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The objective, to differentiate, and the plain summed cross-entropy in nats, detached: two fp32 scalars.

    hidden [N,H] in the compute dtype, weight [V,H] in any, targets int64 [N] (IGNORED: no loss). Of each valid target
    the objective is its cross-entropy, with `label_smoothing` as F.cross_entropy has it, plus `z_loss`·(log Σ exp
    logits)² (PaLM, Chowdhery et al. 2022); logits are softcap·tanh(logits/softcap) where `softcap` is above zero
    (Gemma 2, 2024). The plain cross-entropy knows of the softcap alone.

    Matrix products run in hidden's dtype, the log-sum-exp in fp32. The gradients are made in the forward pass, those
    that are asked for; memory beyond them: one chunk of logits. A backward pass that starts from the objective itself
    (slope 1) costs nothing more on a CPU; any other scales both gradients.
    """
    terms = _Terms(z_loss, label_smoothing, softcap)
    learning = torch.is_grad_enabled()  # within the function it is off, and what needs a gradient is told all the same
    learns = learning and hidden.requires_grad, learning and weight.requires_grad
    with torch.autocast(hidden.device.type, enabled=False):
        objective, plain = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, targets, terms, learns
        )
    return objective, plain


class _LinearCrossEntropy(torch.autograd.Function):
    """Chunk by chunk: logits, loss and slopes, so that logits are computed once and never kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, terms: _Terms, learns: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        matrix = weight.detach().to(hidden.dtype)
        count, vocab = hidden.shape[0], weight.shape[0]
        at_least = ROWS_AT_ONCE if hidden.device.type == "cpu" else 1
        rows = max(at_least, LOGITS_AT_ONCE // vocab)
        totals = torch.zeros(2, dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if learns[0] else None
        weight_grad: Tensor | None = None
        for start in range(0, count, rows):
            piece = hidden[start : start + rows]
            found, slope = _chunk(piece @ matrix.t(), targets[start : start + rows], terms, any(learns))
            totals += found
            if hidden_grad is not None and slope is not None:
                torch.mm(slope, matrix, out=hidden_grad[start : start + rows])
            if learns[1] and slope is not None:
                part = slope.t() @ piece
                if weight_grad is None:
                    weight_grad = part if rows >= count else part.float()
                else:
                    add_into(weight_grad, part)
        if learns[1] and weight_grad is None:
            weight_grad = torch.zeros_like(weight)
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        objective, plain = totals[0], totals[1]
        ctx.mark_non_differentiable(plain)
        return objective, plain

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = slopes[0]
        if weight_grad is not None:
            weight_grad = weight_grad.to(ctx.weight_dtype)
        if scale.device.type != "cpu" or scale.item() != 1.0:
            hidden_grad = None if hidden_grad is None else hidden_grad * scale.to(hidden_grad.dtype)
            weight_grad = None if weight_grad is None else weight_grad * scale.to(weight_grad.dtype)
        return hidden_grad, weight_grad, None, None, None


def _chunk(logits: Tensor, targets: Tensor, terms: _Terms, slopes: bool) -> tuple[Tensor, Tensor | None]:
    """Objective and plain loss [2] of a chunk of logits [n,V], which is overwritten, and the objective's slopes."""
    if native(logits):
        from gptcli.training import loss_loops

        smoothing, z_loss, cap = (np.float32(x) for x in (terms.label_smoothing, terms.z_loss, terms.softcap))
        own = targets.contiguous().numpy()
        found = loss_loops.cross_entropy(bits(logits), own, IGNORED, smoothing, z_loss, cap, slopes)
        return torch.tensor(found, dtype=torch.float32), logits if slopes else None
    return _plain_chunk(logits, targets, terms, slopes)


def _plain_chunk(logits: Tensor, targets: Tensor, terms: _Terms, slopes: bool) -> tuple[Tensor, Tensor | None]:
    wide, dtype = logits.float(), logits.dtype
    bend: Tensor | None = None
    if terms.softcap > 0:
        bend = torch.tanh(wide / terms.softcap)
        wide = bend * terms.softcap
    valid = targets != IGNORED
    index = torch.where(valid, targets, 0)[:, None]
    lse = torch.logsumexp(wide, dim=-1, keepdim=True)
    own = wide.gather(1, index)
    smoothing = terms.label_smoothing
    losses = lse - own
    objectives = losses
    if smoothing > 0:
        objectives = lse - (1 - smoothing) * own - smoothing * wide.mean(-1, keepdim=True)
    if terms.z_loss > 0:
        objectives = objectives + terms.z_loss * lse.square()
    kept = valid[:, None]
    totals = torch.stack([torch.where(kept, values, 0.0).sum() for values in (objectives, losses)])
    if not slopes:
        return totals, None
    slope = wide.sub_(lse).exp_()
    if terms.z_loss > 0:
        slope.mul_(1 + 2 * terms.z_loss * lse)
    if smoothing > 0:
        slope.sub_(smoothing / slope.shape[1])
    slope.scatter_add_(1, index, torch.full_like(lse, smoothing - 1))
    if bend is not None:
        slope.mul_(1 - bend.square())
    return totals, torch.where(kept, slope, 0.0).to(dtype)


def masked_cross_entropy(hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """Summed cross-entropy in nats where a target is not IGNORED, an fp32 scalar; logits are made only there.

    hidden [B,T,H], targets int64 [B,T]; `head` turns […,H] into logits […,V]. For frozen heads with trained rows,
    whose gradient must not spread over the whole matrix.
    """
    kept = targets != IGNORED
    return F.cross_entropy(head(hidden[kept]).float(), targets[kept], reduction="sum")
