"""Many prompts at once: the same texts as each alone, whatever their neighbours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from gptcli.errors import SpecError
from gptcli.inference.batch import Generated, generate_batch
from gptcli.inference.sampling import Sampling
from gptcli.models.config import Gpt2Config, LlamaConfig
from gptcli.models.family import CausalLM, build_model
from gptcli.models.init import init_weights
from gptcli.models.load import load_model
from gptcli.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0.0, max_tokens=24)
CONFIGS = {
    "llama": LlamaConfig("llama", 512, 32, 48, 3, 4, 2, 8, 96, tie_word_embeddings=True),
    "qwen3": LlamaConfig("qwen3", 512, 32, 40, 2, 4, 1, 16, 96, attention_bias=True),
    "gpt2": Gpt2Config(512, 96, 32, 2, 4),
}
DRAW = torch.Generator().manual_seed(5)
PROMPTS = [
    torch.randint(3, 512, (length,), generator=DRAW).tolist() for length in (1, 95, 7, 2, 60, 3, 1, 40, 13, 20, 5)
]


@pytest.fixture(scope="module")
def tokenizer(data_dir: Path) -> Tokenizer:
    return Tokenizer.load(data_dir / "stories260K-hf")


@pytest.fixture(scope="module")
def stories(data_dir: Path) -> CausalLM:
    return load_model(data_dir / "stories260K-hf")


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> CausalLM:
    return wild(CONFIGS[request.param])


def wild(config: LlamaConfig | Gpt2Config) -> CausalLM:
    """A model whose tokens depend on all before them."""
    model = build_model(config).eval()
    generator = torch.Generator().manual_seed(1)
    init_weights(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.4, generator=generator)
            else:
                parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.1, generator=generator))
    return model


@torch.no_grad()
def uncached(model: CausalLM, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Greedy tokens and their log-probabilities, the whole text read again for each."""
    ids, logprobs = list(prompt), []
    for _ in range(min(count, model.config.max_position_embeddings - len(prompt))):
        nats = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        ids.append(int(nats.argmax()))
        logprobs.append(float(nats.max()))
    return ids[len(prompt) :], logprobs


@pytest.mark.parametrize("batch_size", [1, 3, 0])
def test_greedy_texts_are_those_without_a_cache(model: CausalLM, tokenizer: Tokenizer, batch_size: int) -> None:
    got = generate_batch(model, tokenizer, PROMPTS, GREEDY, stop_ids=(), batch_size=batch_size)
    for prompt, found in zip(PROMPTS, got, strict=True):
        ids, logprobs = uncached(model, prompt, GREEDY.max_tokens)
        assert list(found.ids) == ids
        assert found.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert found.ended == ("max_tokens" if len(ids) == GREEDY.max_tokens else "positions")


def test_a_softcap_is_kept(tokenizer: Tokenizer) -> None:
    model = wild(dataclasses.replace(CONFIGS["llama"], final_logit_softcapping=2.0))
    got = generate_batch(model, tokenizer, PROMPTS[:4], GREEDY, stop_ids=())
    for prompt, found in zip(PROMPTS, got, strict=False):
        assert found.logprobs == pytest.approx(uncached(model, prompt, GREEDY.max_tokens)[1], abs=1e-4)


def test_stop_ids_end_a_row_and_another_takes_its_place(model: CausalLM, tokenizer: Tokenizer) -> None:
    free = [uncached(model, prompt, 24)[0] for prompt in PROMPTS]
    stops = {ids[len(ids) // 2] for ids in free[::2]}
    finished: list[int] = []
    got = generate_batch(model, tokenizer, PROMPTS, GREEDY, stop_ids=stops, batch_size=3, advance=finished.append)
    for ids, found in zip(free, got, strict=True):
        first = next((place for place, token in enumerate(ids) if token in stops), None)
        assert list(found.ids) == ids[:first] and len(found.logprobs) == len(found.ids)
        assert (found.ended == "stop_id") == (first is not None)
    assert finished == [1] * len(PROMPTS)


def test_a_draw_is_a_function_of_seed_and_position(model: CausalLM, tokenizer: Tokenizer) -> None:
    settings = [
        Sampling(temperature=1.2, top_k=k, top_p=p, min_p=m, repetition_penalty=r, max_tokens=20, seed=i)
        for i, (k, p, m, r) in enumerate([(0, 1, 0, 1), (20, 1, 0, 1), (0, 0.8, 0, 1.3), (50, 0.9, 0.02, 1)] * 3)
    ][: len(PROMPTS)]
    together = generate_batch(model, tokenizer, PROMPTS, settings, stop_ids=())
    backwards = generate_batch(model, tokenizer, PROMPTS[::-1], settings[::-1], stop_ids=(), batch_size=2)
    assert [found.ids for found in together] == [found.ids for found in backwards[::-1]]
    for prompt, own, found in zip(PROMPTS, settings, together, strict=True):
        assert generate_batch(model, tokenizer, [prompt], own, stop_ids=())[0].ids == found.ids
    seeds = [dataclasses.replace(settings[0], seed=seed) for seed in range(8)]
    assert len({found.ids for found in generate_batch(model, tokenizer, [[7]] * 8, seeds, stop_ids=())}) == 8


def test_a_shared_beginning_is_read_once(
    model: CausalLM, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptcli.inference import batch

    read: list[int] = []
    opened = batch.open_reader

    def watched(*arguments: object) -> object:
        reader = opened(*arguments)  # type: ignore[arg-type]
        inner = reader.read
        reader.read = lambda slots, rows: (read.append(sum(map(len, rows))), inner(slots, rows))[1]  # type: ignore
        return reader

    monkeypatch.setattr(batch, "open_reader", watched)
    shots, half = PROMPTS[4], PROMPTS[9]
    prompts = [[*shots, *half, n] for n in range(5)] + [[*shots, n, n] for n in range(4)] + [PROMPTS[2]]
    settings = dataclasses.replace(GREEDY, max_tokens=1)
    for batch_size in (0, 2):
        read.clear()
        got = generate_batch(model, tokenizer, prompts, settings, stop_ids=(), batch_size=batch_size)
        assert sum(read) == len(shots) + len(half) + 5 + 4 * 2 + len(PROMPTS[2])
        assert [list(found.ids) for found in got] == [uncached(model, prompt, 1)[0] for prompt in prompts]


def test_a_stop_string_is_cut_off_wherever_tokens_end(stories: CausalLM, tokenizer: Tokenizer) -> None:
    prompt = [1, *tokenizer.encode("Once upon a time")]
    settings = dataclasses.replace(GREEDY, max_tokens=60)

    def told(*stop: str) -> Generated:
        return generate_batch(stories, tokenizer, [prompt], settings, stop_ids=(), stop=[stop])[0]

    whole = told()
    assert whole.ended == "max_tokens" and whole.text.startswith(", there was a little girl named Lily.")
    assert tokenizer.decode([*prompt, *whole.ids]) == "Once upon a time" + whole.text
    for stop in ("girl", "rl na", " named Li", ",", "e girl named Lily. She", ". S"):
        cut = told("never said", stop)
        assert cut.text == whole.text[: whole.text.index(stop)] and cut.ended == "stop_text"
        assert cut.ids == whole.ids[: len(cut.ids)] and len(cut.logprobs) == len(cut.ids)
        assert stop in tokenizer.decode([*prompt, *cut.ids]) and stop not in tokenizer.decode([*prompt, *cut.ids[:-1]])
    assert told("girl", "little").text == told("little").text
    assert told("no such text") == whole


def test_each_prompt_has_its_own_stops(stories: CausalLM, tokenizer: Tokenizer) -> None:
    prompt = [1, *tokenizer.encode("Once upon a time")]
    got = generate_batch(stories, tokenizer, [prompt] * 3, GREEDY, stop_ids=(), stop=[["girl"], [], ["little"]])
    assert [found.ended for found in got] == ["stop_text", "max_tokens", "stop_text"]
    assert got[0].text == ", there was a little " and got[2].text == ", there was a "


def test_no_prompts_bad_prompts_and_a_check_that_raises(stories: CausalLM, tokenizer: Tokenizer) -> None:
    assert generate_batch(stories, tokenizer, [], GREEDY, stop_ids=()) == []
    with pytest.raises(SpecError, match="prompt 1 is empty"):
        generate_batch(stories, tokenizer, [[1], []], GREEDY, stop_ids=())
    with pytest.raises(SpecError, match="prompt 0 has 512 tokens"):
        generate_batch(stories, tokenizer, [[1] * 512], GREEDY, stop_ids=())
    for strange in (-1, 512):
        with pytest.raises(SpecError, match=rf"prompt 1 holds the id {strange}, and the model's ids are 0 … 511"):
            generate_batch(stories, tokenizer, [[1], [1, strange, 3]], GREEDY, stop_ids=())
    with pytest.raises(SpecError, match="empty stop string"):
        generate_batch(stories, tokenizer, [[1]], GREEDY, stop_ids=(), stop=[["end", ""]])
    with pytest.raises(SpecError, match="2 prompts have 1 settings"):
        generate_batch(stories, tokenizer, [[1], [2]], [GREEDY], stop_ids=())

    def stopped() -> None:
        raise InterruptedError

    stories.train()
    with pytest.raises(InterruptedError):
        generate_batch(stories, tokenizer, [[1]], GREEDY, stop_ids=(), check=stopped)
    assert stories.training
    stories.eval()
