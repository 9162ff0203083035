"""Documents by their number of words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View


class LengthFilter(Filter):
    """Keep documents of `min_words` to `max_words` words; the defaults are those of Gopher (Rae et al. 2021, A1.1).

    A word is what stands between whitespace: count otherwise for scripts that set no spaces.
    """

    name: Literal["length"] = "length"
    min_words: int = threshold(50, "fewest words of a document", ge=0)
    max_words: int = threshold(100_000, "most words of a document; 0: no limit", ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> LengthFilter:
        if self.max_words and self.max_words < self.min_words:
            raise ValueError(f"max_words = {self.max_words} is under min_words = {self.min_words}")
        return self

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        words = len(view.text.split())
        yield "too_few_words", words
        yield "too_many_words", words

    def passes(self, rule: str, value: Value) -> bool:
        words = int(value)
        return words >= self.min_words if rule == "too_few_words" else not self.max_words or words <= self.max_words
