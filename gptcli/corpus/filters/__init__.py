"""Filters, in one tuple: to add one, write its file and put its class here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from gptcli.corpus.filters.blocklist import BlocklistFilter
from gptcli.corpus.filters.c4 import C4Filter
from gptcli.corpus.filters.fineweb import FineWebFilter
from gptcli.corpus.filters.gopher_quality import GopherQualityFilter
from gptcli.corpus.filters.gopher_repetition import GopherRepetitionFilter
from gptcli.corpus.filters.language import LanguageFilter
from gptcli.corpus.filters.length import LengthFilter
from gptcli.corpus.filters.pii import PiiFilter
from gptcli.corpus.filters.quality import QualityFilter
from gptcli.corpus.filters.regex import RegexFilter
from gptcli.corpus.filters.verdict import Filter, Value, Verdict
from gptcli.corpus.filters.view import View

__all__ = ["FILTERS", "AnyFilter", "Filter", "QualityFilter", "Value", "Verdict", "View"]

FILTERS: tuple[type[Filter], ...] = (
    LengthFilter,
    RegexFilter,
    C4Filter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    FineWebFilter,
    LanguageFilter,
    BlocklistFilter,
    PiiFilter,
    QualityFilter,
)


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


if TYPE_CHECKING:
    AnyFilter = Filter
else:  # what a recipe may hold: "length" or {name = "length", min_words = 100}
    AnyFilter = Annotated[Union[FILTERS], Field(discriminator="name"), BeforeValidator(_by_name)]  # noqa: UP007
