"""What is looked at before a run's first step: that the data are the model's, and that the machine computes rightly.

Nothing of it stays: weights, gradients and generators are afterwards what they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptcli.errors import ArtifactError, GptcliError, ResourceError
from gptcli.training.arena import Arena
from gptcli.training.batches import Batch
from gptcli.training.loss import IGNORED
from gptcli.training.step import Steps

FIRST_LOSS = 0.1  # share of ln(vocab_size) that the first loss may be away from it
SAME_LOSS = 0.02  # share that the loss as it is computed may be away from the plain one's
SAME_DIRECTION = 0.99  # cosine of the gradient as it is computed and the plain one below which it is told
LIKE_DIRECTION = 0.9  # and below which it is refused: rounding to bf16 does not go that far
DISTURBANCE = 0.02  # standard deviation of what is added to initial weights: many are zero, and prove nothing


@dataclass(frozen=True)
class Start:
    """A run that is about to begin.

    `computes`: the module that trains; `refresh`: lets it see changed masters; `plain`: like the trainee's `backward`,
    by PyTorch's plain operations in fp32; `vocab_size`: the model's, `tokenizer_size`: the tokenizer's; `from_scratch`:
    whether the weights know nothing yet; `dropout`: whether activations are dropped in training.
    """

    computes: nn.Module
    refresh: Callable[[], None]
    plain: Callable[[Batch], Tensor]
    vocab_size: int
    tokenizer_size: int
    from_scratch: bool
    dropout: bool
    warn: Callable[[str], None]

    def check(self, steps: Steps) -> None:
        """Look at the first micro-batch of `steps`.

        Warns of a first loss that is not ln(vocab_size), which is what weights that know nothing have: an unusual
        choice of the initial weights, but a choice. Raises ArtifactError for token ids that the model does not have,
        GptcliError where the loss or the gradient is not what plain operations compute: such a run learns nothing.
        """
        batch = steps.trainee.batches(0, steps.setup.micro_batch_size)[0]
        self._require_known_ids(batch)
        arena = steps.trainee.arena
        if arena is None:
            return
        if not steps.setup.compiled:  # what is compiled is compiled for a whole micro-batch
            with_loss = (batch.targets != IGNORED).any(dim=1).nonzero()
            if not len(with_loss):
                return
            batch = _part(batch, int(with_loss[0]))
        batch = batch.to(steps.setup.device)
        steps.begin()
        if self.dropout:
            self.computes.eval()
        try:
            loss = _mean(_first_pass(steps, batch), batch)
            self._compare_with_chance(loss)
            if not (self.dropout and steps.setup.compiled):
                self._compare_with_plain(steps, arena, batch)
        finally:
            arena.zero(0)
            self.computes.train()

    def _require_known_ids(self, batch: Batch) -> None:
        if self.tokenizer_size > self.vocab_size:
            raise ArtifactError(
                f"the tokenizer has {self.tokenizer_size:,} ids and the model only {self.vocab_size:,}",
                "train on tokens made with the model's own tokenizer",
            )
        highest = max(int(batch.input_ids.max()), int(batch.targets.max()))
        if highest >= self.vocab_size:
            raise ArtifactError(
                f"the tokens hold id {highest:,}, and the model has {self.vocab_size:,} ids",
                "gptcli tokenize --verify finds the damage; gptcli tokenize --force makes the tokens again",
            )

    def _compare_with_chance(self, loss: float) -> None:
        chance = math.log(self.vocab_size)
        if self.from_scratch and not abs(loss - chance) <= FIRST_LOSS * chance:
            self.warn(
                f"the first loss is {loss:.3f}; weights that know nothing have ln({self.vocab_size}) = {chance:.3f}: "
                "look at embedding_std and tie_embeddings"
            )

    def _compare_with_plain(self, steps: Steps, arena: Arena[nn.Module], batch: Batch) -> None:
        before = arena.masters.clone()
        try:
            if self.from_scratch:
                _disturb(arena)
            self.refresh()
            arena.zero(0)
            loss = _mean(steps.trainee.backward(batch), batch)
            gradient = arena.sums[0].clone()
            arena.zero(0)
            rows = range(batch.input_ids.shape[0])
            plain = _mean(torch.stack([self.plain(_part(batch, row)) for row in rows]).sum(), batch)
            norms = gradient.norm() * arena.sums[0].norm()
            cosine = (torch.dot(gradient, arena.sums[0]) / norms.clamp_min(1e-30)).item()
        finally:
            arena.masters.copy_(before)
            self.refresh()
        if not (abs(loss - plain) <= SAME_LOSS * plain and cosine >= LIKE_DIRECTION):
            how = "compiled" if steps.setup.compiled else str(steps.setup.dtype).removeprefix("torch.")
            raise GptcliError(
                f"this machine computes wrongly: the {how} loss is {loss:.5g} and the plain one {plain:.5g}, "
                f"the cosine of their gradients {cosine:.4f}",
                "--set dtype=float32 --set compile=off computes plainly; please report it",
            )
        if cosine < SAME_DIRECTION:
            self.warn(
                f"the cosine of the first gradient and the plain one is {cosine:.4f}: rounding tells in this model"
            )


def _first_pass(steps: Steps, batch: Batch) -> Tensor:
    """The first forward and backward pass. Raises ResourceError where it can't be compiled on this machine."""
    try:
        return steps.trainee.backward(batch)
    except Exception as error:
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            told = str(error).strip().partition("\n")[0]
            raise ResourceError(
                f"torch.compile does not work here: {told}",
                "--set compile=off trains without; or install a C++ compiler",
            ) from error
        raise


def _disturb(arena: Arena[nn.Module]) -> None:
    """Add noise from a seed of its own to the masters."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in arena.module.named_parameters():
        noise = torch.empty(parameter.shape).normal_(0.0, DISTURBANCE, generator=generator)
        arena.view(arena.masters, name).add_(noise.to(arena.masters.device))


def _part(batch: Batch, row: int) -> Batch:
    """One sequence of a batch."""
    part = slice(row, row + 1)
    targets = batch.targets[part]
    return Batch(
        batch.input_ids[part],
        targets,
        int((targets != IGNORED).sum()),
        batch.input_ids.shape[1],
        None if batch.starts is None else batch.starts[part],
        None if batch.positions is None else batch.positions[part],
    )


def _mean(nats: Tensor, batch: Batch) -> float:
    """Nats a valid target."""
    return nats.item() / max(int((batch.targets != IGNORED).sum()), 1)
