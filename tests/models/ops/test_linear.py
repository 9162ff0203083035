from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gptcli.models.ops.linear import fused_linear, side_by_side

SIZES = (6, 2, 3)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def neighbours(whole: torch.Tensor) -> list[torch.Tensor]:
    """Leaf parameters that lie one after another in one buffer."""
    return [part.detach().requires_grad_() for part in whole.split(SIZES)]


@pytest.mark.parametrize("biased", [False, True], ids=["bare", "biases"])
def test_neighbours_are_multiplied_at_once(form: str, biased: bool) -> None:
    dtype = torch.bfloat16 if form == "native" else torch.float32
    x, whole = draw(2, 5, 8).to(dtype).requires_grad_(), draw(11, 8).to(dtype)
    biases = [draw(size).requires_grad_() if biased else None for size in SIZES]
    weights = neighbours(whole)
    assert side_by_side(weights)
    out = fused_linear(x, weights, biases)
    slope = draw(2, 5, 11).to(dtype)
    out.backward(slope)
    exact_x, exact_whole = x.detach().double().requires_grad_(), whole.double().requires_grad_()
    bias = torch.cat([bias.detach() for bias in biases]).double() if biased else None  # type: ignore[union-attr]
    exact = F.linear(exact_x, exact_whole, bias)
    exact.backward(slope.double())
    allowed = 2**-7 if form == "native" else 1e-5
    grads = torch.cat([weight.grad for weight in weights])  # type: ignore[misc]
    for got, want in ((out, exact), (x.grad, exact_x.grad), (grads, exact_whole.grad)):
        assert (got.double() - want).norm() < allowed * want.norm()  # type: ignore[union-attr]
    for bias_, part in zip(biases, slope.double().sum((0, 1)).split(SIZES), strict=True):
        assert bias_ is None or (bias_.grad.double() - part).norm() < allowed * part.norm()  # type: ignore[union-attr]


def test_strangers_are_multiplied_one_by_one() -> None:
    x, weights = draw(4, 8).requires_grad_(), [draw(size, 8).requires_grad_() for size in SIZES]
    assert not side_by_side(weights)
    assert not side_by_side(neighbours(draw(11, 8))[::-1])
    assert not side_by_side([draw(11, 8).t()[:4], draw(11, 8).t()[4:]])
    out = fused_linear(x, weights, [None, draw(2), None])
    assert torch.equal(out[:, :6], F.linear(x, weights[0])) and torch.equal(out[:, 8:], F.linear(x, weights[2]))
    out.sum().backward()
    assert all(weight.grad is not None for weight in weights)


def test_only_what_learns_gets_a_slope() -> None:
    weights = [weight.requires_grad_(False) for weight in neighbours(draw(11, 8))]
    x = draw(4, 8).requires_grad_()
    fused_linear(x, weights, [None] * 3).sum().backward()
    assert x.grad is not None and all(weight.grad is None for weight in weights)


def test_a_compiler_sees_one_product() -> None:
    torch._dynamo.reset()
    weights = neighbours(draw(11, 8))
    x = draw(4, 8)
    compiled: Any = torch.compile(fused_linear, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x, weights, [None] * 3), fused_linear(x, weights, [None] * 3))
    torch._dynamo.reset()
