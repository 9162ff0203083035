from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from gptcli.training import adamw
from gptcli.training.adamw import AdamW

LR, DECAY, BETAS, EPS = 0.02, 0.1, (0.8, 0.95), 1e-10


def reference(weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """The paper's algorithm 2, in float64."""
    weight = weight.double()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient.double()
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient.double() ** 2
        direction = mean / (1 - BETAS[0] ** step) / ((square / (1 - BETAS[1] ** step)).sqrt() + EPS)
        weight = weight - LR * DECAY * weight - LR * direction
    return weight


def trained(weight: Tensor, gradients: list[Tensor]) -> Tensor:
    parameter = torch.nn.Parameter(weight.clone())
    rule = AdamW([{"params": [parameter], "lr": LR, "weight_decay": DECAY}], betas=BETAS, eps=EPS)
    rule.state[parameter] = rule.first_state(parameter, torch.zeros)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        rule.step()
    return parameter.detach()


def drawn(*shape: int) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), [torch.randn(shape, generator=generator) for _ in range(6)]


@pytest.mark.parametrize("shape", [(40, 24), (7,)])
@pytest.mark.parametrize("kernel", ["fused", "plain"])
def test_it_is_the_written_out_rule(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], kernel: str) -> None:
    if kernel == "plain":
        monkeypatch.setattr(adamw, "FUSED", ())
    weight, gradients = drawn(*shape)
    assert (trained(weight, gradients).double() - reference(weight, gradients)).abs().max() < 2e-6


def test_it_is_torchs_to_the_bit() -> None:
    weight, gradients = drawn(33, 17)
    theirs = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([theirs], lr=LR, weight_decay=DECAY, betas=BETAS, eps=EPS, fused=True)
    for gradient in gradients:
        theirs.grad = gradient.clone()
        optimizer.step()
    assert torch.equal(trained(weight, gradients), theirs.detach())


def test_a_parameter_without_a_gradient_stays() -> None:
    still, moving = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    rule = AdamW([{"params": [still, moving], "lr": LR, "weight_decay": DECAY}], betas=BETAS)
    for parameter in (still, moving):
        rule.state[parameter] = rule.first_state(parameter, torch.zeros)
    moving.grad = torch.ones(3)
    rule.step()
    assert torch.equal(still.detach(), torch.ones(3)) and rule.state[still]["step"] == 0
    assert not torch.equal(moving.detach(), torch.ones(3))


def test_training_code_does_not_load_torchs_compiler() -> None:
    code = (
        "import sys, torch, gptcli.pretrain.run, gptcli.finetune_lora.run\n"
        "from gptcli.training.optimizer import adamw_optimizers\n"
        "weight = torch.nn.Parameter(torch.ones(3)); weight.grad = torch.ones(3)\n"
        "adamw_optimizers({'w': weight}, 0.1, 0.0, (0.9, 0.99)).step()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
