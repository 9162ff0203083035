"""Multiple choice: the likeliest of several answers is the prediction (of equally likely ones the first).

`acc`: by the log-likelihood of the whole choice. `acc_norm_bytes`: divided by the choice's UTF-8 bytes.
`acc_norm_chars`: divided by its characters (code points), which is what lm-evaluation-harness calls acc_norm. The
delimiter is counted in neither.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from gptcli.errors import SpecError
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Likelihood, LikelihoodAnswer
from gptcli.scoring.tasks.task import Item, Posing, Task, Unposable, item_id
from gptcli.scoring.tasks.templates import Template, field, render, text_of

OUT_OF_RANGE = "answer_out_of_range"
NO_CHOICE = "answer_names_no_choice"
TWO_CHOICES = "answer_names_two_choices"

_NORMS: dict[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm_bytes": lambda choice: len(choice.encode()),
    "acc_norm_chars": len,
}
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_WHOLE = re.compile(r"[+-]?\d{1,18}")


class MultipleChoice(Task):
    """A task of one right answer among a few."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    choices: str | list[Template] = Field(description="field that holds a list, or a template for each choice")
    answer: str = Field("answer", min_length=1, description="field that tells the right choice")
    answer_as: Literal["auto", "index", "letter", "text"] = Field(
        "auto", description="how it tells: number, letter or its own words; auto: whichever it is"
    )
    index_from: Literal[0, 1] = Field(0, description="the number of the first choice")
    labels: str = Field("", description="field that holds the choices' labels, which the answer is one of")

    @model_validator(mode="after")
    def _choices_enough(self) -> MultipleChoice:
        if isinstance(self.choices, list) and len(self.choices) < 2:
            raise SpecError("choices has fewer than two templates", "name a template for each choice, or a field")
        if self.labels and {"answer_as", "index_from"} & self.model_fields_set:
            raise SpecError("labels says how the answer tells the choice", "leave out answer_as and index_from")
        return self

    def item(self, row: dict[str, Any], where: str, posing: Posing) -> Item:
        """The row's question and choices. Raises Unposable for a missing field, choices that are no list or fewer than
        two, an empty choice, and an answer that is none of them."""
        prompt, choices = render(self.prompt, row), self._choices(row)
        right = self._right(row, choices)
        requests = tuple(Likelihood(*posing.pair(prompt, choice, self.delimiter)) for choice in choices)
        identity = item_id(self.kind, prompt, *choices, str(right))
        return Item(identity, where, prompt, choices[right], requests, (choices, right))

    def _choices(self, row: dict[str, Any]) -> tuple[str, ...]:
        if isinstance(self.choices, list):
            found = [render(choice, row) for choice in self.choices]
        else:
            found = [text_of(value, self.choices) for value in _listed(row, self.choices)]
        if len(found) < 2:
            raise Unposable("fewer_than_two_choices", f"it has {len(found)}")
        if not all(map(str.strip, found)):
            raise Unposable("empty_choice")
        return tuple(found)

    def _right(self, row: dict[str, Any], choices: Sequence[str]) -> int:
        """The number of the right choice, from 0."""
        answer = field(row, self.answer)
        if self.labels:
            labels = [text_of(value, self.labels).strip() for value in _listed(row, self.labels)]
            return _named(text_of(answer, self.answer).strip(), labels[: len(choices)], answer)
        if isinstance(answer, float) and answer.is_integer():
            answer = int(answer)  # columns with gaps come as floats
        text = text_of(answer, self.answer).strip()
        by_text = self.answer_as in ("auto", "text") and isinstance(answer, str)
        if by_text and (self.answer_as == "text" or text in [choice.strip() for choice in choices]):
            return _named(text, [choice.strip() for choice in choices], answer)
        number: int | None = None
        letter = _LETTER.fullmatch(text)
        if self.answer_as in ("auto", "index") and (isinstance(answer, bool) or _WHOLE.fullmatch(text)):
            number = int(answer) if isinstance(answer, bool) else int(text) - self.index_from
        elif self.answer_as in ("auto", "letter") and letter and isinstance(answer, str):
            number = ord(letter[1].upper()) - ord("A")
        if number is None:
            raise Unposable(NO_CHOICE, f"its answer is {text!r}")
        if not 0 <= number < len(choices):
            raise Unposable(OUT_OF_RANGE, f"its answer is {text!r}, and there are {len(choices)} choices")
        return number

    def judge(self, item: Item, answers: Sequence[Answer]) -> Judged:
        """Right or wrong by each norm; the prediction is that of `acc`. `logprobs`: nats of each choice, undivided."""
        choices, right = item.data
        found = [answer for answer in answers if isinstance(answer, LikelihoodAnswer)]
        chosen = {
            name: _first_highest([a.logprob / size(c) for a, c in zip(found, choices, strict=True)])
            for name, size in _NORMS.items()
        }
        return Judged(
            task=self.name,
            item=item.id,
            where=item.where,
            prompt=item.prompt,
            answer=item.answer,
            prediction="" if chosen["acc"] is None else choices[chosen["acc"]],
            scores={name: float(number == right) for name, number in chosen.items()},
            logprobs=tuple(answer.logprob for answer in found),
            cut=max(answer.cut for answer in found),
        )

    @property
    def figure_names(self) -> tuple[str, ...]:
        return tuple(_NORMS)


def _listed(row: dict[str, Any], way: str) -> list[Any]:
    """A field that is a list, or the JSON of one, as a table's cell holds it. Raises Unposable `no_list:WAY`."""
    value = field(row, way)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise Unposable(f"no_list:{way}", f"the field {way} holds {type(value).__name__}, which is no list")
    return value


def _named(text: str, names: Sequence[str], answer: object) -> int:
    places = [number for number, name in enumerate(names) if name == text]
    if not places:
        raise Unposable(NO_CHOICE, f"its answer is {answer!r}")
    if len(places) > 1:
        raise Unposable(TWO_CHOICES, f"its answer is {answer!r}")
    return places[0]


def _first_highest(values: Sequence[float]) -> int | None:
    """Where the highest number stands first; None where a broken model leaves one that is no number."""
    return None if any(map(math.isnan, values)) else values.index(max(values))
