from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gptcli.models.ops.activation import gelu, swiglu

SHAPES = [(1, 2), (3, 5, 14), (2, 9, 128)]


def spread(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_swiglu(compare: Any, shape: tuple[int, ...]) -> None:
    def exact(both: torch.Tensor) -> torch.Tensor:
        gate, up = both.chunk(2, -1)
        return gate / (1 + (-gate).exp()) * up

    compare(swiglu, exact, spread(*shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gelu_as_gpt2_was_trained(compare: Any, shape: tuple[int, ...]) -> None:
    def exact(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    compare(lambda x: gelu(x, tanh=True), exact, spread(*shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_gelu(compare: Any, shape: tuple[int, ...]) -> None:
    compare(lambda x: gelu(x, tanh=False), lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), spread(*shape))


@pytest.mark.parametrize("operation", [swiglu, lambda x: gelu(x, tanh=True), lambda x: gelu(x, tanh=False)])
def test_far_ends_neither_overflow_nor_hide_nan(operation: Any) -> None:
    ends = torch.tensor([[1e10, -1e10, 100.0, -100.0, 1.0, 1.0, 1.0, 1.0]]).bfloat16().requires_grad_()
    out = operation(ends)
    out[0, :4].sum().backward()
    assert not out.isnan().any() and ends.grad is not None and not ends.grad.isnan().any()
    assert operation(torch.full((1, 2), float("nan")).bfloat16()).isnan().any()
