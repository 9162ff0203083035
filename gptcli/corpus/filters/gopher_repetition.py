"""Gopher's rules against repetition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View, duplicates


def _share(default: float, what: str) -> float:
    found: float = threshold(default, f"greatest share of {what}", ge=0)
    return found


class GopherRepetitionFilter(Filter):
    """Gopher's repetition rules (Rae et al. 2021, table A1); each rule is named after its threshold.

    Shares of characters are of all the text's; n-grams are of words as the view splits them. As in datatrove, the
    characters of a top n-gram are those of all its occurrences with a space between words, so that the share may be
    over 1, and those of duplicate n-grams are of the words alone.
    """

    name: Literal["gopher_repetition"] = "gopher_repetition"
    duplicate_paragraphs: float = _share(0.30, "paragraphs equal to one before them")
    duplicate_paragraph_chars: float = _share(0.20, "characters in such paragraphs")
    duplicate_lines: float = _share(0.30, "lines equal to one before them")
    duplicate_line_chars: float = _share(0.20, "characters in such lines")
    top_2_gram: float = _share(0.20, "characters in the most frequent pair of words")
    top_3_gram: float = _share(0.18, "characters in the most frequent run of 3 words")
    top_4_gram: float = _share(0.16, "characters in the most frequent run of 4 words")
    duplicate_5_grams: float = _share(0.15, "characters in runs of 5 words equal to one before them")
    duplicate_6_grams: float = _share(0.14, "characters in runs of 6 words equal to one before them")
    duplicate_7_grams: float = _share(0.13, "characters in runs of 7 words equal to one before them")
    duplicate_8_grams: float = _share(0.12, "characters in runs of 8 words equal to one before them")
    duplicate_9_grams: float = _share(0.11, "characters in runs of 9 words equal to one before them")
    duplicate_10_grams: float = _share(0.10, "characters in runs of 10 words equal to one before them")

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        text = view.text
        yield "empty", float(not text)
        chars = max(len(text), 1)
        paragraphs = _paragraphs(text)
        count, repeated = duplicates(paragraphs)
        yield "duplicate_paragraphs", count / len(paragraphs)
        yield "duplicate_paragraph_chars", repeated / chars
        lines = [row for row in view.rows if row]
        count, repeated = duplicates(lines)
        # Newlines at either end have an empty line beyond them; the second of two repeats the first.
        beyond = text.startswith("\n") + text.endswith("\n") if lines else 2
        yield "duplicate_lines", (count + (beyond == 2)) / (len(lines) + beyond)
        yield "duplicate_line_chars", repeated / chars
        yield from _of_ngrams(view, chars)

    def passes(self, rule: str, value: Value) -> bool:
        limit: float = 0.0 if rule == "empty" else getattr(self, rule)
        return float(value) <= limit


def _of_ngrams(view: View, chars: int) -> Iterator[tuple[str, Value]]:
    from gptcli.corpus.filters.ngrams import repeats

    for found in repeats(view.table, range(2, 11)):
        if found.size < 5:
            yield f"top_{found.size}_gram", found.top_chars() / chars
        else:
            yield f"duplicate_{found.size}_grams", found.duplicate_chars() / chars


def _paragraphs(text: str) -> list[str]:
    """What stands between two or more newlines; one empty paragraph where there is no text."""
    parts = [part.lstrip("\n") for part in text.strip().split("\n\n") if part]
    return parts or [""]
