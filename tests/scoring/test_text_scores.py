from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ResourceError, SpecError, StoppedError
from gptcli.models.config import Gpt2Config, LlamaConfig, ModelConfig
from gptcli.models.family import build_model
from gptcli.models.lora import LoraConfig, apply_lora
from gptcli.runtime.ranks import can_fork
from gptcli.scoring import text_scores
from gptcli.scoring.language_modelling import score_stream
from gptcli.scoring.text_scores import TextScores, Wanted, rounded, score_text, targets, usual_ranks
from gptcli.training.arena import Arena, Replica

BOS, EOS, CPU = 1, 2, torch.device("cpu")
CONFIGS: dict[str, ModelConfig] = {
    "llama": LlamaConfig("llama", 50, 16, 32, 2, 2, 1, 8, 32),
    "gpt2": Gpt2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2),
}
EVERYTHING = Wanted(16, sliding=4, per_document=True, calibration=True)
forking = pytest.mark.skipif(not can_fork(), reason="ranks are forked processes")


def stream() -> TokenStream:
    draw = np.random.default_rng(0)
    texts = [np.array([BOS, *draw.integers(3, 50, 30 + number), EOS], np.uint32) for number in range(12)]
    return TokenStream.of_documents(texts, [4 * len(text) for text in texts])


def scored(kind: str, ranks: int, dtype: torch.dtype = torch.float32, **more: object) -> TextScores:
    torch.manual_seed(0)
    return score_text(
        build_model(CONFIGS[kind]),
        stream(),
        EVERYTHING,
        batch_size=3,
        bos_id=BOS,
        eos_id=EOS,
        device=CPU,
        dtype=dtype,
        ranks=ranks,
        **more,  # type: ignore[arg-type]
    )


@forking
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_ranks_find_what_one_process_finds(kind: str) -> None:
    told: list[int] = []
    alone, team = scored(kind, 1), scored(kind, 3, advance=told.append)
    assert team.score.tokens == alone.score.tokens
    assert team.score.nats == pytest.approx(alone.score.nats, rel=1e-12)
    for mine, other in (
        (alone.documents, team.documents),
        (alone.sliding, team.sliding),
        (alone.per_document, team.per_document),
    ):
        assert mine is not None and other is not None
        assert np.allclose(mine.sums, other.sums, rtol=1e-12)
        assert mine.score.tokens == alone.score.tokens
    assert alone.calibration is not None and team.calibration is not None
    assert team.calibration.figures() == pytest.approx(alone.calibration.figures())
    assert team.calibration.tables().keys() == {"equal_width", "equal_mass"}
    assert sum(told) == pytest.approx(targets(stream(), EVERYTHING), abs=12)  # bos are no targets of one document alone
    assert torch.get_num_threads() >= 1 and usual_ranks(CPU) >= 1


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_figures_are_those_of_a_trainings_validation(kind: str) -> None:
    torch.manual_seed(0)
    model = build_model(CONFIGS[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = score_text(
        model,
        stream(),
        Wanted(16),
        batch_size=3,
        bos_id=BOS,
        eos_id=EOS,
        device=CPU,
        dtype=torch.bfloat16,
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    def allocate(elements: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(elements, dtype=dtype)

    replica = Replica(Arena(model, 1, allocate), torch.bfloat16, allocate)
    validation = score_stream(
        replica.module, stream(), seq_len=16, batch_size=3, bos_id=BOS, device=CPU, dtype=torch.bfloat16
    )
    assert found.score == validation  # to the bit
    assert (found.calibration, found.sliding, found.per_document) == (None, None, None)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_an_adapters_weights_are_rounded_too(kind: str) -> None:
    torch.manual_seed(0)
    model = build_model(CONFIGS[kind])
    apply_lora(
        model, LoraConfig(4, 8.0, token_ids=(3, 7), fan_in_fan_out=kind == "gpt2"), torch.Generator().manual_seed(0)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    settings: dict[str, Any] = {"batch_size": 3, "bos_id": BOS, "device": CPU}
    exact = score_stream(model, stream(), seq_len=16, dtype=torch.float32, **settings)
    found = score_text(model, stream(), Wanted(16), eos_id=EOS, dtype=torch.bfloat16, **settings)
    assert found.score.loss == pytest.approx(exact.loss, rel=2e-3)
    whole = score_text(model, stream(), Wanted(16), eos_id=EOS, dtype=torch.float32, **settings)
    assert whole.score == exact


@forking
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_check_ends_all_ranks(ranks: int) -> None:
    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise StoppedError("a signal came", "again")

    with pytest.raises(StoppedError, match="a signal came"):
        scored("llama", ranks, check=stop)


def test_weights_come_back_when_something_breaks() -> None:
    model = build_model(CONFIGS["llama"])
    with pytest.raises(KeyError), rounded(model, torch.bfloat16):
        assert model.head_weight.dtype == torch.bfloat16
        raise KeyError
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_nothing_to_predict_is_no_fault() -> None:
    model = build_model(CONFIGS["llama"])
    found = score_text(
        model,
        TokenStream.of_documents([], []),
        EVERYTHING,
        batch_size=1,
        bos_id=BOS,
        eos_id=EOS,
        device=CPU,
        dtype=torch.float32,
        ranks=2,
    )
    assert found.score.tokens == 0 and found.documents.sums.shape == (4, 0)


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(SpecError, match="sliding = 9 leaves tokens out between windows of 8"):
        score_text(
            build_model(CONFIGS["llama"]),
            stream(),
            Wanted(8, sliding=9),
            batch_size=1,
            bos_id=BOS,
            eos_id=EOS,
            device=CPU,
            dtype=torch.float32,
        )


@forking
def test_ranks_follow_a_process_that_computed_with_threads() -> None:
    torch.set_num_threads(2)
    try:
        assert torch.randn(600, 600).mm(torch.randn(600, 600)).isfinite().all()  # its threads are there now
        team = scored("llama", 2, torch.bfloat16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert team.score == scored("llama", 1, torch.bfloat16).score  # in its native form, as one thread computes


@forking
def test_a_rank_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, plain = os.getpid(), score_stream

    def die(*arguments: Any, **more: Any) -> Any:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments, **more)

    monkeypatch.setattr(text_scores, "score_stream", die)
    with pytest.raises(ResourceError, match="a process that shared the scoring died"):
        scored("llama", 2)
