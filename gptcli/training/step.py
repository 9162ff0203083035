"""One optimizer step, a function of (spec, step) and the weights it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gptcli.training.batches import Batch
from gptcli.training.optimizer import Optimizers
from gptcli.training.schedule import factor
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec


class Trainee(Protocol):
    """What is trained, and how its loss and validation are computed."""

    @property
    def optimizers(self) -> Optimizers: ...

    @property
    def module(self) -> nn.Module: ...

    @property
    def flops_per_token(self) -> float: ...

    def batches(self, step: int, micro_batch_size: int) -> list[Batch]:
        """The micro-batches of one step, counted from 0."""

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of a batch in nats, an fp32 scalar."""

    def validate(self) -> dict[str, Any]:
        """`val_loss` in nats a token and whatever else is measured on unseen data; may raise StoppedError."""

    def write_model(self, directory: Path) -> None:
        """The model's files, as others open them."""

    def read_model(self, directory: Path) -> None:
        """Take the weights up from what write_model wrote."""


@dataclass(frozen=True)
class Taken:
    """What a step was: mean loss (nats) and gradient norm before clipping, both still on the device; the first
    group's rate; targets that carried loss; inputs that were no padding."""

    loss: Tensor
    grad_norm: Tensor
    lr: float
    valid: int
    tokens: int


def take_step(trainee: Trainee, spec: TrainingSpec, setup: Setup, step: int) -> Taken:
    """Forward, loss, backprop, update; the loss is a mean over all the step's valid targets, not of means."""
    torch.manual_seed(spec.seed * 1_000_003 + step)  # dropout draws from (seed, step): no generator state to keep
    optimizers = trainee.optimizers
    optimizers.set_factor(factor(spec.schedule, step, spec.steps, spec.warmup_steps, spec.cooldown))
    batches = trainee.batches(step, setup.micro_batch_size)
    valid = max(sum(batch.valid for batch in batches), 1)
    total = torch.zeros((), device=setup.device)
    for batch in batches:
        with setup.autocast():
            loss = trainee.loss(batch.to(setup.device)) / valid
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = _clip(trainee.module, spec.grad_clip)
    optimizers.step()
    optimizers.zero_grad()
    return Taken(total, norm, optimizers.lr, valid, sum(batch.tokens for batch in batches))


def _clip(module: nn.Module, largest: float) -> Tensor:
    """The gradients' norm; they are scaled down to `largest` where it exceeds that."""
    learning = [parameter for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in learning if parameter.grad is not None])
    if largest > 0:
        torch.nn.utils.clip_grads_with_norm_(learning, largest, norm)
    return norm
