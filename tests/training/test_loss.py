from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.training import loss as loss_module
from gptcli.training.loss import IGNORED, linear_cross_entropy, masked_cross_entropy

TERMS = {
    "plain": {},
    "z-loss": {"z_loss": 0.02},
    "smoothed": {"label_smoothing": 0.1},
    "capped": {"softcap": 3.0},
    "all": {"z_loss": 0.02, "label_smoothing": 0.1, "softcap": 3.0},
}


@pytest.fixture(params=["native", "bf16", "fp32"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """native: bf16 on one thread; bf16: plain PyTorch on the same; fp32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if request.param == "bf16":
        monkeypatch.setattr(loss_module, "native", lambda x: False)
    yield request.param
    torch.set_num_threads(threads)


def draw(count: int, vocab: int, *, ignored: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states and a head, both representable in bf16, and targets of which each `ignored`-th is left out."""
    generator = torch.Generator().manual_seed(vocab)
    hidden = torch.randn(count, 16, generator=generator).bfloat16()
    weight = torch.randn(vocab, 16, generator=generator).bfloat16()
    targets = torch.randint(0, vocab, (count,), generator=generator)
    targets[::ignored] = IGNORED
    return hidden, weight, targets


def exact(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Objective and plain loss in float64, by PyTorch's own cross-entropy."""
    logits = hidden @ weight.t()
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    valid = targets != IGNORED
    objective = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    objective = objective + z_loss * logits.logsumexp(-1)[valid].square().sum()
    return objective, F.cross_entropy(logits, targets, reduction="sum")


def close(got: Tensor | None, want: Tensor | None, allowed: float) -> bool:
    assert got is not None and want is not None
    return bool((got.double() - want).norm() <= allowed * want.norm() + 1e-6)


@pytest.mark.parametrize("rows", [512, 7])
@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
@pytest.mark.parametrize(("count", "vocab"), [(37, 11), (1, 65), (20, 130)])
def test_value_and_gradients(
    form: str, monkeypatch: pytest.MonkeyPatch, count: int, vocab: int, terms: dict[str, float], rows: int
) -> None:
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 1)
    monkeypatch.setattr(loss_module, "ROWS_AT_ONCE", rows)
    hidden, weight, targets = draw(count, vocab, ignored=5 if count > 1 else 2**62)
    wide = [value.double().requires_grad_() for value in (hidden, weight)]
    given = [
        value.to(torch.float32 if form == "fp32" else torch.bfloat16).requires_grad_() for value in (hidden, weight)
    ]
    want, want_plain = exact(*wide, targets, **terms)
    got, got_plain = linear_cross_entropy(*given, targets, **terms)
    assert got.dtype == got_plain.dtype == torch.float32 and not got_plain.requires_grad
    (got * 0.3).backward()
    (want * 0.3).backward()
    # Logits of this size are off by a rounding of one part in 512 each; slopes and gradients by one more.
    value_off, slope_off = (1e-6, 1e-5) if form == "fp32" else (2e-3, 2e-2)
    assert close(got, want, value_off) and close(got_plain, want_plain, value_off)
    assert all(close(mine.grad, theirs.grad, slope_off) for mine, theirs in zip(given, wide, strict=True))


def test_an_fp32_head_gets_an_fp32_gradient(form: str) -> None:
    hidden, weight, targets = draw(64, 50)
    wide = [value.double().requires_grad_() for value in (hidden, weight)]
    exact(*wide, targets)[0].backward()
    mine = (
        hidden.to(torch.float32 if form == "fp32" else torch.bfloat16).requires_grad_(),
        weight.float().requires_grad_(),
    )
    linear_cross_entropy(*mine, targets)[0].backward()
    assert mine[1].grad is not None and mine[1].grad.dtype == torch.float32
    assert close(mine[0].grad, wide[0].grad, 2e-2) and close(mine[1].grad, wide[1].grad, 2e-2)


def test_without_a_valid_target_nothing_is_learned(form: str) -> None:
    hidden, weight, targets = draw(9, 20, ignored=1)
    given = [
        value.to(torch.float32 if form == "fp32" else torch.bfloat16).requires_grad_() for value in (hidden, weight)
    ]
    objective, plain = linear_cross_entropy(*given, targets, z_loss=0.1, label_smoothing=0.2, softcap=5.0)
    objective.backward()
    assert objective.item() == plain.item() == 0
    assert all(value.grad is not None and not value.grad.any() for value in given)


@pytest.mark.parametrize("learns", [(False, False), (True, False), (False, True)])
def test_only_what_learns_gets_a_gradient(form: str, learns: tuple[bool, bool]) -> None:
    hidden, weight, targets = draw(9, 20)
    dtype = torch.float32 if form == "fp32" else torch.bfloat16
    hidden, weight = (
        value.to(dtype).requires_grad_(asked) for value, asked in zip((hidden, weight), learns, strict=True)
    )
    objective, plain = linear_cross_entropy(hidden, weight, targets)
    assert objective.requires_grad is any(learns) and objective.item() == plain.item()
    if any(learns):
        objective.backward()
    assert (hidden.grad is not None, weight.grad is not None) == learns


def test_where_nothing_is_learned_no_gradient_is_made(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = draw(9, 20)
    given = [
        value.to(torch.float32 if form == "fp32" else torch.bfloat16).requires_grad_() for value in (hidden, weight)
    ]
    with torch.no_grad():
        monkeypatch.setattr(torch, "empty_like", None)  # what a gradient is written into
        objective, plain = linear_cross_entropy(*given, targets)
    assert not objective.requires_grad and objective.item() == plain.item() > 0


def test_a_broken_value_shows_in_the_loss(form: str) -> None:
    hidden, weight, targets = draw(9, 20)
    hidden = hidden.to(torch.float32 if form == "fp32" else torch.bfloat16)
    hidden[4, 2] = float("nan")
    assert linear_cross_entropy(hidden, weight.to(hidden.dtype), targets)[1].isnan()
    hidden[4] = float("inf")
    assert not torch.isfinite(linear_cross_entropy(hidden, weight.to(hidden.dtype), targets)[1])


def test_masked_cross_entropy_counts_only_what_is_kept() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 8), torch.randn(9, 8)
    targets = torch.full((2, 5), IGNORED)
    targets[0, 1], targets[1, 4] = 3, 7
    got = masked_cross_entropy(hidden, lambda rows: rows @ weight.t(), targets)
    logits = hidden @ weight.t()
    expected = -(logits.log_softmax(-1)[0, 1, 3] + logits.log_softmax(-1)[1, 4, 7])
    assert torch.allclose(got, expected)
