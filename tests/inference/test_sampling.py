from __future__ import annotations

import pytest
import torch

from gptcli.errors import ArtifactError, SpecError
from gptcli.inference.sampling import Sampling, sample, truncate

PROBABILITIES = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (Sampling(), 5),
        (Sampling(top_k=2), 2),
        (Sampling(top_k=9), 5),
        (Sampling(top_p=0.5), 1),
        (Sampling(top_p=0.51), 2),
        (Sampling(top_p=0.0001), 1),
        (Sampling(min_p=0.3), 3),
        (Sampling(min_p=1.0), 1),
        (Sampling(top_k=3, top_p=0.8), 2),  # of what top_k left, 0.82 is the first two's
    ],
)
def test_truncation_keeps_the_likeliest(settings, kept):
    values, ids = truncate(PROBABILITIES[0], settings)
    assert ids.tolist() == list(range(kept))
    assert torch.equal(values, PROBABILITIES[0, :kept])


def test_order_in_the_vocabulary_does_not_matter():
    shuffled = PROBABILITIES[0, [3, 0, 4, 2, 1]]
    assert truncate(shuffled, Sampling(top_p=0.6))[1].tolist() == [1, 4]


def test_ties_are_cut_as_if_all_were_sorted():
    values = torch.randint(1, 9, (3000,), generator=torch.Generator().manual_seed(3)).float()
    values /= values.sum()
    for top_p in (0.01, 0.1, 0.5, 0.999):
        ordered, order = values.sort(descending=True, stable=True)
        stay = order[ordered.cumsum(0) - ordered < top_p * values.sum()]
        assert truncate(values, Sampling(top_p=top_p))[1].tolist() == sorted(stay.tolist())
    assert len(truncate(values, Sampling(top_k=10))[1]) == int((values == values.max()).sum())


def test_draws_follow_the_probabilities():
    logits = PROBABILITIES.log().expand(4000, -1)
    tokens = sample(logits, [[]] * 4000, [Sampling(temperature=1.0, seed=seed) for seed in range(4000)])
    shares = torch.bincount(torch.tensor(tokens), minlength=5) / 4000
    assert (shares - PROBABILITIES[0]).abs().max() < 0.03
    places = [[0] * place for place in range(4000)]
    cold = sample(logits, places, [Sampling(temperature=0.5)] * 4000)
    squared = PROBABILITIES[0] ** 2 / (PROBABILITIES[0] ** 2).sum()
    assert (torch.bincount(torch.tensor(cold), minlength=5) / 4000 - squared).abs().max() < 0.03


def test_repetition_penalty_weakens_what_is_there_whatever_its_sign():
    logits = torch.tensor([[2.0, 1.9, -1.0], [-1.0, -1.1, -9.0]])
    plain = sample(logits, [[0, 0], [0]], [Sampling(temperature=0.0)] * 2)
    penalised = sample(logits, [[0, 0], [0]], [Sampling(temperature=0.0, repetition_penalty=1.3)] * 2)
    assert (plain, penalised) == ([0, 0], [1, 1])


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2},
        {"max_tokens": 0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(SpecError, match=next(iter(bad))):
        Sampling(**bad)


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 1e-300, 5e-324])
def test_however_cold_the_likeliest_is_drawn(temperature):
    logits = torch.tensor([[3.0, 9.0, -2.0, 8.9, 0.0], [-7.0, -5.0, -9.0, -80.0, -5.5]])
    for top_p in (1.0, 0.9):
        cold = [Sampling(temperature=temperature, top_p=top_p, seed=seed) for seed in (1, 2)]
        assert sample(logits, [[0], [0]], cold) == [1, 1]


def test_hot_draws_are_even():
    logits = torch.tensor([[50.0, 0.0, -50.0]]).expand(900, -1)
    tokens = sample(logits, [[]] * 900, [Sampling(temperature=1e300, seed=seed) for seed in range(900)])
    assert min(tokens.count(token) for token in range(3)) > 230


def test_a_tiny_penalty_draws_what_is_there():
    settings = Sampling(temperature=1.0, repetition_penalty=1e-45)
    assert sample(torch.tensor([[1.0, 2.0, 3.0]]), [[0]], [settings]) == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_logits_that_are_no_numbers_are_refused(broken, dtype):
    logits = torch.zeros(2, 5, dtype=dtype)
    logits[1] = broken
    for temperature in (0.0, 0.8):
        with pytest.raises(ArtifactError, match="no finite numbers") as caught:
            sample(logits, [[0], [0]], [Sampling(temperature=temperature)] * 2)
        assert "checkpoint verify" in caught.value.hint


def test_a_token_that_can_not_be_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(50, -1)
    assert set(sample(logits, [[]] * 50, [Sampling(seed=seed) for seed in range(50)])) == {1}
