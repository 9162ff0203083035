"""Minimal pairs (BLiMP: Warstadt et al. 2020): of two texts that differ in one thing, the good one must be likelier.

Both are scored whole, behind bos or, where there is a prompt, behind that. `acc`: the good one has the strictly higher
log-likelihood. Equal ones count as wrong, for a model that can't tell them apart does not know which is good
(lm-evaluation-harness, taking the first of equals, counts them as right).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Likelihood, LikelihoodAnswer
from gptcli.scoring.tasks.task import Item, Posing, Task, Unposable, item_id
from gptcli.scoring.tasks.templates import Template, render


class MinimalPairs(Task):
    """A task of a good text and a bad one a row."""

    asks: ClassVar[bool] = False

    kind: Literal["minimal_pairs"] = "minimal_pairs"
    good: Template = Field(min_length=1, description="the good text, with {field} of the row")
    bad: Template = Field(min_length=1, description="the bad text, with {field} of the row")
    delimiter: str = Field("", description="between prompt and either text; lm-evaluation-harness has a blank there")

    def item(self, row: dict[str, Any], where: str, posing: Posing) -> Item:
        """The row's two texts. Raises Unposable for a missing field, an empty text and two that are equal."""
        prompt, good, bad = (render(template, row) for template in (self.prompt, self.good, self.bad))
        if not good.strip() or not bad.strip():
            raise Unposable("empty_text")
        if good == bad:
            raise Unposable("good_is_bad", "both texts are the same")
        requests = tuple(Likelihood(*posing.pair(prompt, text, self.delimiter)) for text in (good, bad))
        return Item(item_id(self.kind, prompt, good, bad), where, prompt, good, requests, bad)

    def judge(self, item: Item, answers: Sequence[Answer]) -> Judged:
        """`logprobs`: nats of the good text and of the bad one; the prediction is the likelier, none where equal."""
        good, bad = (answer for answer in answers if isinstance(answer, LikelihoodAnswer))
        prediction = item.answer if good.logprob > bad.logprob else item.data if bad.logprob > good.logprob else ""
        return Judged(
            task=self.name,
            item=item.id,
            where=item.where,
            prompt=item.prompt,
            answer=item.answer,
            prediction=prediction,
            scores={"acc": float(good.logprob > bad.logprob)},
            logprobs=(good.logprob, bad.logprob),
            cut=max(good.cut, bad.cut),
        )

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("acc",)
