"""Classification: which of a few labels a text has, by the likelihood of each label's words or by what is generated.

By likelihood: each label's words are scored after the prompt, and the likeliest label is the prediction (of equal ones
the first). `norm` divides each log-probability by the UTF-8 bytes or the tokens of the words (none: the sum as it is).

`prior = "content_free"` is the contextual calibration of Zhao et al. (2021), "Calibrate Before Use": the same examples
and the same template, with `content_free` in place of every field, tell how likely each label is after nothing at all.
These probabilities are made to sum to 1 over the labels, averaged over the texts of `content_free`, and their logarithm
is subtracted from each label's log-probability before `norm` divides. That is the paper's diagonal matrix without bias.

By generation: what the model writes, normalised (`answers.plain`), is a label if it equals the words of one, or begins
with them and no letter or digit follows (of several such the longest words); anything else is an invalid answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from gptcli.errors import SpecError
from gptcli.scoring.answers import plain
from gptcli.scoring.classes import FIGURES, Confusion, confusion
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Completion, CompletionAnswer, Likelihood, LikelihoodAnswer, Request
from gptcli.scoring.tasks.task import Item, Posing, Task, item_id
from gptcli.scoring.tasks.templates import Template, Unposable, field, parts, render, text_of
from gptcli.spec import OneOrMore


def _as_texts(given: Any) -> Any:
    """Labels and words that TOML has as numbers or truth values, as rows have them as text."""
    if isinstance(given, list):
        return [_as_text(label) for label in given]
    return {label: _as_text(words) for label, words in given.items()} if isinstance(given, dict) else given


def _as_text(given: Any) -> Any:
    return _label_text(given, "labels") if isinstance(given, bool | int | float) else given


def _label_text(value: Any, name: str) -> str:
    """A label as text; a whole number in a column with gaps comes as a float, and is the whole number."""
    return text_of(int(value) if isinstance(value, float) and value.is_integer() else value, name)


class Classification(Task):
    """A task of one label a row."""

    kind: Literal["classification"] = "classification"
    prompt: Template = Field(min_length=1, description="what is asked: text with {field} of the row")
    label: str = Field("label", min_length=1, description="field that holds the right label")
    labels: Annotated[Literal["auto"] | list[str] | dict[str, str], BeforeValidator(_as_texts)] = Field(
        "auto",
        description="all labels; a table: the words that stand for each; auto: those of the data, sorted",
    )
    method: Literal["likelihood", "generation"] = Field(
        "likelihood", description="compare the labels' likelihoods, or read a label from what is generated"
    )
    norm: Literal["none", "bytes", "tokens"] = Field(
        "none", description="divide a label's log-probability by its words' bytes or tokens"
    )
    prior: Literal["none", "content_free"] = Field(
        "none", description="correct by each label's likelihood after a text that says nothing"
    )
    content_free: OneOrMore = Field(
        default_factory=lambda: ["N/A"], min_length=1, description="texts that say nothing, in place of every field"
    )
    max_tokens: int = Field(32, ge=1, description="of what is generated")
    stop: OneOrMore = Field(default_factory=lambda: ["\n"], description="texts that end what is generated")
    zero_division: Literal[0, 1] = Field(0, description="a precision, recall or F1 that has no denominator")

    @model_validator(mode="after")
    def _keys_agree(self) -> Classification:
        unread = ("max_tokens", "stop") if self.method == "likelihood" else ("norm", "prior", "content_free")
        for key in unread:
            if key in self.model_fields_set:
                raise SpecError(
                    f'{key} is given, and method = "{self.method}" does not read it', f"leave out {key}, or set method"
                )
        if "content_free" in self.model_fields_set and self.prior == "none":
            raise SpecError('content_free is given, and prior = "none"', 'set prior = "content_free"')
        if "" in self.stop:
            raise SpecError("stop holds an empty text", "leave it out; stop = [] stops at the model's own end only")
        if self.labels != "auto":
            self._check_words()
        return self

    def _check_words(self) -> None:
        """Raises SpecError for labels that cannot be told apart."""
        words = self._words
        if len(words) < 2 or len(words) < len(self.labels):
            raise SpecError("labels has fewer than two labels, or one twice", "name each label once")
        told: dict[str, str] = {}
        for label, text in words.items():
            seen_as = plain(text) if self.method == "generation" else text.strip()
            if not seen_as:
                raise SpecError(f"labels: {label!r} has no words", "give it words in a table: labels = {LABEL = WORDS}")
            if seen_as in told:
                raise SpecError(
                    f"labels: {told[seen_as]!r} and {label!r} have the same words, {text!r}",
                    "give them words of their own in a table: labels = {LABEL = WORDS}",
                )
            told[seen_as] = label

    @property
    def _words(self) -> Mapping[str, str]:
        """Each label's words, in the order of the labels."""
        if isinstance(self.labels, str):
            raise RuntimeError("labels are not known before `prepared` has seen the rows")
        return self.labels if isinstance(self.labels, dict) else {label: label for label in self.labels}

    def prepared(self, rows: Iterable[dict[str, Any]]) -> Self:
        """The task with the labels of all rows where they are "auto": sorted, as numbers where all are whole ones."""
        if self.labels != "auto":
            return self
        found: set[str] = set()
        for row in rows:
            try:
                found.add(_label_text(field(row, self.label), self.label))
            except Unposable:
                continue  # counted where the row is posed
        if len(found) < 2:
            raise SpecError(
                f'{self.name}: labels = "auto", and the field {self.label} of the data holds '
                + (f"nothing but {next(iter(found))!r}" if found else "no label"),
                "set label to the field that holds the labels, or name them: labels = [...]",
            )
        prepared = self.model_copy(update={"labels": _in_order(found)})
        prepared._check_words()
        return prepared

    def item(self, row: dict[str, Any], where: str, posing: Posing) -> Item:
        """The row's text, to be given one of the labels. Raises Unposable where a field is missing or its label is
        none of them."""
        prompt, label = render(self.prompt, row), _label_text(field(row, self.label), self.label)
        words = self._words
        if label not in words:
            raise Unposable("label_not_in_labels", f"its {self.label} is {label!r}, which labels does not name")
        requests: list[Request] = []
        if self.method == "generation":
            requests.append(Completion(posing.context(prompt), self.max_tokens, tuple(self.stop)))
        else:
            asked = [prompt] if self.prior == "none" else [prompt, *map(self._blank_prompt, self.content_free)]
            for text in asked:
                requests += _pairs(cast(Hashable, posing), text, tuple(words.values()), self.delimiter)
        identity = item_id(self.kind, prompt, label, *words.values())
        return Item(identity, where, prompt, label, tuple(requests))

    def _blank_prompt(self, nothing: str) -> str:
        return "".join(text + (nothing if name else "") for text, name in parts(self.prompt))

    def example(self, item: Item) -> tuple[str, str]:
        """An item as a few-shot example: its prompt, and the words of its label."""
        return item.prompt, self._words[item.answer]

    def judge(self, item: Item, answers: Sequence[Answer]) -> Judged:
        """Which label the model gave. `logprobs`: nats of each label, corrected, and not divided by any norm."""
        logprobs: tuple[float, ...] = ()
        if self.method == "generation":
            (answer,) = (each for each in answers if isinstance(each, CompletionAnswer))
            label, shown = _label_of(answer.text, tuple(self._words.items())), answer.text.strip()
        else:
            found = [each for each in answers if isinstance(each, LikelihoodAnswer)]
            logprobs = self._corrected([each.logprob for each in found])
            compared = [nats / size for nats, size in zip(logprobs, self._sizes(found), strict=True)]
            label, shown = _likeliest(tuple(self._words), compared), ""
        scores = {"acc": float(label == item.answer), "invalid": float(label is None)}
        return Judged(
            task=self.name,
            item=item.id,
            where=item.where,
            prompt=item.prompt,
            answer=item.answer,
            prediction=shown if label is None else label,
            scores=scores,
            logprobs=logprobs,
            cut=max(each.cut for each in answers),
        )

    def _corrected(self, logprobs: Sequence[float]) -> tuple[float, ...]:
        """Nats of each label; `logprobs` of the item itself, then of each text of `content_free`."""
        count = len(self._words)
        own, *blanks = (logprobs[start : start + count] for start in range(0, len(logprobs), count))
        return tuple(own) if not blanks else tuple(a - b for a, b in zip(own, _prior(blanks), strict=True))

    def _sizes(self, answers: Sequence[LikelihoodAnswer]) -> list[int]:
        """What each label's nats are divided by."""
        words = list(self._words.values())
        if self.norm == "bytes":
            return [len(text.encode()) for text in words]
        return [answer.tokens for answer in answers[: len(words)]] if self.norm == "tokens" else [1] * len(words)

    @property
    def figure_names(self) -> tuple[str, ...]:
        return FIGURES

    def figures(self, judged: Sequence[Judged]) -> dict[str, float]:
        """The figures of `classes.FIGURES`; none for no items."""
        return self._confusion(judged).figures() if judged else {}

    def tables(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """`classes`, `confusion` and `zero_division` as `Confusion.tables` has them; how labels were told, `method`."""
        return {**self._confusion(judged).tables(), "method": self._method_in_words} if judged else {}

    def _confusion(self, judged: Sequence[Judged]) -> Confusion:
        """Classes in the order of the labels; labels that are still "auto": those of the items, sorted."""
        answers = [row.answer for row in judged]
        predictions = [None if row.scores["invalid"] else row.prediction for row in judged]
        seen = {*answers, *(label for label in predictions if label is not None)}
        classes = _in_order(seen) if self.labels == "auto" else tuple(self._words)
        return confusion(answers, predictions, classes, zero_division=self.zero_division)

    @property
    def _method_in_words(self) -> str:
        if self.method == "generation":
            return "the label that the generated text is, or begins with; anything else is invalid"
        corrected = f" over that after {' / '.join(map(repr, self.content_free))}" if self.prior != "none" else ""
        per = "" if self.norm == "none" else f", per {self.norm.removesuffix('s')}"
        return f"the label of the highest log-probability{corrected}{per}"


def _in_order(labels: Collection[str]) -> list[str]:
    """Sorted; as numbers where all are whole ones."""
    whole = all(label.removeprefix("-").isdecimal() and len(label) < 20 for label in labels)
    return sorted(labels, key=lambda label: (int(label) if whole else 0, label))


def _prior(blanks: Sequence[Sequence[float]]) -> list[float]:
    """Log of each label's share after nothing: [texts][labels] of nats, each text's made to sum to 1, then averaged."""
    shares = []
    for logprobs in blanks:
        top = max(logprobs)
        weights = [math.exp(logprob - top) for logprob in logprobs]
        total = math.log(math.fsum(weights)) + top
        shares.append([logprob - total for logprob in logprobs])
    return [_log_mean([share[number] for share in shares]) for number in range(len(blanks[0]))]


def _log_mean(logs: Sequence[float]) -> float:
    """log of the mean of exp; exact for one, and for those that exp would make 0."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(each - top) for each in logs) / len(logs))


def _likeliest(labels: Sequence[str], compared: Sequence[float]) -> str | None:
    """The label of the highest number, of equal ones the first; None where a broken model leaves one that is none."""
    return None if any(map(math.isnan, compared)) else labels[compared.index(max(compared))]


@lru_cache(maxsize=16)
def _pairs(posing: Any, prompt: str, words: tuple[str, ...], delimiter: str) -> tuple[Likelihood, ...]:
    """Every label's words after a prompt; kept, since a content-free prompt comes back with each item."""
    return tuple(Likelihood(*posing.pair(prompt, each, delimiter)) for each in words)


def _label_of(text: str, words: tuple[tuple[str, str], ...]) -> str | None:
    """The label that a text is, or begins with; None where it is none."""
    given, normal = plain(text), _normal(words)
    if given in normal:
        return normal[given]
    begun = [each for each in normal if given.startswith(each) and not _goes_on(given, len(each))]
    return normal[max(begun, key=len)] if begun else None


def _goes_on(text: str, end: int) -> bool:
    """Whether a word that ends at `end` is only the beginning of a longer one."""
    return text[end - 1].isalnum() and (text[end].isalnum() or text[end] == "_")


@lru_cache(maxsize=64)
def _normal(words: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {plain(text): label for label, text in words}
