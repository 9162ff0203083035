"""Generation: what a model writes after a prompt, against one answer or several, of which the best counts.

What is compared is the generated text without blanks at its ends or, with `extract`, the first match of that regular
expression in it (its first group where it has one); without a match it is empty, and `unmatched` counts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gptcli.errors import SpecError
from gptcli.scoring.answers import NORMAL_FORMS, exact_match, extracted, number_in, token_f1
from gptcli.scoring.judged import Judged
from gptcli.scoring.overlap import ROUGE, CorpusScore, corpus_score, require, rouge
from gptcli.scoring.requests import Answer, Completion, CompletionAnswer
from gptcli.scoring.tasks.task import Item, Posing, Task, item_id
from gptcli.scoring.tasks.templates import Template, Unposable, field, render, text_of
from gptcli.spec import OneOrMore

Metric = Literal["exact_match", "numeric", "regex", "token_f1", "rouge", "bleu", "chrf"]

# Keys that a metric alone reads.
_READ_BY = {
    "normalize": "exact_match",
    "number": "numeric",
    "tolerance": "numeric",
    "rouge_words": "rouge",
    "rouge_stemmer": "rouge",
    "bleu_tokenize": "bleu",
}


def _checked(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Pattern = Annotated[str, AfterValidator(_checked)]


class Generation(Task):
    """A task whose answer is written."""

    kind: Literal["generation"] = "generation"
    prompt: Template = Field(min_length=1, description="what is asked: text with {field} of the row")
    answer: Template = Field(
        min_length=1, description="field of the right answer, or of a list of them; or text with {field}"
    )
    metrics: Annotated[list[Metric], BeforeValidator(_as_list)] = Field(
        min_length=1, description="how what is written is compared with the answer"
    )
    max_tokens: int = Field(256, ge=1, description="of what is generated")
    stop: OneOrMore = Field(default_factory=list, description="texts that end what is generated")
    extract: Pattern = Field("", description="regular expression of what is compared in the generated text")
    extract_answer: Pattern = Field("", description="regular expression of what is compared in the answer")
    normalize: Literal["plain", "squad", "none"] = Field("plain", description="before exact_match compares")
    number: Literal["last", "first"] = Field("last", description="which number of a text numeric compares")
    tolerance: float = Field(0.0, ge=0, description="by how much numbers may differ")
    rouge_words: Literal["latin", "unicode"] = Field("latin", description="a-z and 0-9 make words, or any letters do")
    rouge_stemmer: bool = Field(False, description="compare English words by their stems")
    bleu_tokenize: Literal["13a", "intl", "zh", "char", "none"] = Field("13a", description="sacrebleu's ways to words")

    @model_validator(mode="after")
    def _keys_agree(self) -> Generation:
        if len(set(self.metrics)) < len(self.metrics):
            raise SpecError("metrics names one twice", "name each once")
        for key, metric in _READ_BY.items():
            if key in self.model_fields_set and metric not in self.metrics:
                raise SpecError(
                    f"{key} is given, and metrics has no {metric}", f"add {metric} to metrics, or leave out {key}"
                )
        if self.rouge_stemmer and self.rouge_words == "unicode":
            raise SpecError('rouge_stemmer knows English words only, and rouge_words = "unicode"', "set one of them")
        if "" in self.stop:
            raise SpecError("stop holds an empty text", "leave it out; stop = [] stops at the model's own end only")
        return self

    def prepared(self, rows: Iterable[dict[str, Any]]) -> Self:
        """The task as it is. Raises SpecError where a metric's package is not installed."""
        for metric in self.metrics:
            if metric in ("rouge", "bleu", "chrf"):
                require(metric)
        return self

    def item(self, row: dict[str, Any], where: str, posing: Posing) -> Item:
        """The row's prompt, to be written on. Raises Unposable where a field is missing or an answer is none that the
        metrics can compare with."""
        prompt, whole = render(self.prompt, row), self._answers(row)
        references = [self._reference(answer) for answer in whole]
        request = Completion(posing.context(prompt), self.max_tokens, tuple(self.stop))
        return Item(item_id(self.kind, prompt, *references), where, prompt, _as_one(references), (request,), whole[0])

    def _answers(self, row: dict[str, Any]) -> list[str]:
        """The right answers as the row has them, at least one."""
        if "{" in self.answer or "}" in self.answer:
            return [render(self.answer, row)]
        value = field(row, self.answer)
        found = [text_of(each, self.answer) for each in value] if isinstance(value, list) else []
        if isinstance(value, list) and not found:
            raise Unposable(f"no_answer:{self.answer}", f"the field {self.answer} is an empty list")
        return found or [text_of(value, self.answer)]

    def _reference(self, answer: str) -> str:
        """What of an answer is compared."""
        found = extracted(answer, re.compile(self.extract_answer)) if self.extract_answer else answer
        if found is None:
            raise Unposable("answer_without_match", f"extract_answer matches nowhere in {answer[:80]!r}")
        if "numeric" in self.metrics and number_in(found, self.number) is None:
            raise Unposable("answer_without_number", f"there is no number in the answer {found[:80]!r}")
        found = found.strip()
        if "regex" in self.metrics:
            try:
                _checked(found)
            except ValueError as error:
                raise Unposable("answer_is_no_regex", f"the answer {found[:80]!r} {error}") from error
            if not found:
                raise Unposable("answer_is_no_regex", "the answer is empty, which as a regular expression matches all")
        return found

    def example(self, item: Item) -> tuple[str, str]:
        """An item as a few-shot example: its prompt, and its first answer, whole."""
        return item.prompt, str(item.data)

    def judge(self, item: Item, answers: Sequence[Answer]) -> Judged:
        """What the model wrote, and its scores by item; `prediction` is all of it."""
        (answer,) = (each for each in answers if isinstance(each, CompletionAnswer))
        text, references = self._compared(answer.text), _as_many(item.answer)
        scores: dict[str, float] = {}
        for metric in self.metrics:
            scores |= self._scores(metric, text or "", references)
        if self.extract:
            scores["unmatched"] = float(text is None)
        scores["unfinished"] = float(not answer.finished)
        return Judged(
            task=self.name,
            item=item.id,
            where=item.where,
            prompt=item.prompt,
            answer=item.answer,
            prediction=answer.text,
            scores=scores,
            cut=answer.cut,
        )

    def _compared(self, text: str) -> str | None:
        found = extracted(text, re.compile(self.extract)) if self.extract else text
        return None if found is None else found.strip()

    def _scores(self, metric: Metric, text: str, references: Sequence[str]) -> dict[str, float]:
        """An item's share of a metric's figures; empty for those of the whole corpus."""
        if metric == "exact_match":
            return {metric: float(exact_match(text, references, NORMAL_FORMS[self.normalize]))}
        if metric == "numeric":
            return {metric: float(self._numeric(text, references))}
        if metric == "regex":
            return {metric: float(any(re.search(pattern, text) for pattern in references))}
        if metric == "token_f1":
            return {metric: max(token_f1(text, each) for each in references)}
        if metric == "rouge":
            return rouge(text, references, words=self.rouge_words, stemmer=self.rouge_stemmer)
        return {}

    def _numeric(self, text: str, references: Sequence[str]) -> bool:
        found, tolerance = number_in(text, self.number), Fraction(Decimal(repr(self.tolerance)))
        wanted = [number_in(each, self.number) for each in references]
        return found is not None and any(each is not None and found.equals(each, tolerance) for each in wanted)

    @property
    def figure_names(self) -> tuple[str, ...]:
        named = [name for metric in self.metrics for name in (ROUGE if metric == "rouge" else (metric,))]
        return (*named, *(["unmatched"] if self.extract else []), "unfinished")

    def figures(self, judged: Sequence[Judged]) -> dict[str, float]:
        """The means of the items' scores; BLEU and chrF (0 to 100) of all texts together."""
        if not judged:
            return {}
        whole = {name: score.score for name, score in self._corpus_scores(judged).items()}
        means = super().figures(judged)
        return {name: whole[name] if name in whole else means[name] for name in self.figure_names}

    def tables(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """`metrics`: the rule of each in words, of BLEU and chrF sacrebleu's signature."""
        if not judged:
            return {}
        signatures = {name: score.signature for name, score in self._corpus_scores(judged).items()}
        rows = [[metric, signatures.get(metric) or self._rule(metric)] for metric in self.metrics]
        return {"metrics": {"columns": ["metric", "rule"], "rows": rows}}

    def _corpus_scores(self, judged: Sequence[Judged]) -> dict[str, CorpusScore]:
        asked: list[Literal["bleu", "chrf"]] = [name for name in ("bleu", "chrf") if name in self.metrics]
        if not asked:
            return {}
        texts = tuple(self._compared(row.prediction) or "" for row in judged)
        references = tuple(tuple(_as_many(row.answer)) for row in judged)
        return {name: _corpus_score(name, texts, references, self.bleu_tokenize) for name in asked}

    def _rule(self, metric: Metric) -> str:
        tolerance = f", within {self.tolerance:g}" if self.tolerance else ", exactly"
        words = "a-z and 0-9" if self.rouge_words == "latin" else "letters and digits of any script"
        stems = ", by their stems" if self.rouge_stemmer else ""
        return {
            "exact_match": f"the same in the normal form {self.normalize}",
            "numeric": f"the same {self.number} number{tolerance}; 50 % is 50 as well as 0.5",
            "regex": "the answer, a regular expression, matches somewhere in the text",
            "token_f1": "SQuAD's F1 of words",
            "rouge": f"F-measures; words are runs of {words}{stems}",
        }[metric]


@lru_cache(maxsize=2)
def _corpus_score(
    name: Literal["bleu", "chrf"], texts: tuple[str, ...], references: tuple[tuple[str, ...], ...], tokenize: str
) -> CorpusScore:
    """Kept, since figures and tables ask for the same one."""
    return corpus_score(name, texts, references, tokenize=tokenize)


def _as_one(references: Sequence[str]) -> str:
    """References as one text: the only one as it stands, several (or one that reads as such) as a JSON list."""
    alone = references[0]
    return alone if len(references) == 1 and _as_many(alone) == [alone] else json.dumps(references, ensure_ascii=False)


def _as_many(text: str) -> list[str]:
    """The references that `_as_one` made one text of."""
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return [text]
        if isinstance(found, list) and found and all(isinstance(each, str) for each in found):
            return found
    return [text]
