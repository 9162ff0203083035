"""FineWeb's own rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from gptcli.corpus.filters.sentences import SENTENCE_ENDS
from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View, duplicates


class FineWebFilter(Filter):
    """FineWeb's quality rules (Penedo et al. 2024, 3.6), against lists and pages of short or repeated lines.

    Lines are what stands between newlines, blank ones left out. Their ends are those of sentences in any script
    (Unicode's Sentence_Terminal); a line that ends in a quotation mark or in a space is not counted among them.
    """

    name: Literal["fineweb"] = "fineweb"
    min_punctuated_lines: float = threshold(0.12, "least share of lines that end a sentence", ge=0, le=1)
    short_line_chars: int = Field(30, description="characters of a short line, at most", ge=0)
    max_short_lines: float = threshold(0.67, "greatest share of short lines", ge=0, le=1)
    max_duplicate_line_chars: float = threshold(0.01, "greatest share of characters in lines equal to one before", ge=0)
    max_newlines_per_word: float = threshold(0.3, "most newlines for each word", ge=0)

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        lines = [row for row in view.rows if row and not row.isspace()]
        count = max(len(lines), 1)
        yield "too_few_punctuated_lines", sum(line[-1] in SENTENCE_ENDS for line in lines) / count
        yield "too_many_short_lines", sum(len(line) <= self.short_line_chars for line in lines) / count
        newlines = len(view.rows) - 1
        yield "duplicate_line_chars", duplicates(lines)[1] / max(len(view.text) - newlines, 1)
        yield "too_many_newlines", newlines / max(len(view.table), 1)

    def passes(self, rule: str, value: Value) -> bool:
        number = float(value)
        match rule:
            case "too_few_punctuated_lines":
                return number >= self.min_punctuated_lines
            case "too_many_short_lines":
                return number <= self.max_short_lines
            case "duplicate_line_chars":
                return number <= self.max_duplicate_line_chars
        return number <= self.max_newlines_per_word
