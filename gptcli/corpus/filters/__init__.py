"""Filters, in one tuple: to add one, write its file and put its class here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from gptcli.corpus.filters.length import LengthFilter
from gptcli.corpus.filters.regex import RegexFilter
from gptcli.corpus.filters.verdict import Filter, Verdict

__all__ = ["FILTERS", "AnyFilter", "Filter", "Verdict"]

FILTERS: tuple[type[Filter], ...] = (LengthFilter, RegexFilter)


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


if TYPE_CHECKING:
    AnyFilter = Filter
else:  # what a recipe may hold: "length" or {name = "length", min_words = 100}
    AnyFilter = Annotated[Union[FILTERS], Field(discriminator="name"), BeforeValidator(_by_name)]  # noqa: UP007
