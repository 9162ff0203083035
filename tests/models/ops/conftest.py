"""One way to hold an operation against a float64 reference, values and every gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

Outputs = Tensor | tuple[Tensor, ...]
Compare = Callable[..., None]


@pytest.fixture(params=["native", "plain"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """native: bf16 matrices beside fp32 vectors on one thread; plain: all fp32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param
    torch.set_num_threads(threads)


@pytest.fixture
def compare(form: str) -> Compare:
    """Run an operation and its reference on the same numbers, all of them representable in bf16.

    Of the error's norm over the reference's, `rounding` is the largest allowed for bf16 and 1e-5 for fp32.
    """

    def run(
        operation: Callable[..., Outputs], reference: Callable[..., Outputs], *inputs: Tensor, rounding: float = 2**-8
    ) -> None:
        allowed = rounding if form == "native" else 1e-5
        exact = [value.bfloat16().double().requires_grad_() for value in inputs]
        kept = torch.bfloat16 if form == "native" else torch.float32
        given = [value.detach().to(kept if value.ndim > 1 else torch.float32).requires_grad_() for value in exact]
        found, wanted = _tuple(operation(*given)), _tuple(reference(*exact))
        assert len(found) == len(wanted)
        generator = torch.Generator().manual_seed(5)
        slopes = [torch.randn(value.shape, generator=generator).bfloat16() for value in wanted]
        torch.autograd.backward(found, [slope.to(value.dtype) for slope, value in zip(slopes, found, strict=True)])
        torch.autograd.backward(wanted, [slope.double() for slope in slopes])
        for got, want in zip(found, wanted, strict=True):
            assert got.dtype == kept
            _assert_close(got, want, allowed)
        for got, want in zip(given, exact, strict=True):
            assert got.grad is not None and want.grad is not None and got.grad.dtype == got.dtype
            _assert_close(got.grad, want.grad, allowed)

    return run


def _tuple(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _assert_close(got: Tensor, want: Tensor, allowed: float) -> None:
    assert got.shape == want.shape and torch.isfinite(got).all()
    assert (got.double() - want).norm() <= allowed * want.norm() + 1e-6
