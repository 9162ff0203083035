"""One text as the filters look at it; each view is made once, when a filter first asks for it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptcli.corpus.filters.words import WordTable


class View:
    """Lines, words and sentences of one document.

    `words` and `sentences` may be given where another program has split the text; the rules then go by them. `url`:
    of the page that the text is from, "" where it is not known.
    """

    def __init__(
        self, text: str, words: list[str] | None = None, sentences: list[str] | None = None, url: str = ""
    ) -> None:
        self.text = text
        self.url = url
        self._words = words
        self._sentences = sentences

    @cached_property
    def words(self) -> list[str]:
        """Runs of letters and digits, and runs of one sign: see `words.split`."""
        if self._words is not None:
            return self._words
        from gptcli.corpus.filters.words import split

        return split(self.text)

    @cached_property
    def table(self) -> WordTable:
        """The same words as arrays, which is many times as fast as a list of them."""
        from gptcli.corpus.filters.words import table_of_text, table_of_words

        return table_of_text(self.text) if self._words is None else table_of_words(self._words)

    @cached_property
    def sentences(self) -> int:
        """How many sentences there are: see `sentences.count_sentences`."""
        if self._sentences is not None:
            return len(self._sentences)
        from gptcli.corpus.filters.sentences import count_sentences

        return count_sentences(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Lines by every separator that Unicode knows."""
        return self.text.splitlines()

    @cached_property
    def rows(self) -> list[str]:
        """What stands between newlines, with the empty ones."""
        return self.text.split("\n")


def duplicates(parts: list[str]) -> tuple[int, int]:
    """How many parts are equal to one before them, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    count = chars = 0
    for part in parts:
        if part in seen:
            count += 1
            chars += len(part)
        else:
            seen.add(part)
    return count, chars
