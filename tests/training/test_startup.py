"""What is looked at before the first step, on a model small enough to look at all of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gptcli.errors import ArtifactError, GptcliError
from gptcli.models.family import build_model, sized_config
from gptcli.models.init import init_weights
from gptcli.training.arena import Arena, Replica
from gptcli.training.batches import Batch
from gptcli.training.loss import linear_cross_entropy
from gptcli.training.startup import Start

VOCAB, LENGTH = 64, 16


def allocate(elements: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(elements, dtype=dtype)


class Small:
    """A model, its compute copies, and a batch of two sequences."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16, embedding_std: float = 0.02) -> None:
        config = sized_config(
            "qwen3",
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            max_positions=LENGTH,
            rope_theta=1e4,
            tie_embeddings=False,
            bos_id=None,
            eos_id=0,
            pad_id=None,
            logit_softcap=0.0,
        )
        self.module = build_model(config, 0.0)
        init_weights(self.module, torch.Generator().manual_seed(1), embedding_std)
        self.arena = Arena(self.module, 1, allocate)
        self.replica = Replica(self.arena, dtype, allocate)
        self.ids = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(2))
        self.warned: list[str] = []
        self.slope = 1.0  # what the gradients as they are computed are multiplied with
        setup = SimpleNamespace(micro_batch_size=2, compiled=False, device=torch.device("cpu"), dtype=dtype)
        self.steps: Any = SimpleNamespace(trainee=self, setup=setup, begin=lambda: self.replica.collect(0))

    def batches(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        return [Batch(self.ids, self.ids.roll(-1, 1), self.ids.numel(), self.ids.numel())]

    def backward(self, batch: Batch) -> Tensor:
        return self._backward(batch, self.replica.module, self.slope)

    def plain(self, batch: Batch) -> Tensor:
        return self._backward(batch, self.module, 1.0)

    def _backward(self, batch: Batch, model: Any, slope: float) -> Tensor:
        hidden = model.hidden(batch.input_ids).flatten(0, 1)
        objective, nats = linear_cross_entropy(hidden, model.head_weight, batch.targets.flatten())
        (objective * slope).backward()
        return nats

    def check(self, vocab_size: int = VOCAB, tokenizer_size: int = VOCAB) -> None:
        Start(
            computes=self.replica.module,
            refresh=self.replica.refresh,
            plain=self.plain,
            vocab_size=vocab_size,
            tokenizer_size=tokenizer_size,
            from_scratch=True,
            dropout=False,
            warn=self.warned.append,
        ).check(self.steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("compiled", [False, True], ids=["a sequence", "a micro-batch"])
def test_a_sound_start_passes_and_leaves_no_trace(dtype: torch.dtype, compiled: bool) -> None:
    small, generator = Small(dtype), torch.random.get_rng_state()
    small.steps.setup.compiled = compiled
    masters, copies = small.arena.masters.clone(), small.replica.copies.clone()
    small.check()
    assert small.warned == []
    assert torch.equal(small.arena.masters, masters) and torch.equal(small.replica.copies, copies)
    assert not small.arena.sums[0].any() and small.replica.module.training
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_a_gradient_that_is_wrong_is_refused() -> None:
    small = Small()
    small.slope = -1.0
    with pytest.raises(GptcliError, match=r"computes wrongly: the bfloat16 loss is .* cosine of their gradients -"):
        small.check()
    assert not small.arena.sums[0].any()


def test_a_loss_that_is_wrong_is_refused() -> None:
    small = Small()
    small.replica.refresh = lambda names=None: small.replica.copies.zero_()  # type: ignore[method-assign]
    with pytest.raises(GptcliError, match="computes wrongly"):
        small.check()


def test_an_unusual_first_loss_is_told() -> None:
    small = Small()
    with torch.no_grad():
        small.arena.masters.add_(torch.randn(small.arena.masters.shape, generator=torch.Generator().manual_seed(3)))
    small.replica.refresh()
    small.check()
    assert len(small.warned) == 1 and "ln(64) = 4.159" in small.warned[0]


def test_ids_that_the_model_does_not_have_are_refused() -> None:
    small = Small()
    small.ids[1, 3] = VOCAB
    with pytest.raises(ArtifactError, match="the tokens hold id 64, and the model has 64 ids"):
        small.check()
    with pytest.raises(ArtifactError, match="the tokenizer has 65 ids and the model only 64"):
        Small().check(tokenizer_size=VOCAB + 1)
