"""The embedding table's look-up."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.models.ops.native import bits, native, rows


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows […,H] of weight [V,H] for ids […] int64.

    PyTorch sums the gradients of a token's occurrences in the table's own type on a CPU, where bf16 stops growing
    after a few hundred; here they are summed in fp32 and rounded once.
    """
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    if on_cpu and weight.requires_grad and not torch.compiler.is_compiling():
        out: Tensor = _Embedding.apply(ids, weight)  # type: ignore[no-untyped-call]
        return out
    return F.embedding(ids, weight)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor]:
        from gptcli.models.ops import sums_loops

        (ids,) = ctx.saved_tensors
        if not native(slopes[0]):
            total = torch.zeros(ctx.shape, dtype=torch.float32)
            total.index_add_(0, ids.reshape(-1), slopes[0].reshape(-1, ctx.shape[1]).float())
            return None, total.to(slopes[0].dtype)
        out = slopes[0].new_empty(ctx.shape)
        sums_loops.sum_rows_by_id(ids.reshape(-1).contiguous().numpy(), rows(slopes[0].contiguous()), bits(out))
        return None, out
