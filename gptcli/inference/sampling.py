"""From logits to the next token: penalties, truncation, a seeded draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptcli.errors import ArtifactError, SpecError

FIRST_LOOK = 256  # the likeliest tokens, among which top_p's are looked for before the whole vocabulary is sorted
_WORD = (1 << 64) - 1


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
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0 and finite"),
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
        )
        for name, holds, demand in demands:
            if not holds:
                raise SpecError(f"{name}={getattr(self, name)} must be {demand}")

    @property
    def plain(self) -> bool:
        """Whether the next token is the model's own likeliest, which takes no probabilities."""
        return self.temperature == 0.0 and self.repetition_penalty == 1.0


def sample(logits: Tensor, seen: Sequence[Sequence[int]], settings: Sequence[Sampling]) -> list[int]:
    """One token id a sequence from logits [B,V]; `seen` [B][…] are the ids already in each sequence, `settings` [B].

    A row's draw is a function of its logits, its seed and how many ids it has: its neighbours don't matter. It is
    made on the CPU in fp32, so that a seed means the same on every device. Raises ArtifactError for logits that are no
    numbers.
    """
    logits = logits.detach()
    likeliest = _likeliest(logits)
    for i, own in enumerate(settings):
        if not own.plain:
            likeliest[i] = _drawn(logits[i].float().cpu(), seen[i], own)
    return likeliest


def _likeliest(logits: Tensor) -> list[int]:
    """The id of each row's largest logit."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:  # without torch's threads
        numbers = logits.numpy()
        ids: list[int] = numbers.argmax(axis=-1).tolist()
        largest = [float(row[token]) for row, token in zip(numbers, ids, strict=True)]
    else:
        values, places = logits.max(dim=-1)
        ids, largest = places.tolist(), values.tolist()
    if not all(map(math.isfinite, largest)):  # what is no number counts as the largest
        raise ArtifactError(
            "the model's logits are no finite numbers, so no token can be drawn",
            "gptcli checkpoint verify MODEL --deep tells whether its weights are whole",
        )
    return ids


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of both: SplitMix64's mixing (Steele et al. 2014), the seed's first."""
    return (_mixed(_mixed(seed & _WORD) + position & _WORD) >> 11) * 2.0**-53


def _mixed(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def _drawn(scores: Tensor, seen: Sequence[int], settings: Sampling) -> int:
    if settings.repetition_penalty != 1.0:
        scores = _penalised(scores, seen, settings.repetition_penalty)
    if settings.temperature == 0.0:
        return int(scores.argmax())
    # The largest is 0 before it is divided, and what divides is no 0 in fp32: however cold, there is no inf - inf.
    cold = max(settings.temperature, torch.finfo(torch.float32).tiny)
    values, ids = truncate(torch.softmax((scores - scores.max()) / cold, dim=-1), settings)
    reached = values.double().cumsum(0)
    place = torch.searchsorted(reached, uniform(settings.seed, len(seen)) * reached[-1], right=True)
    return int(ids[min(int(place), len(ids) - 1)])


def truncate(probabilities: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """What top_k, top_p and min_p leave of [V], each cutting from what the one before left: the tokens' probabilities,
    not brought back to a sum of 1, and their ids, ascending. Tokens as likely as the last of top_k all stay; of those
    as likely as the last of top_p the first in the vocabulary do.
    """
    values, ids = probabilities, torch.arange(len(probabilities))
    if 0 < settings.top_k < len(values):
        values, ids = _top_k(values, ids, settings.top_k)
    if settings.top_p < 1.0:
        values, ids = _top_p(values, ids, settings.top_p * float(values.sum()))
    if settings.min_p > 0.0:
        stay = values >= settings.min_p * values.max()
        values, ids = values[stay], ids[stay]
    return values, ids


def _top_k(values: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    stay = values >= values.topk(count).values[-1]
    return values[stay], ids[stay]


def _top_p(values: Tensor, ids: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """A token stays while the likelier ones have not reached `mass`; so the first always stays."""
    for count in (FIRST_LOOK, len(values)):
        if count > len(values):
            continue
        top = values.topk(count).values
        inside = int((top.cumsum(0) - top < mass).sum())
        if inside < count or count == len(values):
            break
    least = top[max(inside, 1) - 1]
    stay = values > least
    ties = (values == least).nonzero().flatten()
    stay[ties[: inside - int(stay.sum())]] = True
    return values[stay], ids[stay]


def _penalised(scores: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    out = scores.clone()
    there = torch.tensor(sorted(set(seen)), dtype=torch.int64)
    out[there] = torch.where(out[there] > 0, out[there] / penalty, out[there] * penalty)
    return out.clamp_(max=torch.finfo(torch.float32).max)  # a penalty far below 1 makes logits too large
