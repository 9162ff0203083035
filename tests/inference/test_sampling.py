from __future__ import annotations

import pytest
import torch

from gptcli.errors import SpecError
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
    left = truncate(PROBABILITIES, settings)
    assert (left[0] > 0).tolist() == [i < kept for i in range(5)]
    assert left.sum().item() == pytest.approx(1.0)
    assert (left[0, :kept] / PROBABILITIES[0, :kept]).std(correction=0).item() == pytest.approx(0.0, abs=1e-6)


def test_order_in_the_vocabulary_does_not_matter():
    shuffled = PROBABILITIES[:, [3, 0, 4, 2, 1]]
    assert (truncate(shuffled, Sampling(top_p=0.6)) > 0).tolist() == [[False, True, False, False, True]]


def test_draws_follow_the_probabilities():
    logits = PROBABILITIES.log().expand(20000, -1)
    tokens = sample(logits, [[]] * 20000, Sampling(temperature=1.0), torch.Generator().manual_seed(0))
    shares = torch.bincount(torch.tensor(tokens), minlength=5) / 20000
    assert (shares - PROBABILITIES[0]).abs().max() < 0.015
    cold = sample(logits, [[]] * 20000, Sampling(temperature=0.5), torch.Generator().manual_seed(0))
    squared = PROBABILITIES[0] ** 2 / (PROBABILITIES[0] ** 2).sum()
    assert (torch.bincount(torch.tensor(cold), minlength=5) / 20000 - squared).abs().max() < 0.015


def test_repetition_penalty_weakens_what_is_there_whatever_its_sign():
    logits = torch.tensor([[2.0, 1.9, -1.0], [-1.0, -1.1, -9.0]])
    plain = sample(logits, [[0, 0], [0]], Sampling(temperature=0.0), torch.Generator())
    penalised = sample(logits, [[0, 0], [0]], Sampling(temperature=0.0, repetition_penalty=1.3), torch.Generator())
    assert (plain, penalised) == ([0, 0], [1, 1])


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"min_p": 2}, {"max_tokens": 0}],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(SpecError, match=next(iter(bad))):
        Sampling(**bad)
