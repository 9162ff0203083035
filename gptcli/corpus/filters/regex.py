"""Documents by what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from pydantic import Field, field_validator, model_validator

from gptcli.corpus.filters.verdict import Filter, Value
from gptcli.corpus.filters.view import View

_SHOWN = 80  # characters of a match


class RegexFilter(Filter):
    """Keep documents in which `keep` is found and `drop` is not (^ and $ match at every line)."""

    name: Literal["regex"] = "regex"
    keep: str = Field("", description="regular expression that must be found; empty: none")
    drop: str = Field("", description="regular expression that must not be found; empty: none")

    @field_validator("keep", "drop")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            _compiled(pattern)
        except re.error as error:
            raise ValueError(f"is no valid regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _does_something(self) -> RegexFilter:
        if not self.keep and not self.drop:
            raise ValueError('needs keep or drop, as in {name = "regex", drop = "lorem ipsum"}')
        return self

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        if self.drop:
            found = _compiled(self.drop).search(view.text)
            yield "drop_found", found.group()[:_SHOWN] if found else ""
        if self.keep:
            yield "keep_not_found", float(_compiled(self.keep).search(view.text) is not None)

    def passes(self, rule: str, value: Value) -> bool:
        return not value if rule == "drop_found" else bool(value)


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.MULTILINE)
