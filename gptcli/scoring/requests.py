"""What a task asks of a model, and what the model answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely `continuation` is after `context`; token ids, at least one each, whole (nothing is put before)."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LikelihoodAnswer:
    """`logprob`: nats, the sum over the continuation's tokens; `greedy`: each of them was the likeliest (of equal ones
    the first id); `tokens`: of the continuation; `cut`: tokens of the context that did not fit into the model."""

    logprob: float
    greedy: bool
    tokens: int
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What follows `prompt` (token ids, at least one), greedily, up to `max_tokens` tokens, a stop string of `stop`
    (cut off, with what follows it) or the model's own end."""

    prompt: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompletionAnswer:
    """The text; how many tokens were generated; whether a stop ended it rather than max_tokens or the model's
    positions; `cut`: tokens of the prompt, from its left, that did not fit into the model."""

    text: str
    tokens: int
    finished: bool
    cut: int = 0


Request = Likelihood | Completion
Answer = LikelihoodAnswer | CompletionAnswer
