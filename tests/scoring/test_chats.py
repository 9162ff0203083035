from __future__ import annotations

import pytest
import torch

from gptcli.models.config import LlamaConfig
from gptcli.models.llama import Llama
from gptcli.scoring.chats import RenderedChat, score_chats
from gptcli.scoring.language_modelling import TokenScore

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig("qwen3", 50, 16, 32, 2, 2, 1, 8, 64), dropout=0.5).train()


def chats(count: int) -> list[RenderedChat]:
    generator = torch.Generator().manual_seed(count)
    made = []
    for number in range(count):
        length = 3 + (number * 7) % 30
        ids = torch.randint(0, 50, (length,), generator=generator).tolist()
        made.append((ids, [at >= length // 2 for at in range(length)]))
    return made


def score(model: Llama, made: list[RenderedChat], batch_tokens: int) -> TokenScore:
    return score_chats(model, made, batch_tokens=batch_tokens, device=CPU, dtype=torch.float32)


def test_each_chat_is_scored_alone_on_what_carries_loss(model: Llama) -> None:
    made = chats(12)
    nats, tokens, correct, top5 = 0.0, 0, 0, 0
    model.eval()
    for ids, loss in made:
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0].double().log_softmax(-1)
        for at in range(1, len(ids)):
            if loss[at]:
                row = logits[at - 1]
                rank = int((row > row[ids[at]]).sum())
                nats, tokens = nats - float(row[ids[at]]), tokens + 1
                correct, top5 = correct + int(rank == 0), top5 + int(rank < 5)
    model.train()
    wanted = TokenScore(nats, tokens, correct, top5)
    for batch_tokens in (1, 64, 10_000):
        found = score(model, made, batch_tokens)
        assert (found.tokens, found.correct, found.correct_top5) == (
            wanted.tokens,
            wanted.correct,
            wanted.correct_top5,
        )
        assert found.nats == pytest.approx(wanted.nats, rel=1e-5)
    assert model.training


def test_order_does_not_matter(model: Llama) -> None:
    made = chats(12)
    assert score(model, made, 64).nats == pytest.approx(score(model, made[::-1], 64).nats, rel=1e-6)


def test_chats_without_anything_to_predict_score_nothing(model: Llama) -> None:
    assert score(model, [], 64) == TokenScore()
    assert score(model, [([1, 2], [True, False])], 64) == TokenScore()
