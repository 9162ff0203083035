"""Sums in fp32 of what comes in bf16."""

from __future__ import annotations

from torch import Tensor

from gptcli.models.ops.native import bits, native


def add_into(total: Tensor, part: Tensor) -> None:
    """total += part, of one shape, in place; several times PyTorch's speed for bf16 onto contiguous fp32 on one CPU
    thread."""
    if native(part) and total.is_contiguous() and part.is_contiguous():
        from gptcli.models.ops import sums_loops

        sums_loops.add(total.detach().view(-1).numpy(), bits(part.view(-1)))
    else:
        total.add_(part)
