from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gptcli.artifacts.tokens import TokenStream
from gptcli.models.config import LlamaConfig
from gptcli.models.llama import Llama
from gptcli.models.ops.native import native
from gptcli.scoring import language_modelling
from gptcli.scoring.language_modelling import TokenScore, bits_per_byte, score_stream, token_scores

BOS = 1
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig("qwen3", 50, 16, 32, 2, 2, 1, 8, 32), dropout=0.5).train()


def stream_of(length: int) -> TokenStream:
    ids = np.random.default_rng(length).integers(0, 50, length).astype(np.uint16)
    ids[::7] = BOS
    cut = length // 3
    pieces = (ids[:cut], ids[cut:])
    return TokenStream(pieces, np.array([0, cut, length], np.int64), 4 * length, 2)


def score(model: Llama, stream: TokenStream, batch_size: int = 4) -> TokenScore:
    return score_stream(
        model,
        stream,
        seq_len=8,
        batch_size=batch_size,
        bos_id=BOS,
        device=CPU,
        dtype=torch.float32,
    )


def by_hand(model: Llama, stream: TokenStream) -> TokenScore:
    """The rule, one window and one token at a time."""
    ids = stream.read(0, len(stream)).tolist()
    nats, tokens, correct, top5 = 0.0, 0, 0, 0
    model.eval()
    for start in range(0, len(ids) - 1, 8):
        inputs, targets = ids[start : start + 8], ids[start + 1 : start + 9]
        with torch.no_grad():
            logits = model(torch.tensor([inputs[: len(targets)]]))[0].double().log_softmax(-1)
        for row, target in zip(logits, targets, strict=True):
            if target != BOS:
                rank = int((row > row[target]).sum())
                nats, tokens = nats - float(row[target]), tokens + 1
                correct, top5 = correct + int(rank == 0), top5 + int(rank < 5)
    model.train()
    return TokenScore(nats, tokens, correct, top5)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 65, 100])
def test_every_token_is_predicted_once(model: Llama, length: int) -> None:
    stream = stream_of(length)
    found, wanted = score(model, stream), by_hand(model, stream)
    assert (found.tokens, found.correct, found.correct_top5) == (wanted.tokens, wanted.correct, wanted.correct_top5)
    assert found.nats == pytest.approx(wanted.nats, rel=1e-5)
    assert found.tokens == sum(token != BOS for token in stream.read(1, length))
    assert model.training  # dropout was off while scoring, and the mode is as it was


def test_batch_size_does_not_move_the_figures(model: Llama) -> None:
    scores = [score(model, stream_of(200), batch_size) for batch_size in (1, 3, 25, 1000)]
    assert len({(one.tokens, one.correct, one.correct_top5) for one in scores}) == 1
    assert max(one.nats for one in scores) - min(one.nats for one in scores) < 1e-3
    assert score(model, stream_of(200), 3) == scores[1]  # and the same call gives the same bits


@pytest.mark.parametrize("length", [0, 1])
def test_a_stream_without_a_target_scores_nothing(model: Llama, length: int) -> None:
    found = score(model, TokenStream.of_documents([np.zeros(length, np.uint32)], [0]))
    assert found == TokenScore()
    assert math.isnan(found.loss) and math.isnan(bits_per_byte(found, 0))


def test_logits_are_made_in_pieces(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score(model, stream_of(100))
    monkeypatch.setattr(language_modelling, "CPU_LOGITS", 170)  # three rows of 50
    assert score(model, stream_of(100)).nats == pytest.approx(whole.nats, rel=1e-6)


def test_bfloat16_weights_stay_and_figures_are_near(model: Llama) -> None:
    stream = stream_of(100)
    rough = score_stream(model, stream, seq_len=8, batch_size=4, bos_id=BOS, device=CPU, dtype=torch.bfloat16)
    assert rough.loss == pytest.approx(score(model, stream).loss, rel=0.02)
    assert model.head_weight.dtype == torch.float32


def test_equal_logits_rank_by_id() -> None:
    head = torch.zeros(10, 4)
    nats, ranks = token_scores(torch.ones(3, 4), head, torch.tensor([0, 4, 7]))
    assert ranks[:2].tolist() == [0, 4] and ranks[2] >= 5
    assert nats.tolist() == pytest.approx([math.log(10)] * 3)


def test_a_softcap_bounds_the_logits_that_are_scored() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(6, 4, generator=generator), torch.randn(10, 4, generator=generator)
    targets = torch.arange(6)
    capped = 0.5 * torch.tanh(hidden @ head.t() / 0.5)
    nats, ranks = token_scores(hidden, head, targets, softcap=0.5)
    assert torch.allclose(nats, torch.nn.functional.cross_entropy(capped, targets, reduction="none"), atol=1e-6)
    best = (capped > capped.gather(1, targets[:, None])).sum(1)
    assert torch.equal(ranks, best)


def test_check_and_advance_are_called(model: Llama) -> None:
    done: list[int] = []
    calls = []
    score_stream(
        model,
        stream_of(100),
        seq_len=8,
        batch_size=4,
        bos_id=BOS,
        device=CPU,
        dtype=torch.float32,
        check=lambda: calls.append(1),
        advance=done.append,
    )
    assert sum(done) == 99 and len(calls) == len(done)


def test_a_check_that_raises_leaves_the_model_as_it_was(model: Llama) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_stream(
            model,
            stream_of(100),
            seq_len=8,
            batch_size=4,
            bos_id=BOS,
            device=CPU,
            dtype=torch.float32,
            check=stop,
        )
    assert model.training


def test_figures_of_a_score() -> None:
    total = TokenScore(4.0, 4, 1, 3)
    assert total.loss == 1.0 and total.perplexity == pytest.approx(math.e)
    assert total.accuracy == 0.25 and total.top5_accuracy == 0.75
    assert bits_per_byte(total, 4) == pytest.approx(1 / math.log(2))
    assert TokenScore(1e6, 1).perplexity == math.inf


@pytest.mark.parametrize("softcap", [0.0, 5.0])
def test_the_native_form_scores_as_the_plain_one(softcap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(size, 16, generator=generator).bfloat16() for size in (200, 300))
    head[7] = head[3]  # equal logits
    targets = torch.randint(0, 300, (200,), generator=generator)
    targets[:40] = (hidden[:40] @ head.t()).argmax(1)
    targets[40:60] = 7
    assert native(hidden)
    mine = language_modelling.token_figures(hidden, head, targets, softcap, confident=True)
    monkeypatch.setattr(language_modelling, "native", lambda logits: False)
    plain = language_modelling.token_figures(hidden, head, targets, softcap, confident=True)
    assert torch.allclose(mine.nats, plain.nats, atol=1e-5)
    assert mine.confidence is not None and plain.confidence is not None
    assert torch.allclose(mine.confidence, plain.confidence, rtol=1e-5)
    assert torch.equal(mine.ranks.clamp(max=5), plain.ranks.clamp(max=5))  # beyond the fifth, ties are not looked at
    assert (mine.ranks == 0).sum() >= 40
