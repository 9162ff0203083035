"""Documents from addresses, and with words, that a user's lists name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gptcli.corpus.filters.blocked import urls_of, words_of
from gptcli.corpus.filters.lists import paths_of
from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View
from gptcli.spec import OneOrMore

_SHOWN = 5  # different words of a document


class BlocklistFilter(Filter):
    """Drop documents from the addresses of `urls`, and those with more than `max_hits` of the words of `words`.

    A list holds one entry a line; lines that begin with # are comments. An address is a domain, with all that is under
    it (example.com: also www.example.com), or a domain and the beginning of a path (example.com/forum/). Words and
    phrases are found whole, whatever their case and the spaces in a phrase; entries in scripts that set no spaces are
    found anywhere. A document without a known address passes `urls`.
    """

    name: Literal["blocklist"] = "blocklist"
    urls: OneOrMore = Field([], description="files of domains and URL prefixes, one a line")
    words: OneOrMore = Field([], description="files of words and phrases, one a line")
    max_hits: int = threshold(0, "most occurrences of listed words in a document that is kept", ge=0)

    @model_validator(mode="after")
    def _does_something(self) -> BlocklistFilter:
        if not self.urls and not self.words:
            raise ValueError('needs urls or words, as in {name = "blocklist", words = "words.txt"}')
        return self

    def files(self) -> list[str]:
        return [*self.urls, *self.words]

    def located(self, root: Path) -> BlocklistFilter:
        return self.model_copy(update={"urls": paths_of(self.urls, root), "words": paths_of(self.words, root)})

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        """blocked_url: the entry, or ""; blocked_words: "3: the, words" (number of hits, first five words), or ""."""
        if self.urls:
            url = view.url
            yield "blocked_url", urls_of(self.urls).match(url) if url else ""
        if self.words:
            hits = words_of(self.words).hits(view.text)
            yield "blocked_words", f"{sum(hits.values())}: {', '.join(sorted(hits)[:_SHOWN])}" if hits else ""

    def passes(self, rule: str, value: Value) -> bool:
        if rule == "blocked_url":
            return not value
        return not value or int(str(value).partition(":")[0]) <= self.max_hits
