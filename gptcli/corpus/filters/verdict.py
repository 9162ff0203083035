"""The contract of a filter: a pydantic model that holds its options, measures one document and judges the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gptcli.corpus.filters.view import View
from gptcli.spec import Spec

Value = float | str


def threshold(default: Any, description: str, **constraints: Any) -> Any:
    """A field that only `passes` reads: it can be changed without measuring again."""
    return Field(default, description=description, json_schema_extra={"threshold": True}, **constraints)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rule that a document failed, a fixed word, and its measured value; no reason: it is kept."""

    reason: str = ""
    value: Value = 0.0

    @property
    def keep(self) -> bool:
        return not self.reason


class Filter(Spec):
    """Subclasses add `name: Literal["…"] = "…"` and their options; everything depends on the text alone.

    A document is first rewritten, then measured rule by rule, in a fixed order with the cheapest first. Measuring is
    lazy: it ends at the first rule that is not passed, unless all values are wanted.
    """

    name: str

    def files(self) -> list[str]:
        """The user's files that it reads: their content decides what it does."""
        return []

    def located(self, root: Path) -> Filter:
        """The same filter with its files taken from `root`, as absolute paths; SpecError for one that is not there."""
        return self

    def rewrite(self, view: View) -> tuple[str, dict[str, int]]:
        """The text that later filters and the corpus see, and how many of what was replaced or cut."""
        return view.text, {}

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        """(rule, value) for every rule, of the rewritten text. A rule is a fixed word."""
        return iter(())

    def passes(self, rule: str, value: Value) -> bool:
        """Whether a document with this value is kept."""
        return True

    def verdict(self, view: View) -> Verdict:
        """The first rule that is not passed."""
        for rule, value in self.measures(view):
            if not self.passes(rule, value):
                return Verdict(rule, value)
        return Verdict()
