from __future__ import annotations

from typing import Any

import pytest
import torch

from gptcli.models.ops.norm import add_rms_norm, layer_norm, rms_norm

SHAPES = [(1, 1, 1), (2, 3, 7), (3, 5, 64), (1, 17, 130)]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def exact_rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(compare: Any, shape: tuple[int, ...]) -> None:
    compare(lambda x, weight: rms_norm(x, weight, 1e-5), exact_rms, draw(*shape), draw(shape[-1]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_rms_norm(compare: Any, shape: tuple[int, ...]) -> None:
    def exact(x: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + branch, exact_rms(x + branch, weight)

    inputs = draw(*shape), draw(*shape).flip(0), draw(shape[-1])
    compare(lambda x, branch, weight: add_rms_norm(x, branch, weight, 1e-5), exact, *inputs, rounding=2**-7)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_layer_norm(compare: Any, shape: tuple[int, ...]) -> None:
    def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        away = x - x.mean(-1, keepdim=True)
        return away / (away.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias

    inputs = draw(*shape), draw(shape[-1]), draw(shape[-1]).flip(0)
    compare(lambda x, weight, bias: layer_norm(x, weight, bias, 1e-5), exact, *inputs)


def test_a_broken_value_stays_in_its_row() -> None:
    x = draw(3, 8).bfloat16()
    x[1, 2] = float("nan")
    out = rms_norm(x, torch.ones(8), 1e-6)
    assert out[1].isnan().all() and torch.isfinite(out[[0, 2]]).all()


def test_weights_cast_with_the_model_are_read_too() -> None:
    x, weight = draw(4, 16).bfloat16(), draw(16).bfloat16().requires_grad_()
    rms_norm(x, weight, 1e-6).float().sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.bfloat16
