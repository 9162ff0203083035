"""What is looked at before a run's first step: that the data are the model's, and that the machine computes rightly.

Nothing of it stays: weights, gradients and generators are afterwards what they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptcli.errors import ArtifactError, GptcliError
from gptcli.training.arena import Arena
from gptcli.training.batches import Batch
from gptcli.training.loss import IGNORED
from gptcli.training.step import Steps

FIRST_LOSS = 0.1  # share of ln(vocab_size) that the first loss may be away from it
SAME_LOSS = 0.02  # share that the loss as it is computed may be away from the plain one's
SAME_DIRECTION = 0.99  # least cosine of the gradient as it is computed and the plain one
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
            batch = _part(batch, 0)
        batch = batch.to(steps.setup.device)
        steps.begin()
        if self.dropout:
            self.computes.eval()
        try:
            loss = _mean(steps.trainee.backward(batch), batch)
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
        deviation = DISTURBANCE if self.from_scratch else 0.0
        noise = torch.empty(before.shape).normal_(0.0, deviation, generator=torch.Generator().manual_seed(0))
        arena.masters.add_(noise.to(before.device))
        try:
            self.refresh()
            arena.zero(0)
            loss = _mean(steps.trainee.backward(batch), batch)
            gradient = arena.sums[0].clone()
            arena.zero(0)
            rows = range(batch.input_ids.shape[0])
            plain = _mean(torch.stack([self.plain(_part(batch, row)) for row in rows]).sum(), batch)
            cosine = torch.nn.functional.cosine_similarity(gradient, arena.sums[0], dim=0).item()
        finally:
            arena.masters.copy_(before)
            self.refresh()
        if not (abs(loss - plain) <= SAME_LOSS * plain and cosine >= SAME_DIRECTION):
            how = "compiled" if steps.setup.compiled else str(steps.setup.dtype).removeprefix("torch.")
            raise GptcliError(
                f"this machine computes wrongly: the {how} loss is {loss:.5g} and the plain one {plain:.5g}, "
                f"the cosine of their gradients {cosine:.4f}",
                "--set dtype=float32 --set compile=off computes plainly; please report it",
            )


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
