"""Attention within documents on a GPU: FlexAttention (Dong et al. 2024), which skips blocks that nothing sees."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def serves(device: torch.device, head_dim: int) -> bool:
    """Whether its kernels are made for such heads: on CUDA, head_dim a power of two from 16 to 256."""
    return device.type == "cuda" and head_dim in (16, 32, 64, 128, 256)


def block_mask(starts: Tensor) -> BlockMask:
    """What each position sees, block by block, of `starts` [B,T] (ops/attention.py)."""

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= starts[batch, query]) & (key <= query)

    rows, length = starts.shape
    return create_block_mask(seen, rows, None, length, length, device=starts.device)


def branch_mask(last: Tensor) -> BlockMask:
    """The same of trees whose tokens see their ancestors, by the place of each one's last descendant, `last` [B,T]."""

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query <= last[batch, key])

    rows, length = last.shape
    return create_block_mask(seen, rows, None, length, length, device=last.device)


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask) -> Tensor:
    """q [B,N,T,D], k and v [B,K,T,D] → [B,T,N·D]."""
    run: Any = flex_attention if torch.compiler.is_compiling() or not q.is_cuda else _compiled()
    mixed: Tensor = run(q, k, v, block_mask=mask, enable_gqa=q.shape[1] > k.shape[1])
    return mixed.transpose(1, 2).flatten(2)


@cache
def _compiled() -> Any:
    """Outside of a compiled graph the kernel is compiled by itself: uncompiled, all scores would be held."""
    return torch.compile(flex_attention, dynamic=False)
