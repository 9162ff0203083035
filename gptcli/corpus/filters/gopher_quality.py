"""Gopher's rules on what text looks like."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View

if TYPE_CHECKING:
    import numpy as np

    from gptcli.corpus.filters.words import WordTable

_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQualityFilter(Filter):
    """Gopher's quality rules (Rae et al. 2021, A1.1), as datatrove reads them.

    Its limits of words and of their mean length leave out words of punctuation alone; all other shares count them in.
    """

    name: Literal["gopher_quality"] = "gopher_quality"
    min_words: int = threshold(50, "fewest words, those of punctuation alone not counted", ge=0)
    max_words: int = threshold(100_000, "most words, those of punctuation alone not counted; 0: no limit", ge=0)
    min_mean_word_length: float = threshold(3.0, "least mean length of words, in characters", ge=0)
    max_mean_word_length: float = threshold(10.0, "greatest mean length of words, in characters", ge=0)
    max_hashes_per_word: float = threshold(0.1, "most # signs for each word", ge=0)
    max_ellipses_per_word: float = threshold(0.1, "most ... and … for each word", ge=0)
    max_bullet_lines: float = threshold(0.9, "greatest share of lines that begin with • or -", ge=0, le=1)
    max_ellipsis_lines: float = threshold(0.3, "greatest share of lines that end with ... or …", ge=0, le=1)
    min_words_with_letters: float = threshold(0.8, "least share of words that hold a letter", ge=0, le=1)
    min_stop_words: int = threshold(2, f"fewest of {', '.join(_STOP_WORDS)} that occur", ge=0, le=len(_STOP_WORDS))

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        from gptcli.corpus.filters.words import LETTER, SUBSTANCE

        text, table = view.text, view.table
        spoken, words = table.count(SUBSTANCE), max(len(table), 1)
        yield "too_few_words", spoken
        yield "too_many_words", spoken
        mean = int(table.lengths[table.flags & SUBSTANCE != 0].sum()) / max(spoken, 1)
        yield "words_too_short", mean
        yield "words_too_long", mean
        yield "too_many_hashes", text.count("#") / words
        yield "too_many_ellipses", (text.count("...") + text.count("…")) / words
        yield "too_many_bullet_lines", _bullet_lines(view)
        yield "too_many_ellipsis_lines", _ellipsis_lines(view)
        yield "too_few_words_with_letters", table.count(LETTER) / words
        yield "too_few_stop_words", _stop_words(table)

    def passes(self, rule: str, value: Value) -> bool:
        number = float(value)
        match rule:
            case "too_few_words":
                return number >= self.min_words
            case "too_many_words":
                return not self.max_words or number <= self.max_words
            case "words_too_short":
                return number >= self.min_mean_word_length
            case "words_too_long":
                return number <= self.max_mean_word_length
            case "too_many_hashes":
                return number <= self.max_hashes_per_word
            case "too_many_ellipses":
                return number <= self.max_ellipses_per_word
            case "too_many_bullet_lines":
                return number <= self.max_bullet_lines
            case "too_many_ellipsis_lines":
                return number <= self.max_ellipsis_lines
            case "too_few_words_with_letters":
                return number >= self.min_words_with_letters
        return number >= self.min_stop_words


def _bullet_lines(view: View) -> float:
    if "-" not in view.text and "•" not in view.text:
        return 0.0
    return sum([line.lstrip().startswith(("•", "-")) for line in view.lines]) / max(len(view.lines), 1)


def _ellipsis_lines(view: View) -> float:
    if "..." not in view.text and "…" not in view.text:
        return 0.0
    return sum([line.rstrip().endswith(("...", "…")) for line in view.lines]) / max(len(view.lines), 1)


def _stop_words(table: WordTable) -> int:
    """How many of the stop words occur; words are told by their hashes."""
    hashes = table.hashes[table.lengths <= max(map(len, _STOP_WORDS))]
    return sum(bool((hashes == stop_word).any()) for stop_word in _stop_word_hashes())


@lru_cache(1)
def _stop_word_hashes() -> list[np.uint64]:
    from gptcli.corpus.filters.words import hash_of_word

    return [hash_of_word(word) for word in _STOP_WORDS]
