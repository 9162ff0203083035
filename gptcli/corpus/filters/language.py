"""Documents by their language."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import field_validator

from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View
from gptcli.spec import OneOrMore

_SAMPLE = 2_400  # characters; ten thousand tell the same languages, at a quarter of the speed
_PARTS = 3


class LanguageFilter(Filter):
    """Keep documents in a language of `keep` that is told with a probability of at least `min_probability` (py3langid).

    The probability is among all of the model's languages, whatever `keep` says. Of documents over 2,400 characters
    800 at the beginning, in the middle and at the end are read. "und": nothing tells a language (digits, say).
    """

    name: Literal["language"] = "language"
    keep: OneOrMore = threshold([], "ISO 639-1 codes (en, de, …), or und; empty: measure only")
    min_probability: float = threshold(0.65, "least probability of the language (as in FineWeb)", ge=0, le=1)

    @field_validator("keep")
    @classmethod
    def _codes(cls, codes: list[str]) -> list[str]:
        for code in codes:
            if not (code.isascii() and code.isalpha() and code.islower() and len(code) in (2, 3)):
                raise ValueError(f"{code} is no ISO 639-1 code, as en or de are")
        return codes

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        from gptcli.corpus.filters.langid import UNKNOWN, language_model  # numpy: only where a text is read

        code, probability = language_model().classify(sample(view.text))
        yield "language", code
        if code != UNKNOWN:
            yield "language_probability", round(probability, 4)

    def passes(self, rule: str, value: Value) -> bool:
        if not self.keep:
            return True
        return value in self.keep if rule == "language" else float(value) >= self.min_probability


def sample(text: str) -> str:
    """What the language is told from: at most 2,400 characters, a third each of head, middle and tail."""
    if len(text) <= _SAMPLE:
        return text
    part = _SAMPLE // _PARTS
    gap = (len(text) - part) // (_PARTS - 1)
    return "\n".join(text[place * gap : place * gap + part] for place in range(_PARTS))
