from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gptcli.training.muon import COEFFICIENTS, ROUNDS, Layout, Muon, orthogonalised

LR, DECAY, MOMENTUM = 0.03, 0.1, 0.95


def reference(weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """Muon written out in float64, with a matrix power in place of products kept."""
    weight, average = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    a, b, c = COEFFICIENTS
    for gradient in gradients:
        average = MOMENTUM * average + (1 - MOMENTUM) * gradient.double()
        update = (1 - MOMENTUM) * gradient.double() + MOMENTUM * average
        x = update / update.norm()
        for _ in range(ROUNDS):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        weight = weight * (1 - LR * DECAY) - LR * max(1, weight.shape[0] / weight.shape[1]) ** 0.5 * x
    return weight


def trained(weight: Tensor, gradients: list[Tensor], dtype: torch.dtype, layout: Layout | None = None) -> Tensor:
    parameter = torch.nn.Parameter(weight.clone())
    layouts = {} if layout is None else {parameter: layout}
    muon = Muon([parameter], lr=LR, weight_decay=DECAY, momentum=MOMENTUM, dtype=dtype, layouts=layouts)
    muon.state[parameter] = muon.first_state(parameter, torch.zeros)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        muon.step()
    return parameter.detach()


def drawn(*shape: int, steps: int = 4) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator), [torch.randn(shape, generator=generator) for _ in range(steps)]


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24), (1, 5)])
def test_it_is_the_written_out_rule(shape: tuple[int, int]) -> None:
    weight, gradients = drawn(*shape)
    wanted = reference(weight, gradients)
    assert (trained(weight, gradients, torch.float32).double() - wanted).abs().max() < 1e-5
    assert (trained(weight, gradients, torch.bfloat16).double() - wanted).abs().max() < 0.02 * LR * 4 * 4


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_in_bfloat16_it_is_torchs(shape: tuple[int, int]) -> None:
    weight, gradients = drawn(*shape)
    theirs = torch.nn.Parameter(weight.clone())
    muon = torch.optim.Muon([theirs], lr=LR, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn="original")
    for gradient in gradients:
        theirs.grad = gradient.clone()
        muon.step()
    assert (trained(weight, gradients, torch.bfloat16) - theirs.detach()).abs().max() < 4 * LR * 0.02


def test_a_layout_changes_where_the_numbers_lie_and_nothing_else() -> None:
    parts = [drawn(12, 20) for _ in range(3)]
    weight = torch.cat([part[0] + at for at, part in enumerate(parts)])
    gradients = [torch.cat([part[1][step] * (at + 1) for at, part in enumerate(parts)]) for step in range(4)]
    alone = [
        trained(w, [g[rows] for g in gradients], torch.float32)
        for w, rows in ((weight[at : at + 12], slice(at, at + 12)) for at in (0, 12, 24))
    ]
    together = trained(weight.T.contiguous(), [g.T.contiguous() for g in gradients], torch.float32, Layout(True, 3))
    assert torch.allclose(together.T, torch.cat(alone), atol=1e-6)


def test_singular_values_come_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalised(torch.randn(40, 96), torch.float32))
    assert values.min() > 0.6 and values.max() < 1.3


def test_a_gradient_of_zeros_moves_nothing_but_decay() -> None:
    weight, _ = drawn(8, 8)
    moved = trained(weight, [torch.zeros(8, 8)], torch.float32)
    assert torch.allclose(moved, weight * (1 - LR * DECAY))
