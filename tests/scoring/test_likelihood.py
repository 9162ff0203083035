from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.errors import StoppedError
from gptcli.models.family import CausalLM, build_model, sized_config
from gptcli.models.load import load_model
from gptcli.scoring import likelihood
from gptcli.scoring.engine import Engine
from gptcli.scoring.likelihood import score_requests
from gptcli.scoring.prefix_trie import Query, plan_rows
from gptcli.scoring.requests import Completion, CompletionAnswer, Likelihood, LikelihoodAnswer
from gptcli.tokenizer import Tokenizer

CPU = torch.device("cpu")
LIMIT = 48


def tiny(architecture: str, **more: Any) -> CausalLM:
    torch.manual_seed(3)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_layers": 3, "num_heads": 4}
    ids = {"bos_id": 1, "eos_id": 2, "pad_id": None}
    shape = {"num_kv_heads": 2, "head_dim": 8, "max_positions": LIMIT, "rope_theta": 1e4, "tie_embeddings": True}
    model = build_model(sized_config(architecture, **sizes, **shape, **ids, **more))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def drawn(count: int = 120, seed: int = 0) -> list[Likelihood]:
    """Requests that share beginnings, of few ids, some longer than the model, some twice."""
    draw = random.Random(seed)
    stems = [tuple(draw.randrange(3, 61) for _ in range(draw.randint(1, 40))) for _ in range(8)]
    out = []
    for _ in range(count):
        stem = draw.choice(stems)
        context = (1, *stem[: draw.randint(0, len(stem))])
        out.append(Likelihood(context, tuple(draw.randrange(3, 9) for _ in range(draw.randint(1, 14)))))
    return [*out, *out[:5]]


def alone(model: CausalLM, request: Likelihood, limit: int) -> tuple[float, bool]:
    """One request by itself: the whole sequence through the model, plain causal attention, fp32."""
    ids = torch.tensor([(*request.context, *request.continuation)[-(limit + 1) :]])
    predicted = min(len(request.continuation), ids.shape[1] - 1)
    with torch.inference_mode():
        logits = model(ids[:, :-1])[0, -predicted:].float()
    targets = ids[0, -predicted:]
    picked = logits.log_softmax(-1).gather(1, targets[:, None])
    return math.fsum(picked[:, 0].tolist()), bool((logits.argmax(-1) == targets).all())


def score(model: CausalLM, requests: list[Likelihood], **more: Any) -> list[LikelihoodAnswer]:
    return score_requests(model, requests, device=CPU, dtype=more.pop("dtype", torch.float32), **more)


def assert_same(one: list[LikelihoodAnswer], other: list[LikelihoodAnswer]) -> None:
    for left, right in zip(one, other, strict=True):
        assert abs(left.logprob - right.logprob) < 1e-4
        assert (left.greedy, left.tokens, left.cut) == (right.greedy, right.tokens, right.cut)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_as_each_request_alone_whatever_the_batch(architecture: str) -> None:
    model, requests = tiny(architecture), drawn()
    found = score(model, requests)
    for request, answer in zip(requests, found, strict=True):
        logprob, greedy = alone(model, request, LIMIT)
        assert abs(answer.logprob - logprob) < 1e-4
        assert answer.greedy == greedy
    for batch_size in (1, 7, 64):
        assert_same(found, score(model, requests, batch_size=batch_size))
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)
    shuffled = score(model, [requests[number] for number in order], batch_size=7)
    assert_same([found[number] for number in order], shuffled)
    assert_same(found[:9], score(model, requests[:9]))


def test_a_softcap_bounds_the_logits() -> None:
    model, requests = tiny("llama", logit_softcap=2.0), drawn(30)
    for request, answer in zip(requests, score(model, requests), strict=True):
        assert abs(answer.logprob - alone(model, request, LIMIT)[0]) < 1e-4


def test_greedy_needs_every_token_to_be_the_likeliest() -> None:
    model = tiny("llama")
    ids = [1, 5, 9]
    with torch.inference_mode():
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    wrong = (ids[-1] + 1) % 61
    found = score(model, [Likelihood((1, 5, 9), tuple(ids[3:])), Likelihood((1, 5, 9), (*ids[3:-1], wrong))])
    assert [answer.greedy for answer in found] == [True, False]


def test_what_does_not_fit_is_cut_from_the_left_and_counted() -> None:
    model = tiny("gpt2")
    fits = Likelihood((1, *range(3, 3 + LIMIT - 4)), (7, 8, 9, 10))  # LIMIT + 1 ids: the last is only predicted
    longer = Likelihood((1, 2, 3, *fits.context), fits.continuation)
    too_long = Likelihood((1,), tuple(3 + number % 50 for number in range(LIMIT + 6)))
    found = score(model, [fits, longer, too_long])
    assert [(answer.tokens, answer.cut) for answer in found] == [(4, 0), (4, 3), (LIMIT, 6)]
    assert found[0].logprob == pytest.approx(found[1].logprob, abs=1e-4)
    for request, answer in zip((fits, longer, too_long), found, strict=True):
        assert abs(answer.logprob - alone(model, request, LIMIT)[0]) < 1e-4


def test_processes_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = tiny("qwen3"), drawn()
    told: list[int] = []
    found = score(model, requests, batch_size=2, advance=told.append)
    assert sum(told) == len(requests)
    monkeypatch.setattr(likelihood._Work, "_processes", lambda *_: 2)
    told.clear()
    assert score(model, requests, batch_size=2, advance=told.append) == found
    assert sum(told) == len(requests)

    def stop() -> None:
        raise StoppedError("stopped", "run it again")

    with pytest.raises(StoppedError):
        score(model, requests, batch_size=2, check=stop)


def test_bf16_is_near_fp32_and_leaves_the_model_as_it_was() -> None:
    model, requests = tiny("llama"), drawn(40)
    model.train(True)
    exact, rough = score(model, requests), score(model, requests, dtype=torch.bfloat16)
    assert model.training
    for left, right in zip(exact, rough, strict=True):
        assert abs(left.logprob - right.logprob) < 0.1 * left.tokens


def test_no_requests() -> None:
    assert score(tiny("llama"), []) == []


@pytest.mark.parametrize("row_nodes", [3, 10, 60])
def test_rows_are_tries_and_ask_every_prediction_once(row_nodes: int) -> None:
    draw = random.Random(row_nodes)
    queries = []
    for _ in range(150):
        length = draw.randint(2, 9)
        queries.append(Query(tuple(draw.randrange(3) for _ in range(length)), draw.randint(1, length - 1)))
    asked: dict[int, list[tuple[int, ...]]] = {}
    for row in plan_rows(queries, row_nodes, part_tokens=200):
        paths = []
        for place in range(len(row.ids)):
            seen = [other for other in range(place + 1) if other <= place <= row.last[other]]
            assert row.positions[seen].tolist() == list(range(len(seen)))
            paths.append(tuple(row.ids[seen].tolist()))
        assert len(set(paths)) == len(paths)  # no prefix stands twice
        for node, target, query in zip(row.nodes, row.targets, row.queries, strict=True):
            asked.setdefault(int(query), []).append((*paths[node], int(target)))
    for number, query in enumerate(queries):
        assert asked[number] == [query.ids[: end + 1] for end in range(query.first, len(query.ids))]


def test_a_long_prefix_is_not_computed_again_for_every_row() -> None:
    shared = tuple(range(200))
    queries = [Query((*shared, 300 + number, 7, 8), 201) for number in range(500)]
    rows = list(plan_rows(queries, 64))
    assert sum(len(row.ids) for row in rows) < 1.4 * (200 + 500 * 2)


def test_trained_model_by_engine(data_dir: Path) -> None:
    model, tokenizer = load_model(data_dir / "stories260K-hf"), Tokenizer.load(data_dir / "stories260K-hf")
    lines = (data_dir / "blimp-dev" / "anaphor_number_agreement.jsonl").read_text().splitlines()[:60]
    texts = [json.loads(line)[key] for line in lines for key in ("sentence_good", "sentence_bad")]
    requests = [Likelihood((1,), tuple(tokenizer.encode(text))) for text in texts]
    story = (1, *tokenizer.encode("Once upon a time"))
    ends = frozenset({tokenizer.eos_id})
    engines = [
        Engine(model, tokenizer, device=CPU, dtype=torch.float32, batch_size=size, stop_ids=ends) for size in (1, 7, 64)
    ]
    found = [engine.answer([Completion(story, 24, (".",)), *requests]) for engine in engines]
    for answers in found:
        first = answers[0]
        assert isinstance(first, CompletionAnswer)
        assert first == found[0][0]
        assert first.text.startswith(", there was a little girl named")
        assert_same([each for each in answers if isinstance(each, LikelihoodAnswer)], score(model, requests))
    for request, answer in list(zip(requests, score(model, requests), strict=True))[:20]:
        assert abs(answer.logprob - alone(model, request, 512)[0]) < 1e-4
