"""From logits to the next token: penalties, truncation, a seeded draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptcli.errors import SpecError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    `temperature` 0 takes the likeliest token; `top_k` keeps that many tokens (0: all), `top_p` the smallest set with
    that much probability (Holtzman et al. 2020), `min_p` those with at least that share of the likeliest one's
    (Nguyen et al. 2024), in this order. `repetition_penalty` divides the positive and multiplies the negative
    logits of tokens already there (Keskar et al. 2019). `seed` makes the draw repeatable.
    Raises SpecError for a value out of range.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        demands = (
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
        )
        for name, holds, demand in demands:
            if not holds:
                raise SpecError(f"{name}={getattr(self, name)} must be {demand}")


def sample(logits: Tensor, seen: Sequence[Sequence[int]], settings: Sampling, generator: torch.Generator) -> list[int]:
    """One token id a sequence from logits [B,V]; `seen` [B][…] are the ids already in each sequence.

    The draw is made on the CPU in fp32, so that a seed means the same on every device.
    """
    scores = logits.detach().float().cpu()
    if settings.repetition_penalty != 1.0:
        scores = _penalised(scores, seen, settings.repetition_penalty)
    if settings.temperature == 0.0:
        return scores.argmax(dim=-1).tolist()
    probabilities = truncate(torch.softmax(scores / settings.temperature, dim=-1), settings)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1).tolist()


def truncate(probabilities: Tensor, settings: Sampling) -> Tensor:
    """Zero the tokens that top_k, top_p and min_p cut from [B,V], each on what the one before left, renormalised."""
    if 0 < settings.top_k < probabilities.shape[-1]:
        least = probabilities.topk(settings.top_k, dim=-1).values[:, -1:]
        probabilities = _renormalised(probabilities.masked_fill(probabilities < least, 0.0))
    if settings.top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        # A token stays while the ones before it have not reached top_p; so the first always stays.
        outside = ordered.cumsum(-1) - ordered >= settings.top_p
        cut = torch.zeros_like(outside).scatter(-1, order, outside)
        probabilities = _renormalised(probabilities.masked_fill(cut, 0.0))
    if settings.min_p > 0.0:
        least = settings.min_p * probabilities.amax(dim=-1, keepdim=True)
        probabilities = _renormalised(probabilities.masked_fill(probabilities < least, 0.0))
    return probabilities


def _renormalised(probabilities: Tensor) -> Tensor:
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def _penalised(scores: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    out = scores.clone()
    for row, ids in zip(out, seen, strict=True):
        there = torch.tensor(sorted(set(ids)), dtype=torch.int64)
        row[there] = torch.where(row[there] > 0, row[there] / penalty, row[there] * penalty)
    return out
