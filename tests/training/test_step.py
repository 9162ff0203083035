"""The two halves of a step, alone and shared among ranks."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptcli.errors import StoppedError
from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.pretrain.spec import PretrainSpec
from gptcli.runtime.ranks import can_fork
from gptcli.runtime.stop import Stop
from gptcli.training.arena import Arena, Replica
from gptcli.training.batches import Batch
from gptcli.training.loss import IGNORED, linear_cross_entropy
from gptcli.training.optimizer import Rates, pretraining_optimizers
from gptcli.training.setup import Setup
from gptcli.training.step import Steps

CONFIG = LlamaConfig("qwen3", 48, 32, 40, 2, 2, 1, 16, 16)
SAMPLES = 6


class Learner:
    """A tiny model on rows of random ids, as pretraining builds it."""

    def __init__(self, setup: Setup, check: Callable[[], None] = lambda: None) -> None:
        self.module = Llama(CONFIG)
        init_weights(self.module, torch.Generator().manual_seed(0))
        self.arena = Arena(self.module, setup.ranks, setup.allocate)
        self.replica = Replica(self.arena, setup.dtype, setup.allocate)
        rates = Rates(0.02, 0.01, 0.004, 0.01)
        self.optimizers = pretraining_optimizers(
            self.module, "muon", rates, 0.05, (0.8, 0.95), setup.dtype, setup.allocate
        )
        self.flops_per_token, self.samples, self.check = 1.0, SAMPLES, check

    def batches(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        ids = torch.randint(0, 48, (SAMPLES, 9), generator=torch.Generator().manual_seed(first_sample))
        targets = ids[:, 1:].clone()
        targets[::2, :3] = IGNORED
        return [
            Batch(ids[at : at + micro_batch_size, :-1], part, int((part != IGNORED).sum()), part.numel())
            for at in range(0, SAMPLES, micro_batch_size)
            for part in [targets[at : at + micro_batch_size]]
        ]

    def begin(self, rank: int) -> None:
        self.replica.collect(rank)

    def backward(self, batch: Batch) -> Tensor:
        self.check()
        hidden = self.replica.module.hidden(batch.input_ids)
        objective, nats = linear_cross_entropy(
            hidden.flatten(0, 1), self.replica.module.head_weight, batch.targets.flatten()
        )
        objective.backward()
        return nats

    def updated(self, names: list[str]) -> None:
        self.replica.refresh(names)

    def shown(self) -> Any:
        return nullcontext()

    def measure(self, rank: int, ranks: int, check: Callable[[], None]) -> int:
        check()
        return rank

    def validate(self, measured: list[int]) -> dict[str, Any]:
        return {"val_loss": float(sum(measured))}

    def write_model(self, directory: Path) -> None: ...

    def read_model(self, directory: Path) -> None: ...


def setup(ranks: int = 1, micro_batch_size: int = 2, dtype: torch.dtype = torch.float32) -> Setup:
    return Setup(torch.device("cpu"), dtype, 1, micro_batch_size, ranks)


def spec(**settings: Any) -> PretrainSpec:
    return PretrainSpec(steps=4, seq_len=8, global_batch_tokens=8 * SAMPLES, **settings)


def taken(made: Setup, steps: int = 3, **settings: Any) -> tuple[list[float], list[float], Tensor]:
    """Losses, norms and the weights after some steps."""
    torch.set_num_threads(1)
    learner = Learner(made)
    walk = Steps(learner, spec(**settings), made)
    losses, norms = [], []
    try:
        for step in range(steps):
            found = walk.gradients(step, step * SAMPLES)
            walk.update(step, found.grad_norm)
            losses.append(found.loss)
            norms.append(found.grad_norm)
        assert walk.validate() == {"val_loss": float(sum(range(made.ranks)))}
    finally:
        walk.close()
    return losses, norms, learner.arena.masters.clone()


def test_the_loss_is_a_mean_over_valid_targets_and_the_norm_is_that_means() -> None:
    losses, norms, _ = taken(setup(), steps=1)
    module = Llama(CONFIG)
    init_weights(module, torch.Generator().manual_seed(0))
    ids = torch.randint(0, 48, (SAMPLES, 9), generator=torch.Generator().manual_seed(0))
    targets = ids[:, 1:].clone()
    targets[::2, :3] = IGNORED
    loss = torch.nn.functional.cross_entropy(module(ids[:, :-1]).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(loss.item(), rel=1e-5)
    assert norms[0] == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize("micro_batch_size", [1, 4, 6])
def test_micro_batches_make_no_difference_but_rounding(micro_batch_size: int) -> None:
    losses, _, weights = taken(setup())
    others, _, same = taken(setup(micro_batch_size=micro_batch_size))
    assert losses == pytest.approx(others, rel=1e-4)
    assert (weights - same).norm() / weights.norm() < 1e-3


@pytest.mark.skipif(not can_fork(), reason="this system does not fork safely")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranks_learn_what_one_process_learns_and_the_same_bits_each_time(dtype: torch.dtype) -> None:
    losses, norms, weights = taken(setup(dtype=dtype))
    for ranks in (2, 3):
        shared, their_norms, theirs = taken(setup(ranks, dtype=dtype))
        again = taken(setup(ranks, dtype=dtype))
        assert shared == pytest.approx(losses, rel=1e-3)
        assert their_norms == pytest.approx(norms, rel=1e-2)
        assert (weights - theirs).norm() / weights.norm() < (1e-3 if dtype == torch.float32 else 0.05)
        assert again[0] == shared and torch.equal(again[2], theirs)


def test_a_discarded_step_leaves_no_trace() -> None:
    _, _, wanted = taken(setup(), steps=1)
    learner = Learner(setup())
    walk = Steps(learner, spec(), setup())
    before = learner.arena.masters.clone()
    walk.gradients(0, 1000 * SAMPLES)
    walk.discard()
    assert torch.equal(learner.arena.masters, before)
    walk.update(0, walk.gradients(0, 0).grad_norm)
    assert torch.equal(learner.arena.masters, wanted)


def test_clipping_scales_the_whole_gradient_down() -> None:
    learner = Learner(setup())
    walk = Steps(learner, spec(grad_clip=0.01, optimizer="adamw"), setup())
    found = walk.gradients(0, 0)
    seen: list[float] = []
    original = learner.optimizers.step

    def step() -> None:
        seen.append(float(learner.arena.sums[0].norm()))
        original()

    learner.optimizers.step = step  # type: ignore[method-assign]
    walk.update(0, found.grad_norm)
    assert found.grad_norm > 0.01 and seen[0] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.skipif(not can_fork(), reason="this system does not fork safely")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_ends_a_step_between_micro_batches_and_nothing_is_learnt(ranks: int) -> None:
    stop = Stop()
    made = setup(ranks, micro_batch_size=1)
    learner = Learner(made, lambda: stop._receive(signal.SIGTERM, None))
    walk = Steps(learner, spec(), made, stop)
    try:
        before = learner.arena.masters.clone()
        with pytest.raises(StoppedError):
            walk.gradients(0, 0)
        assert torch.equal(learner.arena.masters, before)
        assert all(float(total.abs().max()) == 0 for total in learner.arena.sums)
    finally:
        walk.close()
