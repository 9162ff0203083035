"""One optimizer step, a function of (spec, step, sample) and the weights it finds; by one process or by several.

A step has two halves with a decision between them: `gradients` tells the loss and the gradient's norm, then `update`
or `discard` ends it. So nothing that went wrong in a step ever reaches the weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gptcli.errors import StoppedError
from gptcli.runtime.ranks import Order, Ranks, shared_tensor
from gptcli.runtime.stop import Stop
from gptcli.training.arena import Arena
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
    def module(self) -> nn.Module:
        """The weights that learn, in fp32."""

    @property
    def arena(self) -> Arena[Any] | None:
        """The flat buffers behind `module`; None where gradients lie in the parameters alone."""

    @property
    def flops_per_token(self) -> float: ...

    @property
    def samples(self) -> int:
        """Samples a step."""

    def batches(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        """The micro-batches of the step that begins with a sample, counted from 0 over the whole training."""

    def begin(self, rank: int) -> None:
        """Called once in each rank before its first share."""

    def backward(self, batch: Batch) -> Tensor:
        """Add the gradients of the batch's summed objective; its cross-entropy summed, in nats, an fp32 scalar."""

    def updated(self, names: list[str]) -> None:
        """Called when the named parameters have learnt."""

    def shown(self) -> AbstractContextManager[None]:
        """Within it `module`, and what computes, have the weights that are validated and kept."""

    def measure(self, rank: int, ranks: int, check: Callable[[], None]) -> Any:
        """This rank's share of a validation; `check` may raise StoppedError."""

    def validate(self, measured: list[Any]) -> dict[str, Any]:
        """`val_loss` in nats a token and whatever else, from every rank's share."""

    def snapshot(self) -> Callable[[Path], None]:
        """A copy of the weights as they are now; called with a directory it writes the model's files, as others open
        them. Another thread calls it, while the weights go on learning."""

    def read_model(self, directory: Path) -> None:
        """Take the weights up from what a snapshot wrote."""


@dataclass(frozen=True)
class Gradients:
    """What the first half of a step found: mean loss (nats a valid target), the mean's gradient norm before clipping,
    targets that carried loss, inputs that were no padding."""

    loss: float
    grad_norm: float
    valid: int
    tokens: int


class Steps:
    """The steps of one trainee. Ranks beyond the first are forked here; `close` ends them."""

    def __init__(self, trainee: Trainee, spec: TrainingSpec, setup: Setup, stop: Stop | None = None) -> None:
        self.trainee, self.spec, self.setup, self._stop = trainee, spec, setup, stop
        self.phase: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext()  # a profiler's marks
        self._stopping = shared_tensor(1, torch.int64)
        self._owned = trainee.optimizers.shares(setup.ranks)
        self._begun = False
        orders: dict[str, Order] = {
            "compute": self._compute,
            "reduce": self._reduce,
            "update": self._update,
            "discard": self._discard,
            "measure": self._measure,
        }
        self._ranks = Ranks(setup.ranks, orders, self._pass_on_stop)

    def begin(self) -> None:
        """Make this process ready for its share, which the first step does otherwise."""
        self._begin(0)

    def gradients(self, step: int, first_sample: int) -> Gradients:
        """Forward and backprop over the step's samples. Raises StoppedError, with nothing learnt, after a signal."""
        try:
            parts = self._all("compute", step, first_sample, self.setup.micro_batch_size)
        except BaseException:
            self.discard()
            raise
        nats, valid, tokens = (sum(part[place] for part in parts) for place in range(3))
        norms = self._all("reduce", max(valid, 1))
        return Gradients(nats / max(valid, 1), sum(norms) ** 0.5, valid, tokens)

    def update(self, step: int, grad_norm: float) -> float:
        """Learn from the gradients, scaled down to grad_clip where their norm exceeds it; the first group's rate."""
        largest = self.spec.grad_clip
        scale = largest / (grad_norm + 1e-6) if 0 < largest < grad_norm else 1.0
        self._all("update", step, scale)
        return self.trainee.optimizers.lr

    def discard(self) -> None:
        """Forget the gradients."""
        self._all("discard")

    def validate(self) -> dict[str, Any]:
        """The trainee's figures on unseen data. Raises StoppedError after a signal."""
        with self.trainee.shown():
            return self.trainee.validate(self._all("measure"))

    def close(self) -> None:
        """End the other ranks, and let go of what the steps were taken with."""
        self._ranks.close()
        gc.unfreeze()

    def _all(self, order: str, *arguments: Any) -> list[Any]:
        self._stopping.zero_()
        return self._ranks.all(order, *arguments)

    def _pass_on_stop(self) -> None:
        """Let the other ranks know of a signal, which this process alone has heard."""
        if self._stop is not None and self._stop.requested:
            self._stopping.fill_(1)

    def _check(self) -> None:
        self._pass_on_stop()
        if self._stopping.item():
            raise StoppedError("stopped by a signal", "run the same command to go on")

    def _begin(self, rank: int) -> None:
        if not self._begun:
            self._begun = True
            gc.collect()
            gc.freeze()  # what stands now stays: no later collection need walk through it
            self.trainee.begin(rank)
            self.trainee.optimizers.keep(self._owned[rank])

    def _compute(self, rank: int, step: int, first_sample: int, micro_batch_size: int) -> tuple[float, int, int]:
        """This rank's micro-batches: nats, valid targets, tokens."""
        self._begin(rank)
        # Dropout draws from (seed, step, rank): there is no generator state to keep.
        torch.manual_seed((self.spec.seed * 1_000_003 + step) * 1_009 + rank)
        with self.phase("data"):
            batches = self.trainee.batches(first_sample, micro_batch_size)[rank :: self.setup.ranks]
        nats = torch.zeros((), device=self.setup.device, dtype=torch.float32)
        for batch in batches:
            self._check()
            nats += self.trainee.backward(batch.to(self.setup.device))
        return nats.item(), sum(batch.valid for batch in batches), sum(batch.tokens for batch in batches)

    def _reduce(self, rank: int, valid: int) -> float:
        """Sum the owned parameters' gradients over the ranks, make them a mean; the square of their norm."""
        arena = self.trainee.arena
        with self.phase("gradient exchange"), torch.no_grad():
            gradients = [gradient for _, gradient in self._gradients(rank)]
            if not gradients:
                return 0.0
            if arena is not None:
                for other in arena.sums[1:]:
                    torch._foreach_add_(gradients, [arena.view(other, name) for name, _ in self._gradients(rank)])
            torch._foreach_mul_(gradients, 1.0 / valid)
            return torch.nn.utils.get_total_norm(gradients).item() ** 2

    def _gradients(self, rank: int) -> list[tuple[str, Tensor]]:
        """The owned parameters that have a gradient, by name."""
        named = self.trainee.optimizers.named
        return [(name, gradient) for name in self._owned[rank] if (gradient := named[name].grad) is not None]

    def _update(self, rank: int, step: int, scale: float) -> None:
        spec, optimizers = self.spec, self.trainee.optimizers
        optimizers.set_factor(factor(spec.schedule, step, spec.steps, spec.warmup_steps, spec.cooldown))
        with self.phase("optimizer"), torch.no_grad():
            gradients = [gradient for _, gradient in self._gradients(rank)]
            if scale != 1.0 and gradients:
                torch._foreach_mul_(gradients, scale)
            optimizers.step()
            self.trainee.updated(self._owned[rank])
            self._forget(rank, gradients)

    def _forget(self, rank: int, gradients: list[Tensor]) -> None:
        """Zero what this rank owns of the reduced gradients, which lie in rank 0's sums, and its own sums."""
        if self.trainee.arena is None:
            self.trainee.optimizers.zero_grad()
            return
        if gradients:
            torch._foreach_zero_(gradients)
        if rank:
            self.trainee.arena.zero(rank)

    def _discard(self, rank: int) -> None:
        if self.trainee.arena is None:
            self.trainee.optimizers.zero_grad()
        else:
            self.trainee.arena.zero(rank)

    def _measure(self, rank: int) -> Any:
        self._begin(rank)
        return self.trainee.measure(rank, self.setup.ranks, self._check)
