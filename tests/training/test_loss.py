from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gptcli.training import loss as loss_module
from gptcli.training.loss import IGNORED, linear_cross_entropy, masked_cross_entropy


@pytest.mark.parametrize("chunk", [1 << 23, 64])
def test_linear_cross_entropy_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(37, 16, requires_grad=True)
    weight = torch.randn(11, 16, requires_grad=True)
    targets = torch.randint(0, 11, (37,))
    targets[::5] = IGNORED
    (linear_cross_entropy(hidden, weight, targets) * 0.3).backward()
    ours = hidden.grad.clone(), weight.grad.clone()  # type: ignore[union-attr]
    hidden.grad = weight.grad = None
    expected = F.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    (expected * 0.3).backward()
    assert torch.allclose(linear_cross_entropy(hidden, weight, targets), expected, rtol=1e-6)
    for mine, theirs in zip(ours, (hidden.grad, weight.grad), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)  # type: ignore[arg-type]


def test_bf16_hidden_keeps_an_fp32_loss_and_gradient_of_the_weight() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(64, 32).bfloat16().requires_grad_()
    weight = torch.randn(50, 32, requires_grad=True)
    targets = torch.randint(0, 50, (64,))
    value = linear_cross_entropy(hidden, weight, targets)
    value.backward()
    exact = F.cross_entropy(hidden.float() @ weight.t(), targets, reduction="sum")
    assert value.dtype == torch.float32 and weight.grad is not None and weight.grad.dtype == torch.float32
    assert abs(value.item() - exact.item()) / exact.item() < 0.01


def test_masked_cross_entropy_counts_only_what_is_kept() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 8), torch.randn(9, 8)
    targets = torch.full((2, 5), IGNORED)
    targets[0, 1], targets[1, 4] = 3, 7
    got = masked_cross_entropy(hidden, lambda rows: rows @ weight.t(), targets)
    logits = hidden @ weight.t()
    expected = -(logits.log_softmax(-1)[0, 1, 3] + logits.log_softmax(-1)[1, 4, 7])
    assert torch.allclose(got, expected)
