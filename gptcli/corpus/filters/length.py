"""Documents by their number of words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gptcli.corpus.filters.verdict import Filter, Verdict


class LengthFilter(Filter):
    """Keep documents of `min_words` to `max_words` words; the defaults are those of Gopher (Rae et al. 2021, A1.1).

    A word is what stands between whitespace: count otherwise for scripts that set no spaces.
    """

    name: Literal["length"] = "length"
    min_words: int = Field(50, ge=0, description="fewest words of a document")
    max_words: int = Field(100_000, ge=0, description="most words of a document; 0: no limit")

    @model_validator(mode="after")
    def _in_order(self) -> LengthFilter:
        if self.max_words and self.max_words < self.min_words:
            raise ValueError(f"max_words = {self.max_words} is under min_words = {self.min_words}")
        return self

    def verdict(self, text: str) -> Verdict:
        words = len(text.split())
        if words < self.min_words:
            return Verdict(False, "too_few_words")
        if self.max_words and words > self.max_words:
            return Verdict(False, "too_many_words")
        return Verdict(True)
