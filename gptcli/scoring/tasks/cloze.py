"""Cloze: the words that a text goes on with (LAMBADA, Paperno et al. 2016: the last word of a passage).

`acc`: every token of the target is the likeliest one, given the right ones before it. `perplexity`: exp of the mean
nats of an item's whole target, as lm-evaluation-harness has it for LAMBADA. `token_perplexity`: exp of the mean nats of
a target's token, over all tokens of all items. `target_tokens`: tokens of a target, on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from gptcli.errors import SpecError
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Likelihood, LikelihoodAnswer
from gptcli.scoring.tasks.task import Item, Posing, Task, Unposable, item_id
from gptcli.scoring.tasks.templates import Template, field_or_text, render

_TARGET_TOKENS = "target_tokens"


class Cloze(Task):
    """A task of a text and what it goes on with: by `prompt` and `answer`, or `text`, whose last word is the answer."""

    asks: ClassVar[bool] = False

    kind: Literal["cloze"] = "cloze"
    answer: Template = Field(
        "", description="what prompt goes on with, behind the delimiter: a field, or text with {field}"
    )
    text: Template = Field("", description="in place of prompt and answer: a text, cut before its last word")

    @model_validator(mode="after")
    def _one_way(self) -> Cloze:
        if self.text:
            unread = {"prompt", "answer", "delimiter"} & self.model_fields_set
            if unread:
                raise SpecError(
                    f"text takes the place of {', '.join(sorted(unread))}", "leave out the one or the other"
                )
        elif not (self.prompt and self.answer):
            raise SpecError("a cloze task needs prompt and answer, or text", 'for example text = "{text}"')
        return self

    def item(self, row: dict[str, Any], where: str, posing: Posing) -> Item:
        """The row's text and target. Raises Unposable for a missing field, an empty target and a text of one word.

        The last word is all behind the last white space; that, as it stands, is the delimiter.
        """
        if self.text:
            prompt, delimiter, answer = _parted(render(self.text, row))
        else:
            prompt, delimiter = render(self.prompt, row), self.delimiter
            answer = field_or_text(self.answer, row)
        if not answer.strip():
            raise Unposable("empty_answer")
        request = Likelihood(*posing.pair(prompt, answer, delimiter))
        return Item(item_id(self.kind, prompt, answer), where, prompt, answer, (request,))

    def judge(self, item: Item, answers: Sequence[Answer]) -> Judged:
        """`logprobs`: nats of the target. The prediction is the target where the model is right; else nothing was
        generated that could be shown."""
        (found,) = (answer for answer in answers if isinstance(answer, LikelihoodAnswer))
        return Judged(
            task=self.name,
            item=item.id,
            where=item.where,
            prompt=item.prompt,
            answer=item.answer,
            prediction=item.answer if found.greedy else "",
            scores={"acc": float(found.greedy), _TARGET_TOKENS: float(found.tokens)},
            logprobs=(found.logprob,),
            cut=found.cut,
        )

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("acc", "perplexity", "token_perplexity", _TARGET_TOKENS)

    def figures(self, judged: Sequence[Judged]) -> dict[str, float]:
        """The means of the scores, and both perplexities; one too large for a double is infinite."""
        if not judged:
            return {}
        nats = -math.fsum(row.logprobs[0] for row in judged)
        tokens = math.fsum(row.scores[_TARGET_TOKENS] for row in judged)
        perplexities = {"perplexity": _exp(nats / len(judged)), "token_perplexity": _exp(nats / tokens)}
        found = {**super().figures(judged), **perplexities}
        return {name: found[name] for name in self.figure_names}


def _parted(text: str) -> tuple[str, str, str]:
    """What stands before a text's last word, the white space between, and that word, without white space behind it."""
    bare = text.rstrip()
    word = bare.rsplit(maxsplit=1)[-1] if bare else ""
    before = bare[: len(bare) - len(word)]
    context = before.rstrip()
    if not context:
        raise Unposable("fewer_than_two_words")
    return context, before[len(context) :], word


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 709 else math.inf
