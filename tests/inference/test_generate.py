from __future__ import annotations

import pytest
import torch

from gptcli.errors import SpecError
from gptcli.inference.cache import Cache
from gptcli.inference.generate import Session, generate
from gptcli.inference.reader import read
from gptcli.inference.sampling import Sampling
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama, LlamaConfig
from gptcli.models.load import load_model

STORY = [403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267]


@pytest.fixture(params=["qwen3", "llama"])
def model(request) -> Llama:
    config = LlamaConfig(request.param, 61, 32, 48, 3, 4, 2, 8, 300)
    model = Llama(config).eval()
    generator = torch.Generator().manual_seed(1)
    init_weights(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.4, generator=generator)
    return model


@torch.no_grad()
def uncached(model: Llama, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0.0, max_tokens=count)


def test_cached_equals_uncached(model):
    prompt = [1, 17, 9, 33]
    want = uncached(model, prompt, 270)  # past one doubling of the cache
    assert list(generate(model, prompt, greedy(270))) == want


def test_rows_of_unequal_lengths_read_like_each_alone(model):
    prompts = [[1, 17, 9, 33, 5, 6, 7], [1], [2, 40, 3]]
    cache, rows, got = Cache(model.config, batch=3), prompts, [[], [], []]
    for _ in range(40):
        tokens = read(model, cache, rows).argmax(-1).tolist()
        rows = [[token] for token in tokens]
        got = [[*ids, token] for ids, token in zip(got, tokens, strict=True)]
    assert got == [uncached(model, prompt, 40) for prompt in prompts]


def test_a_session_reads_only_what_is_new(model):
    session, read = Session(model), []
    inner = session.reader.read
    session.reader.read = lambda slots, rows: (read.append(len(rows[0])), inner(slots, rows))[1]  # type: ignore
    first = [1, 4, 5, 6, 7]
    answer = list(session.generate(first, greedy(6)))
    second = [*first, *answer, 9, 8]
    read.clear()
    got = list(session.generate(second, greedy(6)))
    assert read[0] == 3  # the two new ids, and the last answered one, which nothing had followed
    other = [1, 4, 50, 2]
    read.clear()
    got_other = list(session.generate(other, greedy(6)))
    assert read[0] == 2
    assert got == uncached(model, second, 6)
    assert got_other == uncached(model, other, 6)


def test_generation_ends_at_a_stop_id_at_max_tokens_and_at_the_last_position(model):
    free = uncached(model, [3, 4], 20)
    stop = free[7]
    assert list(generate(model, [3, 4], greedy(20), {stop})) == free[: free.index(stop)]
    assert len(list(generate(model, [3, 4], greedy(5)))) == 5
    assert len(list(generate(model, [3] * 290, greedy(50)))) == 10


def test_bad_prompts_are_refused(model):
    for prompt in ([], [1] * 300, [1, model.config.vocab_size], [-1]):
        with pytest.raises(SpecError):
            generate(model, prompt, greedy(1))


def test_a_seed_repeats_and_another_differs(model):
    draws = [list(generate(model, [1], Sampling(temperature=1.5, max_tokens=30, seed=seed))) for seed in (7, 7, 8)]
    assert draws[0] == draws[1] != draws[2]


def test_a_trained_llama_tells_its_story(data_dir):
    model = load_model(data_dir / "stories260K-hf")
    assert list(generate(model, [1], greedy(len(STORY)))) == STORY
    assert uncached(model, [1], len(STORY)) == STORY


def test_a_model_in_training_generates_without_dropout_and_trains_on():
    config = LlamaConfig("qwen3", 61, 32, 48, 2, 4, 2, 8, 64)
    model = Llama(config, dropout=0.5).train()
    init_weights(model, torch.Generator().manual_seed(1))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        first, second = (generate(model, [1, 5], greedy(20), {3}) for _ in range(2))
    assert first == second and first
    assert all(module.training for module in model.modules())
    with pytest.raises(SpecError):
        generate(model, [], greedy(1))
    assert model.training
    model(torch.tensor([[1, 2]])).sum().backward()  # nothing of inference mode is left in it
