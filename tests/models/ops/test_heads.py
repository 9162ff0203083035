from __future__ import annotations

from typing import Any

import pytest
import torch

from gptcli.models.ops.heads import rotary_heads, split_heads

SHAPES = [(1, 1, 1, 1, 2), (2, 5, 4, 2, 6), (2, 7, 6, 3, 64), (1, 9, 3, 3, 10)]  # B, T, N, K, D


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def exact(joined: torch.Tensor, counts: tuple[int, int], size: int) -> list[torch.Tensor]:
    parts = joined.unflatten(-1, (-1, size)).split((counts[0], counts[1], counts[1]), 2)
    return [part.transpose(1, 2) for part in parts]


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, gain: torch.Tensor | None) -> torch.Tensor:
    if gain is not None:
        x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain
    half = x.shape[-1] // 2
    twisted = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * torch.cat((cos, cos), -1)[:, None].double() + twisted * torch.cat((sin, sin), -1)[:, None].double()


@pytest.mark.parametrize("normalised", [True, False], ids=["qk-norm", "bare"])
@pytest.mark.parametrize("per_row", [True, False], ids=["own-positions", "counted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotary_heads(compare: Any, shape: tuple[int, ...], per_row: bool, normalised: bool) -> None:
    batch, length, heads, kv_heads, size = shape
    angles = draw(batch if per_row else 1, length, size // 2)
    phases = angles.cos(), angles.sin()

    def operation(joined: torch.Tensor, *gains: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return rotary_heads(joined, (heads, kv_heads), phases, gains or None, 1e-6)  # type: ignore[arg-type]

    def reference(joined: torch.Tensor, *gains: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v = exact(joined, (heads, kv_heads), size)
        q_gain, k_gain = gains or (None, None)
        return turned(q, *phases, q_gain), turned(k, *phases, k_gain), v

    joined = draw(batch, length, (heads + 2 * kv_heads) * size)
    compare(operation, reference, joined, *([draw(size), draw(size) + 1] if normalised else []))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_split_heads(compare: Any, shape: tuple[int, ...]) -> None:
    batch, length, heads, kv_heads, size = shape
    joined = draw(batch, length, (heads + 2 * kv_heads) * size)
    counts = heads, kv_heads
    compare(lambda x: split_heads(x, counts), lambda x: tuple(exact(x, counts, size)), joined)
