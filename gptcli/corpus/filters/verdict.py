"""The contract of a filter: a pydantic model that holds its options and judges one text."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from gptcli.spec import Spec


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to keep a document, and the rule that decided (a fixed word, no values)."""

    keep: bool
    reason: str = ""


class Filter(Spec):
    """Subclasses add `name: Literal["…"] = "…"` and their options; a verdict depends on the text alone."""

    name: str

    @abstractmethod
    def verdict(self, text: str) -> Verdict:
        """Judge one document's cleaned text."""
